"""Wardrobe against transformers, PEFT and bitsandbytes, on models and adapters drawn at random.

1. A checkpoint that Wardrobe quantized loads there: identical stored tensors, identical weights.
2. A checkpoint that they quantized loads here, and gives their logits.
3. Adapters that PEFT wrote load here, and give their logits.
4. Adapters that were trained here had their losses on the way, load in PEFT, and give its logits.

WARDROBE_INTEROP_SEED=N runs that seed alone; WARDROBE_INTEROP_TRIALS says how many otherwise.
"""

import logging
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns as it is imported

import bitsandbytes
import numpy
import torch
import transformers
from safetensors.torch import load_file

import drawn
import peers
import training
import wardrobe

ADAPTERS = 6
TOKENS = 24
NEW_TRIAL_BEFORE = 240  # seconds
STEADY_GAP = 1e-3


class Score:
    passed = 0
    failed = 0

    def check(self, seed, name, body):
        """Runs body, which gives what it measured; prints one line."""
        start = time.time()
        try:
            measured = body()
            self.passed += 1
        except Exception as failure:
            self.failed += 1
            measured = f"FAILED: {failure}"
            if not isinstance(failure, AssertionError):
                traceback.print_exc()
        print(f"seed {seed}: {name}: {measured} ({time.time() - start:.1f} s)", flush=True)


def same_bytes(a, b):
    raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


def weights(tensors, name, blocksize, shape):
    """float32(code * absmax) from the stored tensors, by numpy alone."""
    stored = {key: tensors[f"{name}.{key}"].numpy() for key in ("absmax", "quant_map")}
    absmax = stored["absmax"]
    if f"{name}.nested_absmax" in tensors:
        nested = tensors[f"{name}.nested_absmax"].numpy()
        codes = tensors[f"{name}.nested_quant_map"].numpy()[absmax]
        offset = numpy.float32(state(tensors, name)["nested_offset"])
        absmax = codes * nested[numpy.arange(absmax.size) // 256] + offset
    packed = tensors[name].numpy().reshape(-1)
    nibbles = numpy.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[: shape[0] * shape[1]]
    blocks = numpy.arange(nibbles.size) // blocksize
    return (stored["quant_map"][nibbles] * absmax[blocks]).reshape(shape)


def state(tensors, name):
    (key,) = [key for key in tensors if key.startswith(f"{name}.quant_state.")]
    return bitsandbytes.functional.unpack_tensor_to_dict(tensors[key])


def ours_loads_there(source, out, options):
    wardrobe.quantize(source, out, *options)
    stored = {}
    for file in sorted(Path(out).glob("*.safetensors")):
        stored |= load_file(file)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        out, dtype="auto", device_map="cpu", output_loading_info=True
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(problem), f"{problem}: {info[problem]}"

    loaded = model.state_dict()
    for name, tensor in stored.items():
        assert name in loaded, f"{name} is in our file, but not in their model"
        assert same_bytes(tensor, loaded[name]), f"{name} differs once loaded"

    original = load_file(Path(source) / "model.safetensors")
    quantized = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    skipped = [options[i + 1] for i, option in enumerate(options) if option == "--skip"]
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    meant = [name for name in linear if name.split(".")[-1] not in [*skipped, "lm_head"]]
    assert [name for name, _ in quantized] == meant, f"quantized {quantized}, meant {meant}"
    for name, module in quantized:
        key = f"{name}.weight"
        held = module.weight.quant_state
        got = ["--type", held.quant_type, "--block-size", str(held.blocksize)]
        got += [] if held.nested else ["--no-double-quant"]
        assert got == options[: len(got)], f"{key}: quantized as {got}, asked for {options}"
        # Their CPU kernel restarts the blocks at each row: give it rows of one block each.
        shape = original[key].shape
        held.dtype, held.shape = torch.float32, (shape.numel() // held.blocksize, held.blocksize)
        theirs = bitsandbytes.functional.dequantize_4bit(module.weight.data, held).numpy()
        ours = weights(stored, key, held.blocksize, shape)
        assert numpy.array_equal(theirs.reshape(shape), ours), f"{key}: dequantized values differ"
        packed, fresh = bitsandbytes.functional.quantize_4bit(
            original[key].float(), blocksize=held.blocksize, quant_type=held.quant_type
        )
        assert torch.equal(packed, stored[key]), f"{key}: they quantize to other codes"
        if not held.nested:
            assert torch.equal(fresh.absmax, stored[f"{key}.absmax"]), f"{key}: other absmax"
    kept = [name for name in original if f"{name}.absmax" not in stored]
    for name in kept:
        assert same_bytes(original[name], stored[name]), f"{name} is not the model's own"
    return f"{len(stored)} tensors and {len(quantized)} weights identical"


class Difference:
    """The largest differences between their logits and our log-probabilities."""

    def __init__(self):
        self.row = self.token = 0.0

    def rows(self, logits, ours, where):
        theirs = logits.double().log_softmax(-1)
        difference = (theirs - ours).abs()
        self.row = max(self.row, float(difference.max()))
        excess = difference - (1e-4 + 1e-4 * logits.abs())
        assert float(excess.max()) <= 0, f"{where}: a logit is off by {float(difference.max()):.2e}"

    def logprob(self, theirs, ours, where):
        self.token = max(self.token, abs(theirs - ours))
        assert abs(theirs - ours) <= 1e-4, f"{where}: log-probability {ours}, theirs {theirs}"

    def __str__(self):
        return f"max difference {self.row:.1e}, of tokens {self.token:.1e}"


def compare(model, prompts, answers, prefix):
    difference = Difference()
    steady = 0
    for number, ids in enumerate(prompts):
        where = f"{prefix}, prompt of {len(ids)}"
        assert f"{prefix}/{number}" in answers, f"{where}: no answer"
        answer = answers[f"{prefix}/{number}"]
        logits = peers.logits(model, ids)
        scored = answer["prompt_logprobs"]
        assert len(scored) == len(ids), f"{where}: {len(scored)} prompt_logprobs"
        ours = [entry["all"] for entry in [*scored[1:], answer["logprobs"][0]]]
        difference.rows(logits, torch.tensor(ours, dtype=torch.float64), where)
        theirs = logits.double().log_softmax(-1)
        for at in range(1, len(ids)):
            difference.logprob(float(theirs[at - 1, ids[at]]), scored[at]["logprob"], where)

        tokens, logprobs, gaps = peers.greedy(model, ids, TOKENS)
        assert len(answer["token_ids"]) == TOKENS, f"{where}: {len(answer['token_ids'])} tokens"
        for at, gap in enumerate(gaps):
            if gap < STEADY_GAP:
                break
            got = answer["token_ids"][at]
            assert got == tokens[at], f"{where}: token {at} is {got}, theirs {tokens[at]}"
            difference.logprob(logprobs[at], answer["logprobs"][at]["logprob"], where)
            steady += 1
    return f"{difference}, {steady} greedy tokens equal"


def answers_alike(folder, model, prompts):
    answers = wardrobe.batch(folder, model, {}, requests("base", None, prompts))
    return compare(peers.load(model), prompts, answers, "base")


def requests(prefix, adapter, prompts):
    return [
        {"id": f"{prefix}/{number}", "token_ids": ids, "max_tokens": TOKENS, "temperature": 0}
        | {"logprobs": -1, "echo": True, "ignore_eos": True}
        | ({"adapter": adapter} if adapter else {})
        for number, ids in enumerate(prompts)
    ]


def trial(seed, folder, score):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    source = folder / "source"
    config = drawn.model(rng, source)
    print(
        f"seed {seed}: {config.model_type} hidden {config.hidden_size} heads"
        f" {config.num_attention_heads}/{config.num_key_value_heads} layers"
        f" {config.num_hidden_layers} {config.rope_parameters['rope_type']} rope"
        f" {'tied' if config.tie_word_embeddings else 'untied'} {config.dtype}",
        flush=True,
    )

    prompts = [
        [rng.randrange(3, config.vocab_size) for _ in range(n)]
        for n in (1, 17, rng.randint(60, 150))
    ]
    quantizations = [
        ["--type", type_, "--block-size", "64", *extra]
        for type_ in ("nf4", "fp4")
        for extra in ([], ["--no-double-quant"])
    ]
    others = ["--type", "nf4", "--block-size", rng.choice(["128", "256"])]
    others += ["--skip", rng.choice(["o_proj", "k_proj", "up_proj"]), "--skip", "lm_head"]
    for options in [*quantizations, others]:
        score.check(
            seed,
            " ".join(["wardrobe quantize", *options]),
            lambda: ours_loads_there(source, folder / "".join(options), options),
        )
    options = rng.choice(quantizations)
    score.check(
        seed,
        " ".join(["wardrobe batch over our", *options]),
        lambda: answers_alike(folder, folder / "".join(options), prompts),
    )

    base = folder / "theirs"
    how = drawn.quantized(rng, source, base)
    adapters = {}
    for kind, options in drawn.kinds(rng, config)[:ADAPTERS]:
        path = folder / kind
        adapters[path] = drawn.adapter(rng, peers.load(base), kind, options, path)

    answers = {}

    def ask():
        asked = requests("base", None, prompts)
        for path in adapters:
            asked += requests(path.name, path.name, prompts)
        named = {path.name: path for path in adapters}
        answers.update(wardrobe.batch(folder, base, named, asked))
        return f"{len(answers)} answers, {len(adapters)} adapters in one batch"

    score.check(seed, f"wardrobe batch over their {how} checkpoint", ask)
    score.check(
        seed, f"{how} base", lambda: compare(peers.load(base), prompts, answers, "base")
    )
    for path, kind in adapters.items():
        score.check(
            seed,
            f"{how} {kind}",
            lambda: compare(peers.load(base, path), prompts, answers, path.name),
        )


    train(rng, seed, base, config, prompts, folder, score)


def train(rng, seed, base, config, prompts, folder, score):
    """Trains one adapter of a kind, and has the peers and the server answer with it."""
    kinds = training.kinds(rng)
    kind, options = kinds[seed % len(kinds)]
    init = folder / f"init-{kind}"
    file = folder / "rows.jsonl"
    how = training.initial(rng, peers.load(base), options, init)
    rows = training.rows(rng, config.vocab_size, file)
    written = []

    def steps():
        out, seen = training.trained(folder, base, init, rows, file)
        written.append(out)
        return seen

    score.check(seed, f"wardrobe train, {kind}, {how}", steps)

    def served():
        assert written, "nothing was trained"
        asked = requests("trained", "trained", prompts)
        answers = wardrobe.batch(folder, base, {"trained": written[0]}, asked)
        return compare(peers.load(base, written[0]), prompts, answers, "trained")

    score.check(seed, f"what was trained, {kind}", served)


def main():
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    start = time.time()
    given = os.environ.get("WARDROBE_INTEROP_SEED")
    first = int(given) if given else random.SystemRandom().randrange(1_000_000)
    trials = 1 if given else int(os.environ.get("WARDROBE_INTEROP_TRIALS", "6"))
    score = Score()
    for seed in range(first, first + trials):
        if seed > first and time.time() - start > NEW_TRIAL_BEFORE:
            break
        with tempfile.TemporaryDirectory(prefix="wardrobe-interop-") as folder:
            trial(seed, Path(folder), score)
    if score.failed:
        print("to run one seed again: WARDROBE_INTEROP_SEED=N .ci/interop")
    print(f"interop: {score.passed} passed, {score.failed} failed")
    sys.exit(1 if score.failed else 0)


if __name__ == "__main__":
    main()
