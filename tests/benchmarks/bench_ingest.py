"""The whole ingest, files to store, against ``pydicom.dcmread(f).pixel_array`` on the same files.

    python -m tests.benchmarks.bench_ingest [--files 6] [--rows 2500 --columns 2048] [--workers 2]

Everything counts: children, parent, keyed hashes, private index, shards, the table at the end. Processor time says what
an image costs on any machine; images per second say the same where nothing else runs. The second part ingests more and
more small studies and prints the memory of all processes together at its peak: it should not grow with their number.
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

import psutil

from tests.benchmarks.bench_dicom import SYNTAXES, plain, write_files
from tests.client.ingest.dicom.maker import chest, dataset, write

WARM = len(SYNTAXES)
"""Files that are not counted: one of every syntax, so that the others are the same mix."""

_INGEST = """
import json, os, sys, time
from pathlib import Path
import psutil
from client.ingest.intake import Intake, Settings
dicom, store, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
own = psutil.Process()
began, WARM = None, int(sys.argv[4])
def used():
    return sum(sum(p.cpu_times()[:2]) for p in [own, *own.children(recursive=True)])
def tell(what, done, total):
    global began
    if done == WARM:  # all children run, their decoders are loaded
        began = (used(), time.perf_counter())
settings = Settings(source="bench", workers=workers)
with Intake(dicom, store, store.with_name("private"), settings, bytes(32)) as intake:
    summary = intake.run(tell)
    print(json.dumps([summary.accepted, used() - began[0], time.perf_counter() - began[1]]))
"""


def ingest(dicom: Path, workers: int) -> tuple[int, float, float, int]:
    """(images behind the first ones, processor seconds, wall seconds, peak memory in bytes of all its processes)."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _INGEST, dicom, Path(folder) / "store", str(workers), str(WARM)],
            stdout=subprocess.PIPE,
            text=True,
        )
        peak = 0
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            parent = psutil.Process(process.pid)
            while not done.wait(0.05):
                try:
                    family = [parent, *parent.children(recursive=True)]
                    peak = max(peak, sum(p.memory_full_info().uss for p in family))
                except psutil.Error:
                    continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        out = process.communicate()[0]
        done.set()
        watcher.join()
    accepted, cpu, wall = json.loads(out)
    if accepted != len(list(dicom.iterdir())):
        raise SystemExit(f"{accepted} images taken in; a figure without the others would be wrong")
    return accepted - WARM, cpu, wall, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=6, help="files per syntax")
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--studies", type=int, nargs="*", default=[100, 400, 1600])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_files(folder, list(SYNTAXES), arguments.files, arguments.rows, arguments.columns)
        files = [file for group in made.values() for file in group]
        limit_cpu, limit_wall = plain(files, 1)
        print(f"plain decoding: {1000 * limit_cpu / len(files):.0f} ms of processor time an image")
        rates = {}
        for workers in sorted({1, arguments.workers}):
            images, cpu, wall, peak = ingest(folder, workers)
            rates[workers] = images / wall
            share, share_wall = (
                limit / len(files) * images / used for limit, used in ((limit_cpu, cpu), (limit_wall, wall))
            )
            print(
                f"ingest with {workers} children: {1000 * cpu / images:.0f} ms an image, {share:.2f} of the limit "
                f"(wall {share_wall:.2f}), {rates[workers]:.1f} images/s, peak {peak >> 20} MiB"
            )
        print(f"{arguments.workers} children against one: {rates[arguments.workers] / rates[1]:.2f} times the images/s")
    growing(arguments.studies)


def growing(counts: list[int]) -> None:
    """Peak memory against the number of studies."""
    with tempfile.TemporaryDirectory() as name:
        folder, written = Path(name), 0
        for count in counts:
            while written < count:
                pixels = chest(160, 150)
                pixels[written % 100 + 20, 20 + written // 100 :] //= 2  # every picture is another
                uids = {
                    "SOPInstanceUID": f"1.1.{written}",
                    "StudyInstanceUID": f"1.2.{written}",
                    "PatientID": f"P{written}",
                }
                (folder / f"{written:06d}.dcm").write_bytes(write(dataset(pixels, 12, **uids)))
                written += 1
            began = time.perf_counter()
            images, _, _, peak = ingest(folder, 1)
            print(f"{images + WARM:6d} studies: peak {peak / 2**20:.1f} MiB ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
