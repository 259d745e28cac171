"""Models and adapters drawn at random, written by transformers, bitsandbytes and PEFT."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FAMILIES = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}


def ropes():
    return [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ]


def model(rng, folder):
    """Writes an unquantized model: every linear layer's input is a multiple of 64 wide."""
    family = rng.choice(sorted(FAMILIES))
    heads, head_dim = rng.choice([(2, 32), (4, 16), (8, 16), (4, 32), (12, 16), (6, 32)])
    # All but Qwen2 may have heads that do not add up to the hidden size; Llama's must divide it.
    widths = [n for n in (64, 128, 192) if family != "llama" or n % heads == 0]
    hidden = heads * head_dim if family == "qwen2" else rng.choice(widths)
    options = {} if family == "qwen2" else {"head_dim": head_dim}
    if family == "mistral":
        options["sliding_window"] = rng.choice([None, 16, 40])
    config = FAMILIES[family](
        vocab_size=rng.randint(300, 700),
        hidden_size=hidden,
        intermediate_size=64 * rng.randint(2, 5),
        num_hidden_layers=rng.choice([2, 3]),
        num_attention_heads=heads,
        num_key_value_heads=rng.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        max_position_embeddings=256,
        rms_norm_eps=rng.choice([1e-5, 1e-6]),
        rope_parameters=rng.choice(ropes()) | {"rope_theta": rng.choice([1e4, 5e5, 1e6])},
        tie_word_embeddings=rng.random() < 0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **options,
    )
    drawn = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tied = config.tie_word_embeddings
    for name, tensor in drawn.named_parameters():
        if "norm" in name:
            tensor.data = 1 + 0.2 * torch.randn_like(tensor)
        elif name.endswith("bias"):
            tensor.data = 0.3 * torch.randn_like(tensor)
        elif "lm_head" in name or ("embed_tokens" in name and tied):
            # Logits with a standard deviation of about 2.5.
            tensor.data = 2.5 * hidden**-0.5 * torch.randn_like(tensor)
        elif "embed_tokens" in name:
            tensor.data = torch.randn_like(tensor)
        else:
            # Tied, the layers must outweigh the embedding, or each token repeats itself.
            size = 4 if tied and ("o_proj" in name or "down_proj" in name) else 1
            tensor.data = size * tensor.shape[1] ** -0.5 * torch.randn_like(tensor)
    drawn.to(rng.choice(DTYPES)).save_pretrained(folder)
    return config


def quantized(rng, source, folder):
    """Has transformers and bitsandbytes quantize a model folder; gives a word on how."""
    type_, double = rng.choice(["nf4", "fp4"]), rng.random() < 0.5
    storage = rng.choice([torch.uint8, torch.uint8, torch.bfloat16])
    loaded = AutoModelForCausalLM.from_pretrained(
        source,
        device_map="cpu",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=type_,
            bnb_4bit_use_double_quant=double,
            bnb_4bit_quant_storage=storage,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    loaded.save_pretrained(folder)
    return type_ + ("-dq" if double else "") + ("" if storage == torch.uint8 else "-bf16-storage")


def adapter(rng, base, kind, options, folder):
    """Has PEFT write an adapter of one of the kinds for a loaded base; gives a word on it."""
    rank = rng.randint(1, 24)
    options = {
        "r": rank,
        "lora_alpha": rng.choice([1, rank, 2 * rank, 16]),
        "target_modules": sorted(rng.sample(ATTENTION + MLP, rng.randint(1, 7))),
        "use_rslora": rng.random() < 0.3,
    } | options
    peft = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    randomize(rng, peft, options)
    peft.save_pretrained(folder)
    storage = rng.choice(DTYPES)
    store(Path(folder) / "adapter_model.safetensors", storage)
    scaling = "rslora" if options["use_rslora"] else "lora"
    return f"{kind} {scaling} rank {rank} {str(storage).removeprefix('torch.')}"


def kinds(rng, config):
    """The kinds of adapter that fit the model, in random order."""
    layers = config.num_hidden_layers
    layer = rng.randrange(layers)
    norm = rng.choice(["input_layernorm", "post_attention_layernorm", "model.norm", "norm"])
    found = [
        ("plain", {}),
        ("dora", {"use_dora": True}),
        ("all-linear", {"target_modules": "all-linear"}),
        (
            "patterns",
            {
                "target_modules": ATTENTION + ["up_proj"],
                "rank_pattern": {"q_proj": 3, rf".*\.layers\.{layer}\.mlp\.up_proj": 9},
                "alpha_pattern": {"v_proj": 5, f"layers.{layer}.self_attn.o_proj": 24},
            },
        ),
        (
            "regex",
            {"target_modules": rf".*\.layers\.[{layer}9]\.(self_attn\.(q|v)|mlp\.gate)_proj"},
        ),
        ("exclude", {"target_modules": ATTENTION + MLP, "exclude_modules": ["k_proj", "up_proj"]}),
        ("layers", {"layers_to_transform": sorted(rng.sample(range(layers), rng.randint(1, 2)))}),
        ("layers-pattern", {"layers_to_transform": layer, "layers_pattern": "layers"}),
        ("lora-bias", {"lora_bias": True}),
        ("save-head", {"modules_to_save": ["lm_head"]}),
        ("save-embedding", {"modules_to_save": ["embed_tokens"]}),
        (f"save-{norm}", {"modules_to_save": [norm]}),
        ("head-and-embedding", {"target_modules": ["embed_tokens", "lm_head", "v_proj"]}),
        ("dora-head", {"target_modules": ["lm_head", "o_proj"], "use_dora": True}),
    ]
    if config.model_type == "qwen2":
        found += [("bias-lora-only", {"bias": "lora_only"}), ("bias-all", {"bias": "all"})]
    return rng.sample(found, len(found))


def randomize(rng, peft, options):
    # A change of about a third of each weight, whatever the rank and the scaling.
    scalings = {
        name: module.scaling["default"]
        for name, module in peft.named_modules()
        if hasattr(module, "lora_A")
    }
    for name, tensor in peft.named_parameters():
        owner = name.split(".lora_")[0]
        if "lora_A" in name:
            tensor.data = tensor.shape[1] ** -0.5 * torch.randn_like(tensor)
        elif "lora_embedding_A" in name:
            tensor.data = torch.randn_like(tensor)
        elif "lora_B" in name or "lora_embedding_B" in name:
            rank = tensor.shape[-1]
            size = 0.1 if name.endswith("bias") else 0.3 * rank**-0.5 / scalings[owner]
            if "embedding" in name:
                size *= tensor.shape[0] ** -0.5
            tensor.data = size * torch.randn_like(tensor)
        elif "lora_magnitude_vector" in name or "modules_to_save" in name:
            tensor.data = tensor * (1 + 0.2 * torch.randn_like(tensor))
        elif name.endswith("bias") and options.get("bias", "none") != "none":
            tensor.data = tensor + 0.2 * torch.randn_like(tensor)


def store(file, dtype):
    # Copies of the base's own weights stay as they are: they must equal the base's.
    tensors = load_file(file)
    for name in tensors:
        if ".base_layer.weight" not in name:
            tensors[name] = tensors[name].to(dtype)
    save_file(tensors, file, metadata={"format": "pt"})
