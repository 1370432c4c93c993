"""Phantom patients straight into a study store, rendered by worker processes.

For the way through DICOM and reports see hospital.py.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from client.ingest.importer import Summary
from client.ingest.phantom.patients import patient
from client.ingest.phantom.style import Style
from client.ingest.pool import Pool
from client.ingest.writer import StoreWriter
from models.config import build, config_hash, to_plain
from models.studies.schema import age_band, label_column

PREPROCESSING: dict[str, Any] = {"generator": "phantom", "version": 1}
"""Goes into the store, which refuses to mix two ways of making pixels. A change of the drawing raises the
version.
"""

_SECONDS = 120.0  # for one patient, on a slow and busy machine
_MEMORY = 4 << 30

Progress = Callable[[int, int], None]


def write_store(
    path: Path,
    style: Style,
    patients: int,
    seed: int,
    short_side: int,
    secret: bytes,
    workers: int | None = None,
    progress: Progress | None = None,
    *,
    wait_seconds: float = 0.0,
) -> Summary:
    """Write patients 0 .. ``patients - 1`` of a phantom site into the store at ``path``; again to go on after
    a kill.

    The store's ``source`` is the style's name, so that several sites can share one store. The same arguments
    give the same store, byte for byte, however many workers there are.

    Args:
        short_side: of the stored images in pixels.
        secret: what the keys are made with; ``client.ingest.keys.public_secret`` gives the same keys
            everywhere.
        workers: rendering processes; default: one a core.
        progress: called with (patients done, patients in all).
        wait_seconds: how long to wait for another writer of the same store.

    Raises:
        ValueError: a short side below 32 pixels, or no patient.
        StoreWriteError: the store is held by another writer, not writable, or holds images made in another
            way.
        RuntimeError: a worker died or hung; run again to go on.
    """
    if short_side < 32 or patients < 1:
        raise ValueError(f"short_side {short_side} and patients {patients}: at least 32 pixels and one patient")
    begun, summary = time.monotonic(), Summary()
    site = config_hash(style)
    with StoreWriter(
        path, short_side=short_side, preprocessing=PREPROCESSING, secret=secret, wait_seconds=wait_seconds
    ) as writer:

        def key(kind: str, *parts: object) -> str:
            return writer.key(kind, "phantom", site, str(seed), *map(str, parts))

        def begun_before(number: int) -> bool:
            return writer.digest_of(key("image", number, 0, 0)) is not None

        # Patients are committed in order: one whose successor is there is there as a whole.
        todo = [n for n in range(patients) if not begun_before(n + 1)]
        tasks = [{"style": to_plain(style), "number": n, "seed": seed, "size": short_side} for n in todo]
        count = max(1, min(workers or os.cpu_count() or 1, len(tasks)))
        with Pool("client.ingest.phantom.site:serve", count, _SECONDS, _MEMORY) as pool:
            for done, (number, (answer, data)) in enumerate(zip(todo, pool.map(tasks)), start=1):
                if "code" in answer:
                    raise RuntimeError(
                        f"patient {number} of phantom site {style.name!r} was not rendered "
                        f"({answer['code']}); what came before is in the store: run again to go on"
                    )
                for film, pixels in _films(answer, data):
                    place = (number, film["study"], film["image"])
                    image = key("image", *place)
                    if writer.digest_of(image) is not None:
                        summary.duplicate += 1
                        continue
                    row = {
                        "image": image,
                        "patient": key("patient", number),
                        "study": key("study", number, film["study"]),
                        "digest": writer.key("file", hashlib.sha256(pixels).hexdigest(), image),
                        "source": style.name,
                        **film["row"],
                    }
                    writer.add(row, pixels)
                    summary.accepted += 1
                if progress:
                    progress(patients - len(todo) + done, patients)
        writer.finish()
    summary.seconds = time.monotonic() - begun
    return summary


def serve(task: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Render one patient in a worker of the pool.

    ``task``: style (plain values), number, seed, size. The answer holds ``films`` (study, image, shape, row);
    the films' pixels come beside it, one after the other.
    """
    cv2.setNumThreads(1)  # one worker a core
    films, pixels = [], []
    for film in patient(build(Style, task["style"]), task["number"], task["seed"], task["size"]):
        row = {
            "day": film.day,
            "order": film.study,
            "view": film.view,
            "sex": film.sex,
            "age_band": age_band(film.age),
            **{label_column(finding): code for finding, code in film.labels.items()},
        }
        films.append({"study": film.study, "image": film.image, "shape": film.pixels.shape, "row": row})
        pixels.append(film.pixels.reshape(-1))
    return {"films": films}, np.concatenate(pixels)


def _films(answer: dict[str, Any], data: memoryview) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """(film, uint8 [H, W]) of one patient's answer."""
    flat, at = np.frombuffer(data, np.uint8), 0
    for film in answer["films"]:
        height, width = film["shape"]
        yield film, flat[at : at + height * width].reshape(height, width)
        at += height * width
