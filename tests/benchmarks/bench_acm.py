"""ACM against the published layers: time and memory of the module, and what it adds to a training step of ResNet-50.

    python -m tests.benchmarks.bench_acm            about two minutes on an idle core
    python -m tests.benchmarks.bench_acm --quick    the small half of the rows
    python -m tests.benchmarks.bench_acm --bfloat16 --channels-last --repeats 9

Everything runs in this process with one thread, on equal weights and inputs; the sides take turns, repetition by
repetition, and times are processor seconds: the median, and the least in brackets. The module is forward and backward at
batch 8 through both outputs. ``kept`` is what autograd holds from forward to backward beside input and output; ``peak`` is
the most that forward and backward together had allocated. The network is one SGD step; its blocks differ in nothing but
the module, so "plain" is the same code without one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.vision import encode
from models.vision.acm import ACM, ACMConfig
from models.vision.resnet50 import Bottleneck, Config, ResNet50
from tests.reference.acm import LiteralACM, ours_from_literal

SHAPES = ((256, 56), (512, 28), (1024, 14), (2048, 7), (256, 112), (512, 56), (1024, 28), (2048, 14))
NETWORKS = ((224, 4), (448, 2))


class LiteralBlockModule(nn.Module):
    """The published layers in the place of ours: the block's norm first, then the module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.published = LiteralACM(channels)

    def forward(self, x: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
        y, d = self.published(norm(x))
        return y, d.flatten()


def timed(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each side, in turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            began = time.process_time()
            run()
            if repeat:
                seconds[name].append(time.process_time() - began)
    return seconds


def kept_bytes(run: Callable[[], tuple[Tensor, ...]], known: list[Tensor]) -> int:
    """Bytes of the storages that autograd holds after ``run``, beside those of ``known`` and of its outputs."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = run()
    for tensor in (*known, *outputs):
        held.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(held.values())


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that ``run`` had allocated at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def shown(seconds: list[float]) -> str:
    return f"{1e3 * statistics.median(seconds):8.1f} ms ({1e3 * min(seconds):7.1f})"


def module_row(channels: int, side: int, given: argparse.Namespace) -> None:
    published, ours = LiteralACM(channels), ACM(channels)
    ours.load_state_dict(ours_from_literal(published.state_dict()))
    x, gradient = torch.randn(2, 8, channels, side, side)
    if given.bfloat16:
        x, gradient = x.bfloat16(), gradient.bfloat16()
    if given.channels_last:
        x, gradient = (t.contiguous(memory_format=torch.channels_last) for t in (x, gradient))
    x.requires_grad_()

    def forward(module: nn.Module) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16) if given.bfloat16 else nullcontext():
            return module(x)

    def step(module: nn.Module) -> None:
        for tensor in (x, *module.parameters()):
            tensor.grad = None
        y, d = forward(module)
        torch.autograd.backward((y, 0.1 * d.float().mean().abs()), (gradient.to(y.dtype), None))

    sides = {"published": lambda: step(published), "ours": lambda: step(ours)}
    seconds = timed(sides, given.repeats)
    kept = [kept_bytes(lambda m=m: forward(m), [x, *m.parameters()]) for m in (published, ours)]
    peak = [peak_bytes(run) for run in sides.values()]
    ratio = statistics.median(seconds["published"]) / statistics.median(seconds["ours"])
    least = min(seconds["published"]) / min(seconds["ours"])
    print(
        f"{channels:5}x{side:3}x{side:3}  {shown(seconds['published'])}  {shown(seconds['ours'])}   {ratio:5.2f}x "
        f"({least:4.2f}x)   kept {kept[0] / 1e6:6.1f} {kept[1] / 1e6:5.1f} MB {kept[1] / kept[0]:5.2f}x   "
        f"peak {peak[0] / 1e6:6.1f} {peak[1] / 1e6:6.1f} MB {peak[1] / peak[0]:5.2f}x",
        flush=True,
    )


def network(kind: str, side: int) -> nn.ModuleDict:
    acm = ACMConfig() if kind != "plain" else None
    torch.manual_seed(0)
    tower = Config(channels=3, image_size=side, acm=acm).build()
    for block in (m for m in tower.modules() if isinstance(m, Bottleneck)):
        nn.init.constant_(block.bn3.weight, 0.2)  # at 0 the modules would see nothing
        if kind == "published":
            block.acm = LiteralBlockModule(block.bn3.num_features)
    return nn.ModuleDict({"tower": tower, "head": nn.Linear(2048, 14)})


def network_row(side: int, batch: int, given: argparse.Namespace) -> None:
    images, labels = torch.rand(batch, 3, side, side), (torch.rand(batch, 14) > 0.5).float()
    if given.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    def stepper(kind: str) -> tuple[Callable[[], None], Callable[[], tuple[Tensor, ...]], nn.Module]:
        model = network(kind, side)
        if given.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

        def forward() -> tuple[Tensor, ...]:
            with torch.autocast("cpu", torch.bfloat16) if given.bfloat16 else nullcontext():
                features, losses = encode(model["tower"], images)
                logits = model["head"](features)
            return (F.binary_cross_entropy_with_logits(logits.float(), labels) + sum(losses.values()),)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            forward()[0].backward()
            optimizer.step()

        return step, forward, model

    made = {kind: stepper(kind) for kind in ("plain", "published", "ours")}
    assert isinstance(made["ours"][2]["tower"], ResNet50)
    seconds = timed({kind: step for kind, (step, _, _) in made.items()}, max(3, given.repeats - 2))
    kept = {kind: kept_bytes(forward, [images, *model.parameters()]) for kind, (_, forward, model) in made.items()}
    plain, least = statistics.median(seconds["plain"]), min(seconds["plain"])
    extra = [kept[kind] - kept["plain"] for kind in ("published", "ours")]
    print(f"ResNet-50 {side} px, batch {batch}: plain {shown(seconds['plain'])}", end="")
    for kind in ("published", "ours"):
        ratio = statistics.median(seconds[kind]) / plain
        print(f", {kind} {shown(seconds[kind])} {ratio:5.3f}x ({min(seconds[kind]) / least:5.3f}x)", end="")
    print(
        f"\n  kept for backward {kept['plain'] / 1e6:.0f} MB, and more by {extra[0] / 1e6:.0f} MB published, "
        f"{extra[1] / 1e6:.0f} MB ours: {extra[1] / extra[0]:.2f}x",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=6)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--bfloat16", action="store_true")
    options.add_argument("--channels-last", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("module, forward and backward    published              ours                  ours is faster by   memory")
    for channels, side in SHAPES[: 4 if given.quick else None]:
        module_row(channels, side, given)
    for side, batch in NETWORKS[: 1 if given.quick else None]:
        network_row(side, batch, given)


if __name__ == "__main__":
    main()
