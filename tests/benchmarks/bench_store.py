"""Reading a store and importing into one, against Pillow on the same images.

    python tests/benchmarks/bench_store.py [--images N] [--workers W]

Reads the real images beside the checkout, or makes some. Figures are printed, never asserted.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from client.ingest.importer import Limits, import_folder  # noqa: E402
from client.ingest.layouts import Layout, load_layout  # noqa: E402
from client.ingest.raster import serve  # noqa: E402
from models.studies.store import Store  # noqa: E402
from models.studies.views import Images  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "dev" / "kermany224"
SECRET = bytes(32)
SIZE = 224


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """Least processor time of ``function`` in this process."""
    best = float("inf")
    for _ in range(repeats):
        begun = time.process_time()
        function()
        best = min(best, time.process_time() - begun)
    return best


def blobs(count: int, folder: Path, side: int) -> None:
    """Smooth fields with fine noise: they compress about as radiographs do."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.random((12, 12)).astype(np.float32)
        field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        noisy = field * 200 + generator.normal(20, 4, (side, side))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")


def manifest(folder: Path, files: list[Path]) -> None:
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient"])
        writer.writerows([path.relative_to(folder), i // 2] for i, path in enumerate(files))


def pillow(files: list[Path], side: int) -> None:
    """The measure of the import: decode, and resize where the image is larger, with Pillow alone."""
    for path in files:
        image = Image.open(path).convert("L")
        if min(image.size) > side:
            scale = side / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.BOX)
        np.asarray(image)


def total_cpu() -> float:
    """Processor seconds of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def reading(store: Path) -> None:
    view = Images(Store.open(store), size=SIZE)
    count = len(view)
    order = np.random.default_rng(0).permutation(count)
    chunks = [order[i : i + 64] for i in range(0, count, 64)]
    for chunk in chunks:
        view.batch(chunk)  # warm: the first pass reads the disk, as a first epoch does
    ours = count / seconds(lambda: [view.batch(chunk) for chunk in chunks])
    with tempfile.TemporaryDirectory() as name:
        files = []
        for i in range(min(count, 500)):
            files.append(Path(name) / f"{i}.png")
            Image.fromarray(view.batch([i]).images[0, 0].numpy()).save(files[-1])
        theirs = len(files) / seconds(lambda: [np.asarray(Image.open(path)) for path in files])
    print(f"reading   view at {SIZE} px, one process     {ours:10,.0f} images/s")
    print(f"          Pillow PNG decode, the same        {theirs:10,.0f} images/s")
    print(f"          ratio (aim >= 20)                  {ours / theirs:10.1f}")


def importing(folder: Path, layout: Layout, files: list[Path], side: int, workers: int, what: str) -> Path:
    baseline = len(files) / seconds(lambda: pillow(files, side))
    out = Path(tempfile.mkdtemp()) / "store"
    limits = Limits()
    task = {"hash_only": False, "short_side": side, "min_side": limits.min_side}
    task |= {"max_pixels": limits.max_pixels, "max_bytes": limits.max_bytes}
    inside = len(files) / seconds(lambda: [serve({**task, "path": str(path)}) for path in files])
    cpu, wall = total_cpu(), time.monotonic()
    summary = import_folder(folder, layout, out, SECRET, workers, short_side=side)
    cpu, wall = total_cpu() - cpu, time.monotonic() - wall
    assert summary.accepted == len(files), summary
    ours = len(files) / cpu
    print(f"import    {what}")
    print(f"          whole import, {workers} workers          {len(files) / wall:10,.0f} images/s of wall time")
    print(f"          per core (processor time)          {ours:10,.0f} images/s")
    print(f"          worker's part alone                {inside:10,.0f} images/s")
    print(f"          Pillow decode + resize alone       {baseline:10,.0f} images/s")
    print(f"          ratio (aim >= 0.8)                 {ours / baseline:10.2f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400, help="generated images of 1024 px (and of 224 px, if any)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        large = Path(name) / "large"
        large.mkdir()
        blobs(options.images, large, 1024)
        manifest(large, sorted(large.glob("*.png")))
        files = sorted(large.glob("*.png"))
        importing(large, load_layout("image-folder"), files, 512, options.workers, "generated PNG, 1024 to 512 px")
        if REAL.is_dir():
            files = sorted((REAL / "images").iterdir())
            store = importing(REAL, load_layout("kermany"), files, 512, options.workers, "real JPEG, 224 px")
        else:
            small = Path(name) / "small"
            small.mkdir()
            blobs(10 * options.images, small, SIZE)
            files = sorted(small.glob("*.png"))
            manifest(small, files)
            layout = load_layout("image-folder")
            store = importing(small, layout, files, 512, options.workers, "generated PNG, 224 px")
        reading(store)


if __name__ == "__main__":
    main()
