"""The launcher's commands, run as a user runs them."""

import json
import subprocess
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parents[2] / "deploy" / "wardrobe"


def run(*arguments):
    result = subprocess.run([LAUNCHER, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        said = result.stderr.strip()
        raise AssertionError(f"wardrobe {arguments[0]} exited {result.returncode}: {said}")


def quantize(model, out, *options):
    run("quantize", "--model", model, "--out", out, *options)


def batch(folder, model, adapters, requests):
    """Answers by request id; adapters maps names to folders."""
    questions, answers = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
    questions.write_text("".join(json.dumps(request) + "\n" for request in requests))
    named = [word for name, path in adapters.items() for word in ("--adapter", f"{name}={path}")]
    run(
        *["batch", "--model", model, "--quantize", "none", "--kv", "f32", "--max-logprobs", -1],
        *[*named, "--in", questions, "--out", answers],
    )
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == len(requests), f"{len(lines)} answers to {len(requests)} requests"
    for line in lines:
        assert "error" not in line, f"{line.get('id')}: {line['error']}"
    return {line["id"]: line for line in lines}
