"""One training step of self-training distillation against the literal step: films a second and peak memory.

    python tests/benchmarks/bench_distl.py                 small rows, about two minutes
    python tests/benchmarks/bench_distl.py --full          the published rows: ViT-S/8 256/128 and ViT-S/16 224/96, K 65536
    python tests/benchmarks/bench_distl.py --device cuda

Both steps get the same weights and the same crops, all ten of them, and the same number of prototypes; a step is teacher,
student, losses, centre, clipping, AdamW and the teacher's average. Repetitions alternate between the two; times are the
process's processor seconds with one thread (wall seconds on an accelerator). Memory is measured in a process of its own for
each, from the first step to the last: on a processor the peak of the resident set, weights and libraries included; on an
accelerator the peak of what was allocated.

"published" is the literal step in single precision; "equal" is ours in the same precision. bfloat16 is ours under autocast.
Last, the bytes of one site's reply: the student alone in bfloat16, counted from the packed message.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.config import build
from models.loop import LoopConfig, _clip, _optimizer
from models.model import ModelConfig, furnish, initial_model
from models.objectives import Schedule
from models.objectives.distl import Config, Distl
from models.studies.views import ImageBatch
from strategies.messages import Answer, pack
from strategies.wire import to_wire
from tests.reference import distl as literal


@dataclass(frozen=True)
class Row:
    name: str
    patch: int
    size: int
    local: int
    batch: int
    width: int = 384
    depth: int = 12
    heads: int = 6
    prototypes: int = 65536

    @property
    def grid(self) -> int:
        return 224 // self.patch


FULL = (Row("ViT-S/8 256/128 B=1", 8, 256, 128, 1), Row("ViT-S/16 224/96 B=8", 16, 224, 96, 8))
SMALL = (
    Row("ViT-S/8 x3 blocks 256/128 B=1", 8, 256, 128, 1, depth=3, prototypes=16384),
    Row("ViT-S/16 x3 blocks 224/96 B=4", 16, 224, 96, 4, depth=3, prototypes=16384),
)


class Given(Distl):
    """Crops that are given, so that both steps see the same."""

    def views(self, films):
        return self.crops


def crops(row: Row, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    both = torch.rand(2, row.batch, 1, row.size, row.size, generator=g)
    local = torch.rand(8, row.batch, 1, row.local, row.local, generator=g)
    return both.to(device), local.to(device)


class Ours:
    """The project's step, as its loop takes it."""

    def __init__(self, row: Row, device: torch.device, dtype: torch.dtype | None) -> None:
        vision = {"name": "vit", "image_size": 224, "patch": row.patch, "width": row.width, "depth": row.depth}
        vision |= {"heads": row.heads, "positions": "learned", "drop_path": 0.1}
        sizes = {"size": row.size, "local_size": row.local, "prototypes": row.prototypes}
        self.objective = Given(build(Config, {"findings": ["Pneumothorax"], **sizes}))
        self.model = initial_model(build(ModelConfig, {"vision": vision}), [self.objective], 0).to(device)
        furnish(self.model, self.objective, 0)
        self.objective.crops = crops(row, device)
        self.local = build(LoopConfig, {"steps": 1, "lr": 1e-4, "weight_decay": 0.01, "clip_norm": 3.0, "clip": "each"})
        self.model.eval().requires_grad_(False)
        self.parameters = []
        for name in (*self.objective.trains, *self.objective.trains_here):
            module = self.model.components()[name].train().requires_grad_(True)
            self.parameters += list(module.parameters())
        self.optimizer = _optimizer(self.local, self.parameters)
        self.device, self.dtype = device, dtype
        self.schedule = Schedule(1, 1, 50, 100)
        self.objective.begin(self.model, Schedule(1, 1, 0, 100), ())
        self.batch = ImageBatch(torch.zeros(row.batch, 1, 8, 8, dtype=torch.uint8, device=device))

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.objective.step(self.model, self.batch, self.schedule)
        while True:
            with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
                part = next(parts, None)
            if part is None:
                break
            sum(part.values()).backward()
        _clip(self.local, self.parameters)
        self.optimizer.step()
        self.objective.after_step(self.model, self.batch, self.schedule)


class Literal:
    """The published step, literally."""

    def __init__(self, row: Row, device: torch.device, dtype: torch.dtype | None) -> None:
        sizes = literal.Sizes(
            width=row.width,
            depth=row.depth,
            heads=row.heads,
            patch=row.patch,
            grid=row.grid,
            prototypes=row.prototypes,
            drop_path=0.1,
        )
        self.reference = literal.Reference(sizes, literal.Settings(), device=device)
        both, local = crops(row, device)
        self.views = [*both, *local]
        self.device, self.dtype = device, dtype

    def step(self) -> None:
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            self.reference.step(self.views, lr=1e-4, alpha=1.2, momentum=0.9995)


KINDS = {"literal": (Literal, None), "ours": (Ours, None), "ours bf16": (Ours, torch.bfloat16)}
KINDS["literal bf16"] = (Literal, torch.bfloat16)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(row: Row, kinds: list[str], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repetition, kinds in turn."""
    made = {kind: KINDS[kind][0](row, device, KINDS[kind][1]) for kind in kinds}
    for step in made.values():
        step.step()
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, step in made.items():
            began = clock(device)
            step.step()
            found[kind].append(clock(device) - began)
    return found


def peak(row: Row, kind: str, device: torch.device) -> float:
    """Peak megabytes of two steps, in this process, which must have done nothing else."""
    if device.type == "cpu":  # the peak survives the start of a process, so it is the parent's until it is cleared
        Path("/proc/self/clear_refs").write_text("5")
    made = KINDS[kind][0](row, device, KINDS[kind][1])
    made.step()
    made.step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def peak_apart(number: int, full: bool, kind: str, device: str) -> float:
    command = [sys.executable, __file__, "--peak", json.dumps([number, full, kind]), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def reply_bytes() -> tuple[int, int]:
    """Bytes of a packed reply of the full-size student in bfloat16, and of student and prototypes in float32."""
    sizes = []
    for travel, dtype in ((False, "bfloat16"), (True, "float32")):
        cfg = build(Config, {"findings": ["Pneumothorax"], "prototypes_travel": travel})
        vision = {"name": "vit", "image_size": 224, "patch": 8, "positions": "learned"}
        model = initial_model(build(ModelConfig, {"vision": vision}), [cfg.build()], 0)
        tensors, bf16 = to_wire(model.state(cfg.build().trains), dtype)
        sizes.append(len(pack(Answer(site="north", examples=1, tensors=tensors, bf16=bf16))))
    return sizes[0], sizes[1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--full", action="store_true")
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=0)
    options.add_argument("--row", type=int, default=-1, help="one row alone, by number")
    options.add_argument("--peak", default="", help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    if given.peak:
        number, full, kind = json.loads(given.peak)
        print(peak((FULL if full else SMALL)[number], kind, device))
        return
    repeats = given.repeats or (3 if given.full else 5)
    for number, row in enumerate(FULL if given.full else SMALL):
        if given.row not in (-1, number):
            continue
        seconds = timed(row, list(KINDS), device, repeats)
        memory = {kind: peak_apart(number, given.full, kind, given.device) for kind in KINDS}
        print(f"{row.name}, K={row.prototypes}, {repeats} repetitions, {given.threads} thread(s), {given.device}")
        base, base_memory = statistics.median(seconds["literal"]), memory["literal"]
        for kind, values in seconds.items():
            middle = statistics.median(values)
            print(
                f"  {kind:13} {middle:8.3f} s (least {min(values):.3f})  {row.batch / middle:8.3f} films/s"
                f"  {base / middle:6.2f} x   {memory[kind]:8.0f} MB  {memory[kind] / base_memory:5.2f} x"
            )
    print("aims: ours >= 1.4 x and <= 0.60 x memory; ours bf16 >= 5 x")
    student, whole = reply_bytes()
    print(f"reply: student in bf16 {student / 1e6:.1f} MB (aim <= 45), with prototypes in fp32 {whole / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
