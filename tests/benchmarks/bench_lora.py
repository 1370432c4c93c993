"""Rules for low-rank adapters: the error of each against the true mean of products, and what each sends. Under a minute.

OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_lora
"""

from __future__ import annotations

import time

import torch

from strategies.messages import Answer, pack
from strategies.wire import to_wire
from tests.strategies.lora_world import SETTINGS, begun, bytes_of, campaign, error, llama_1b, moved, start

SITES, RANKS = (2, 5, 20), (4, 16, 64)


def errors() -> None:
    """After one round from the middle of a run, float32: relative error of the model that the sites go on from."""
    print("\n||after the round - mean of the sites' products|| / ||mean||, two layers, float32")
    print(f"{'sites x rank':<12}" + "".join(f"{f'{k} x {r}':>10}" for k in SITES for r in RANKS))
    for name in SETTINGS:
        cells = []
        for sites in SITES:
            for rank in RANKS:
                made, current = begun(name, start(rank, b=0.0 if name == "stack" else 0.1))
                updates = moved(current, made.train(1, current), [1.0 + 37 * (i % 4) for i in range(sites)])
                cells.append(error(current, updates, made.combine(current, updates), made))
        print(f"{name:<12}" + "".join(f"{cell:>10.1e}" for cell in cells))


def heterogeneity() -> None:
    """Sites that train: 384 x 384, rank 16, 5 sites, target = common rank-24 + het * own rank-24, Adam, 40 local steps."""
    print("\nsites that train towards targets of their own, heterogeneity 1, 6 rounds (plain averaging is the control)")
    print(f"{'rule':<12}{'error, first':>14}{'error, last':>14}{'distance to the mean target':>30}")
    for name in SETTINGS:
        found, distance = campaign(name, het=1.0, lr=0.01)
        print(f"{name:<12}{found[0]:>14.1e}{found[-1]:>14.1e}{distance:>30.3f}")


def sizes(sites: int = 5) -> None:
    """Bytes per site and round of a Llama of 1B, all seven linears, rank 16, bfloat16, from the shapes."""
    shapes, parameters = llama_1b()
    a, b = bytes_of(shapes, "A"), bytes_of(shapes, "B")
    rows = {
        "alternate": (f"{b / 1e6:.1f} or {a / 1e6:.1f}", f"{b / 1e6:.1f} or {a / 1e6:.1f}"),
        "ffa": (f"{b / 1e6:.1f}", f"{b / 1e6:.1f}"),
        "stack": (f"{(a + b) / 1e6:.1f}", f"{sites * (a + b) / 1e6:.1f}"),
        "fedex": (f"{(a + b) / 1e6:.1f}", f"{(sites + 2) * (a + b) / 1e6:.1f}"),
        "svd": (f"{(a + b) / 1e6:.1f}", f"{(a + b) / 1e6:.1f}"),
        "average": (f"{(a + b) / 1e6:.1f}", f"{(a + b) / 1e6:.1f}"),
        "whole model, float32": (f"{4 * parameters / 1e6:.0f}",) * 2,
    }
    print(f"\nMB per site and round, Llama-3.2-1B shape, seven linears, rank 16, bfloat16, {sites} sites")
    print(f"{'rule':<22}{'up':>16}{'down':>16}")
    for name, (up, down) in rows.items():
        print(f"{name:<22}{up:>16}{down:>16}")
    made = {name: torch.zeros(shape) for name, shape in shapes.items() if ".lora_B." in name}
    arrays, bf16 = to_wire(made, "bfloat16")
    message = len(pack(Answer(site="north", examples=1000, tensors=arrays, bf16=bf16)))
    print(f"an answer of the larger factor as packed: {message / 1e6:.2f} MB, {message / b - 1:.2%} over its tensors")


def main() -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    errors()
    sizes()
    heterogeneity()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
