"""Writes schedules.csv: the rates of transformers' own schedules (pip install transformers torch).

python schedules.py > schedules.csv
"""

from transformers import optimization as t

RUNS = [(0, 20), (5, 50), (7, 31), (1, 1), (3, 3), (10, 4)]

print("schedule,warmup,total,cycles,step,factor")
for warmup, total in RUNS:
    kinds = {
        "constant": (1, lambda k: t._get_constant_schedule_with_warmup_lr_lambda(k, num_warmup_steps=warmup)),
        "linear": (1, lambda k: t._get_linear_schedule_with_warmup_lr_lambda(
            k, num_warmup_steps=warmup, num_training_steps=total)),
        "cosine": (1, lambda k: t._get_cosine_schedule_with_warmup_lr_lambda(
            k, num_warmup_steps=warmup, num_training_steps=total, num_cycles=0.5)),
    }
    for cycles in (1, 3):
        kinds["cosine_with_restarts" if cycles == 1 else "cosine_with_restarts "] = (
            cycles,
            lambda k, c=cycles: t._get_cosine_with_hard_restarts_schedule_with_warmup_lr_lambda(
                k, num_warmup_steps=warmup, num_training_steps=total, num_cycles=c))
    for name, (cycles, factor) in kinds.items():
        for step in range(total + 2):
            print(f"{name.strip()},{warmup},{total},{cycles},{step},{factor(step)!r}")
