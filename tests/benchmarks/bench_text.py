"""Encoding reports: texts a second against the literal wrapper, with the same vectors.

    python -m tests.benchmarks.bench_text                  findings and impressions of the real reports beside the checkout
    python -m tests.benchmarks.bench_text --texts 512      fewer
    python -m tests.benchmarks.bench_text --device cuda

Reads the real reports beside the checkout, or makes some by the phantom hospitals. The literal wrapper
(tests/reference/text.py) puts the texts it is given into one padded batch as they come and pools text by text; it is
called on chunks of 32 and of 128 texts and on all at once. Ours gets all texts in one call. Same
weights, same tokenizer, one thread; processor seconds, the least of the repetitions, which alternate. "distinct" is
half as many, without texts that repeat, which ours computes once. The last column is the largest difference of any
number of any vector.
The wrapper counts a text's tokens by tokenizing it again by itself; texts for which that count is off (a first character
that the blank before it does not join) have another vector there, and are left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from models.config import build  # noqa: E402
from models.text.config import TextConfig  # noqa: E402
from tests.reference.text import LiteralWrapper  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "dev" / "reports" / "openi_reports.csv"
INSTRUCTION = "Retrieve semantically similar sentences"
MODELS = {
    "Llama 2 x 64, mean": {"scratch": {"width": 64, "depth": 2}},
    "Llama 2 x 64, latent": {"scratch": {"width": 64, "depth": 2}, "pooling": "latent"},
    "Llama 4 x 256, mean": {"scratch": {"width": 256, "depth": 4}},
}


def reports(most: int) -> tuple[list[str], str]:
    """Texts in the order of the file, and where they come from."""
    if REAL.exists():
        with REAL.open(newline="", encoding="utf-8") as file:
            found = [f"{row['findings']} {row['impression']}".strip() for row in csv.DictReader(file)]
        source = "real reports (Open-i)"
    else:
        found, source = phantom_reports(), "phantom reports"
    return [text for text in found if text][:most], source


def countable(texts: list[str]) -> list[str]:
    """Those of ``texts`` for which the wrapper's count of tokens is right."""
    tokens = build(TextConfig, {"scratch": {}}).build().tokens
    rows = tokens.rows(texts, INSTRUCTION)
    alone = tokens.tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
    return [text for text, row, ids in zip(texts, rows, alone) if row.stop - row.start == len(ids)]


def phantom_reports() -> list[str]:
    from client.ingest.phantom.hospital import write_hospital
    from client.ingest.phantom.style import style

    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("north", "south", "east"):
            out = Path(folder) / name
            out.mkdir()
            write_hospital(out, style(name), 120, seed=0, size=64)
            for path in [*out.glob("reports/*.txt")]:
                found.append(path.read_text(encoding="utf-8", errors="replace"))
            for path in out.glob("reports.csv"):
                with path.open(newline="", encoding="utf-8", errors="replace") as file:
                    found += [max(row.values(), key=lambda value: len(value or "")) for row in csv.DictReader(file)]
    return found


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(works: dict[str, Callable[[], torch.Tensor]], device: torch.device, repeats: int) -> dict[str, float]:
    """Least time of each; they alternate, so that a busy machine is unfair to none."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            begun = clock(device)
            work()
            best[name] = min(best[name], clock(device) - begun)
    return best


def chunked(wrapper: LiteralWrapper, texts: list[str], size: int) -> torch.Tensor:
    parts = [wrapper.encode(texts[at : at + size], INSTRUCTION) for at in range(0, len(texts), size)]
    return torch.cat(parts).float().cpu()


def measure(name: str, values: dict, texts: list[str], device: torch.device, repeats: int) -> None:
    torch.manual_seed(0)
    tower = build(TextConfig, {"max_tokens": 512, **values}).build().eval().to(device)
    wrapper = LiteralWrapper(tower.trunk, tower.pool, tower.tokens.tokenizer, 512)

    def ours(precision: str = "float32") -> torch.Tensor:
        tower.tokens.forget()
        return tower.encode(texts, INSTRUCTION, precision=precision)

    works: dict[str, Callable[[], torch.Tensor]] = {"ours": ours, "ours, bfloat16": lambda: ours("bfloat16")}
    for size in sorted({min(size, len(texts)) for size in (32, 128, len(texts))}):
        works[f"literal, batches of {size}"] = lambda size=size: chunked(wrapper, texts, size)
    took = seconds(works, device, repeats)
    exact = ours()
    for work, spent in took.items():
        gap = float((works[work]() - exact).abs().max())
        ratio = spent / took["ours"]
        print(
            f"  {name:24} {work:26} {len(texts) / spent:9.0f} texts/s   ours is {ratio:5.2f} x   differs by {gap:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", help="only models whose name holds this")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    found, source = reports(args.texts)
    texts = countable(found)
    print(f"{len(found) - len(texts)} of {len(found)} texts left out, whose tokens the wrapper miscounts")
    for what, given in (("all", texts), ("distinct", list(dict.fromkeys(texts))[: len(texts) // 2])):
        words = sorted(len(text.split()) for text in given)
        print(f"{what}: {len(given)} {source}, {words[len(words) // 2]} words in the middle, {words[-1]} at most")
        for name, values in MODELS.items():
            if not args.model or args.model in name:
                measure(name, values, given, device, args.repeats)


if __name__ == "__main__":
    main()
