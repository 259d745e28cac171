"""Ten training steps here and in transformers, PEFT and bitsandbytes, from the same adapter and rows."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

import drawn
import peers
import wardrobe

STEPS = 10
BATCH = 2
ACCUMULATION = 2
RATE = 1e-3
DECAY = 0.01
IGNORED = -100


def kinds(rng):
    """The kinds of adapter that are trained."""
    return [
        ("lora", {}),
        ("rslora", {"use_rslora": True}),
        ("dora", {"use_dora": True, "use_rslora": rng.random() < 0.5}),
        ("patterns", {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"up_proj": 5}}),
    ]


def initial(rng, base, options, folder):
    """Has PEFT write an adapter that changes the base a little already."""
    rank = rng.choice([2, 4, 8, 11])
    options = {
        "r": rank,
        "lora_alpha": rng.choice([rank, 2 * rank, 16]),
        "target_modules": sorted(rng.sample(drawn.ATTENTION + drawn.MLP, rng.randint(2, 7))),
    } | options
    peft = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    for name, tensor in peft.named_parameters():
        if "lora_A" in name:
            tensor.data = tensor.shape[1] ** -0.5 * torch.randn_like(tensor)
        elif "lora_B" in name:
            tensor.data = 0.02 * torch.randn_like(tensor)
    peft.save_pretrained(folder)
    return f"rank {rank} on {len(options['target_modules'])} kinds of modules"


def rows(rng, vocabulary, file):
    """Tokenized rows with masked beginnings, as many as ten steps take."""
    drawn_rows = []
    for _ in range(STEPS * BATCH * ACCUMULATION):
        ids = [rng.randrange(3, vocabulary) for _ in range(rng.randint(2, 40))]
        masked = rng.randrange(len(ids))
        labels = [IGNORED] * masked + ids[masked:]
        # One target at least: a row's first label predicts nothing.
        labels[-1] = ids[-1]
        drawn_rows.append({"input_ids": ids, "labels": labels})
    file.write_text("".join(json.dumps(row) + "\n" for row in drawn_rows))
    return drawn_rows


def loss_sum(model, row):
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
    logits = model(ids, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(
        logits[:-1], labels[1:], ignore_index=IGNORED, reduction="sum"
    )


def targets(some):
    return sum(label != IGNORED for row in some for label in row["labels"][1:])


def theirs(model, all_rows):
    """Losses and gradient norms of the steps, as transformers' Trainer with token-wise means."""
    parameters = [p for n, p in model.named_parameters() if "lora_" in n]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    losses, norms = [], []
    per_step = BATCH * ACCUMULATION
    for step in range(STEPS):
        some = all_rows[step * per_step : (step + 1) * per_step]
        total = sum(loss_sum(model, row) for row in some) / targets(some)
        total.backward()
        losses.append(float(total))
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms


@torch.no_grad()
def mean_loss(model, all_rows):
    return float(sum(loss_sum(model, row) for row in all_rows)) / targets(all_rows)


def close(ours, expected, tolerance, what):
    off = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, expected, strict=True))
    assert off <= tolerance, f"{what} off by {off:.2e}: {ours}, theirs {expected}"
    return off


def trained(folder, base, init, all_rows, file):
    """Trains here and there; then PEFT loads what was written here. Gives what was seen."""
    out = folder / f"{init.name}-trained"
    wardrobe.run(
        *["train", "--model", base, "--data", file, "--out", out],
        *["--init-adapter", init, "--order", "sequential", "--batch-size", BATCH],
        *["--grad-accum", ACCUMULATION, "--max-steps", STEPS, "--lr", RATE],
        *["--schedule", "constant", "--warmup-steps", 0, "--weight-decay", DECAY],
        *["--max-grad-norm", 1.0, "--optim", "adamw", "--logging-steps", 1],
        *["--eval-data", file, "--eval-steps", STEPS, "--math", "exact", "--output", "last"],
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    losses, norms = theirs(peers.load(base, init), all_rows)
    off = close([line["loss"] for line in steps], losses, 1e-4, "losses")
    close([line["grad_norm"] for line in steps], norms, 1e-3, "gradient norms")
    # What the trainer computed with the adapter that it wrote, PEFT computes with it too.
    evaluated = [line["eval_loss"] for line in lines if "eval_loss" in line]
    expected = [mean_loss(peers.load(base, adapter), all_rows) for adapter in (init, out)]
    close(evaluated, expected, 1e-4, "evaluations")
    return out, f"losses of {STEPS} steps within {off:.1e}, evaluations {evaluated[0]:.3f} and {evaluated[1]:.3f}"
