"""The machine: disk, memory, device, decoders, and whether its kernel lets the reading process lock itself in."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from client.preflight.outcome import Check, error, ok, size, warning
from client.preflight.places import nearest_folder

if TYPE_CHECKING:
    from client.ingest.reading import ReadConfig
    from client.policy import Policy

MIB, GIB = 1 << 20, 1 << 30
RESERVE = GIB
"""Least free space of any disk that is written to."""
SUPPOSED_IMAGES = 10_000
"""What the disk is held against when nobody says how many files there are."""
ASPECT = 1.25
"""Longer over shorter side of a usual radiograph."""
RESIZED = 1.3
"""Store and the resized copies that training makes of it, over the store alone."""
USUAL_CHILD = 384 * MIB
"""Resident memory of a reading process; 271 MiB were measured with a radiograph of 20 megapixels in hand."""
MAIN_PROCESS = GIB

DECODERS = {
    "pydicom": "pydicom",
    "gdcm": "python-gdcm",
    "jpeg_ls": "pyjpegls",
    "openjpeg": "pylibjpeg-openjpeg",
    "rle": "pylibjpeg-rle",
}
"""Module: the package that brings it."""


def check_decoders() -> Iterator[Check]:
    """Every decoder can be loaded and serves the transfer syntaxes that it is there for."""
    versions, broken = [], False
    for module, package in DECODERS.items():
        try:
            importlib.import_module(module)
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except Exception as failure:  # a library may fail to load in many ways
            broken = True
            yield error("decoders", f"{package}: cannot be loaded ({type(failure).__name__}); pip install {package}")
    if broken:
        return
    from client.ingest.codecs import PREFERENCE, decoder_for

    lacking = [str(syntax) for syntax in PREFERENCE if not decoder_for(syntax).is_available]
    if lacking:
        yield error("decoders", f"no decoder for the transfer syntaxes {', '.join(lacking)}; install fedcxr again")
    yield ok("decoders", ", ".join(versions))


def check_disk(
    store: Path, state: Path, reading: ReadConfig, policy: Policy, dicom: Path | None = None
) -> Iterator[Check]:
    """There is room for the images to come, and for the models that the site keeps between rounds."""
    images, known = SUPPOSED_IMAGES, False
    if dicom is not None:
        from client.ingest.walk import files_below

        if not dicom.is_dir():
            yield error("disk", "--dicom: no such folder; give the folder of a PACS export")
        else:
            images, known = sum(1 for _ in files_below(dicom)), True
    each = reading.decode.framing.short_side**2 * ASPECT * RESIZED
    needs = {
        store: (
            images * each,
            f"{images} {'files' if known else 'images (a guess, --dicom counts)'} take about {size(images * each)}",
        ),
        state: (2 * policy.max_reply_mb * MIB, f"the models kept take up to {size(2 * policy.max_reply_mb * MIB)}"),
    }
    disks: dict[int, list[Path]] = {}
    for place in needs:
        disks.setdefault(nearest_folder(place).stat().st_dev, []).append(place)
    for places in disks.values():
        folder = nearest_folder(places[0])
        free, needed = shutil.disk_usage(folder).free, sum(needs[place][0] for place in places)
        text = f"{size(free)} free for {' and '.join('store' if p is store else 'state' for p in places)}; "
        text += "; ".join(needs[place][1] for place in places)
        if free < RESERVE:
            yield error("disk", f"{text}; below {size(RESERVE)} nothing should be started: free space")
        elif free < needed + RESERVE:
            short = f"{text}; {size(needed + RESERVE - free)} too little"
            yield (error if known and store in places and not store.exists() else warning)(
                "disk", f"{short}: free space"
            )
        else:
            yield ok("disk", text)


def check_memory(workers: int, reading: ReadConfig) -> Iterator[Check]:
    """The reading processes fit into the memory that is left, as they usually are and at their cap."""
    cores = os.cpu_count() or 1
    count = workers or cores
    free = available_memory()
    cap = reading.limits.memory_bytes
    usual, most = MAIN_PROCESS + count * min(USUAL_CHILD, cap), MAIN_PROCESS + count * cap
    text = f"{size(free)} free; {count} reading processes take about {size(usual)}, at their cap {size(most)}"
    if free < usual:
        fewer = max(0, int((free - MAIN_PROCESS) // USUAL_CHILD))
        advice = f"set workers: {fewer}" if fewer else "free memory, or use a larger machine"
        yield error("memory", f"{text}; {advice}")
    elif free < most:
        yield warning(
            "memory", f"{text}; a broken file could make the machine short: set workers or reading.limits lower"
        )
    else:
        yield ok("memory", text)
    if count > cores:
        yield warning(
            "memory", f"workers: {count}, but this machine has {cores} cores; more than that make nothing faster"
        )


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that may still be used: the machine's, or what the container's limit leaves, whichever is less."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return free
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if own is None:
        return free
    folder = cgroups / own
    while True:
        free = min(free, _left(folder, free))
        if folder == cgroups or cgroups not in folder.parents:
            return free
        folder = folder.parent


def _left(cgroup: Path, otherwise: int) -> int:
    """What a control group's limit leaves; its file cache counts as free, for the kernel gives it up."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max", or no such control
        return otherwise
    return max(0, limit - used + int(fields.get("inactive_file", 0)))


def check_device(device: str) -> Iterator[Check]:
    """The device that is asked for is there."""
    import torch

    if torch.cuda.is_available():
        found = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        idle = "; device: cpu leaves it idle" if device == "cpu" else ""
        yield ok("device", f"{device}: {found}{idle}")
    elif device == "cuda":
        built = (
            f"built for CUDA {torch.version.cuda}; check the driver (nvidia-smi)"
            if torch.version.cuda
            else ("built without CUDA; install the CUDA build")
        )
        yield error("device", f"cuda: torch {torch.__version__} sees no GPU, {built}, or set device: cpu")
    else:
        yield ok("device", f"{device}: the CPU, {os.cpu_count()} cores, torch {torch.__version__}")


def check_sandbox(reading: ReadConfig) -> Iterator[Check]:
    """A reading process starts, refuses what is no image, and is cut off from the network."""
    from client.ingest.codes import Reason
    from client.ingest.reading import Refused
    from client.ingest.sandbox import Sandbox, SandboxError

    try:
        with Sandbox(reading) as sandbox:
            answer, cut = sandbox.read(bytes(1024)), sandbox.network_cut
    except SandboxError as failure:
        yield error("sandbox", str(failure))
        return
    if not isinstance(answer, Refused) or answer.reason is not Reason.NOT_DICOM:
        told = answer.reason.value if isinstance(answer, Refused) else "an image"
        yield error(
            "sandbox", f"a reading process called 1024 zeros {told}; check limits.memory_bytes, install fedcxr again"
        )
    elif cut:
        yield ok("sandbox", "a reading process starts, with its limits and without a network")
    else:
        yield warning(
            "sandbox",
            "a reading process starts with its limits, but keeps the network: the kernel forbids it a network of its own. "
            "Allow unprivileged user namespaces, or run the ingest where there is no network",
        )
