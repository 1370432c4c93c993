"""Images per second of the whole DICOM reading path against ``pydicom.dcmread(f).pixel_array`` on the same
files.

    python -m tests.benchmarks.bench_dicom [--files 12] [--rows 2500 --columns 2048] [--repeat 3] [--workers
    2]

The files are written here: a chest drawing with film grain, 12 bits, in every syntax that has an encoder.
The yardstick is what a script without limits, windows, checks or resizing would do, in a process of its
own. Both are given as processor time, which a busy machine does not falsify, and as wall time. The aim is
0.7 of the yardstick over all syntaxes. In parallel the children share nothing but the parent, so that the
processor time of an image should stay what it is; images per second say the same on an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from pydicom import uid

from client.ingest.reading import ReadConfig, Reading
from client.ingest.sandbox import Sandbox
from models.config import build
from tests.client.ingest.dicom.maker import chest, dataset, write

SYNTAXES = {
    "explicit LE": uid.ExplicitVRLittleEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "RLE": uid.RLELossless,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG 2000": uid.JPEG2000Lossless,
    "JPEG baseline": uid.JPEGBaseline8Bit,
}

_PLAIN = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import pydicom
files, repeat = sys.argv[2:], int(sys.argv[1])
pydicom.dcmread(files[0]).pixel_array
cpu, wall = time.process_time(), time.perf_counter()
for _ in range(repeat):
    for file in files:
        pydicom.dcmread(file).pixel_array
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]))
"""


def plain(files: list[Path], repeat: int) -> tuple[float, float]:
    """(processor, wall) seconds of the yardstick."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN, str(repeat), *map(str, files)],
        capture_output=True,
        check=True,
        env=environment,
    )
    cpu, wall = json.loads(done.stdout)
    return cpu, wall


def ours(files: list[Path], repeat: int, sandbox: Sandbox) -> tuple[float, float]:
    """(processor of child and parent, wall) seconds of the reading path."""
    _accepted(sandbox, files[0])
    child = psutil.Process(sandbox.pid)
    cpu, wall = sum(child.cpu_times()[:2]) + time.thread_time(), time.perf_counter()
    for _ in range(repeat):
        for file in files:
            _accepted(sandbox, file)
    return sum(child.cpu_times()[:2]) + time.thread_time() - cpu, time.perf_counter() - wall


def _accepted(sandbox: Sandbox, file: Path) -> None:
    result = sandbox.read(file)
    if not isinstance(result, Reading):
        raise SystemExit(f"{file.stem}: {result.reason} {result.note}; a figure without this file would be wrong")


def write_files(folder: Path, names: list[str], count: int, rows: int, columns: int) -> dict[str, list[Path]]:
    """``count`` different files of every named syntax."""
    drawing = chest(rows, columns).astype(np.int32)
    made: dict[str, list[Path]] = {}
    for name in names:
        syntax = SYNTAXES[name]
        made[name] = []
        for number in range(count):
            one = sum(map(len, made.values()))  # every file has grain, and is a study, of its own
            grain = np.random.default_rng(one).normal(scale=12, size=drawing.shape)
            bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
            pixels = np.clip(drawing + grain, 0, 4095).astype(np.uint16) >> (12 - bits)
            # A radiograph has some hundred elements; these make the headers as long as real ones.
            window = {"WindowCenter": 2048 >> (12 - bits), "WindowWidth": 4096 >> (12 - bits)}
            ds = dataset(pixels, bits, **window, SOPInstanceUID=f"1.2.3.{one}", StudyInstanceUID=f"1.2.4.{one}")
            for element in range(100):
                ds.add_new((0x0019, 0x1000 + element), "LO", f"private value {element}")
            ds.private_block(0x0019, "BENCH", create=True)
            file = folder / f"{number:03d}_{name.replace(' ', '_')}.dcm"
            file.write_bytes(write(ds, syntax))
            made[name].append(file)
    return made


def parallel(files: list[Path], workers: int, config: ReadConfig) -> tuple[float, float, float]:
    """(images per second, processor seconds per image in all, of these in the parent) of ``workers``
    together.
    """
    sandboxes = [Sandbox(config) for _ in range(workers)]
    for sandbox in sandboxes:
        _accepted(sandbox, files[0])
    children = [psutil.Process(sandbox.pid) for sandbox in sandboxes]

    def work(sandbox: Sandbox) -> None:
        for file in files:
            _accepted(sandbox, file)

    threads = [threading.Thread(target=work, args=(sandbox,)) for sandbox in sandboxes]
    used, own = sum(sum(c.cpu_times()[:2]) for c in children), time.process_time()
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    own = time.process_time() - own
    used = sum(sum(c.cpu_times()[:2]) for c in children) - used
    for sandbox in sandboxes:
        sandbox.close()
    images = workers * len(files)
    return images / seconds, (used + own) / images, own / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3, help="files per syntax")
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--syntax", nargs="*", default=list(SYNTAXES), choices=list(SYNTAXES))
    parser.add_argument("--no-digest", action="store_true", help="do not hash the files")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        made = write_files(Path(name), arguments.syntax, arguments.files, arguments.rows, arguments.columns)
        report(made, arguments.repeat, arguments.workers, build(ReadConfig, {"digest": not arguments.no_digest}))


def report(made: dict[str, list[Path]], repeat: int, workers: int, config: ReadConfig) -> None:
    print(f"{'syntax':14s} {'plain/s':>8s} {'ours/s':>8s} {'ratio':>6s} {'(wall)':>7s}   per processor second")
    total = np.zeros(4)
    with Sandbox(config) as sandbox:
        for name, files in made.items():
            times = np.array([*plain(files, repeat), *ours(files, repeat, sandbox)])
            total += times
            count = repeat * len(files)
            print(
                f"{name:14s} {count / times[0]:8.1f} {count / times[2]:8.1f} {times[0] / times[2]:6.2f} "
                f"{times[1] / times[3]:7.2f}"
            )
        print(f"{'all':14s} {'':8s} {'':8s} {total[0] / total[2]:6.2f} {total[1] / total[3]:7.2f}")
        before = sandbox.peak_memory()[0]
        for _ in range(4):
            for files in made.values():
                sandbox.read(files[0])
        after = sandbox.peak_memory()[0]
        print(f"resident peak of the child: {before >> 20} MiB, four rounds later {after >> 20} MiB")
    files = [file for group in made.values() for file in group]
    for count in (1, workers):
        rate, each, own = parallel(files, count, config)
        print(
            f"{count} children: {rate:.2f} images/s, {1000 * each:.1f} ms of processor time an image, "
            f"{1000 * own:.1f} ms of it in the parent (load average {psutil.getloadavg()[0]:.1f})"
        )


if __name__ == "__main__":
    main()
