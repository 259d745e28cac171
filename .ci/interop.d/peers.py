"""The peers' answers: transformers, PEFT and bitsandbytes in float32 on the CPU.

bitsandbytes' Linear4bit multiplies by float32(code * absmax) only in training mode: in evaluation
mode its CPU path repacks the weights for a bfloat16 kernel. Its compiled dequantization restarts
the blocks at each row, so widths must be a multiple of the block size.
"""

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(folder, adapter=None):
    """A model folder as transformers loads it, all that is not 4-bit in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    model = in_float32(model)
    if adapter is not None:
        # In training mode, but frozen; PEFT brings the adapter's tensors to float32.
        model = PeftModel.from_pretrained(model, adapter)
        in_float32(model)
    return model.train()


def in_float32(model):
    # transformers leaves a 4-bit checkpoint's embeddings, norms and biases in its own dtype.
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and not hasattr(tensor, "quant_state"):
            tensor.data = tensor.data.float()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
            # PEFT's DoRA norm takes W in this dtype.
            module.weight.quant_state.dtype = torch.float32
    return model


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def greedy(model, ids, count):
    """Greedy tokens, each with its log-probability and the gap to the second-best logit."""
    tokens, logprobs, gaps = [], [], []
    step, cache = torch.tensor([ids]), None
    for _ in range(count):
        out = model(step, past_key_values=cache, use_cache=True)
        row, cache = out.logits[0, -1], out.past_key_values
        top = row.topk(2).values
        token = int(row.argmax())
        tokens.append(token)
        logprobs.append(float(row.log_softmax(-1)[token]))
        gaps.append(float(top[0] - top[1]))
        step = torch.tensor([[token]])
    return tokens, logprobs, gaps
