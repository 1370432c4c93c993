"""A tiny world: a store of films with a bright disc where the finding is, three sources, and a plan that learns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from client.ingest.keys import public_secret
from client.ingest.writer import StoreWriter
from models.studies.schema import label_column

FINDINGS = ("Cardiomegaly", "Edema")


def film(rng: np.random.Generator, labels: dict[str, int], side: int = 32, shift: int = 0) -> np.ndarray:
    """Noise, plus a disc low left for Cardiomegaly and a band on top for Edema."""
    y, x = np.mgrid[:side, :side]
    image = rng.normal(90 + shift, 12, (side, side))
    if labels.get("Cardiomegaly") == 1:
        image[(y - 22) ** 2 + (x - 12) ** 2 < 36] += 70
    if labels.get("Edema") == 1:
        image[4:9] += 60
    return image.clip(0, 255).astype(np.uint8)


def write_store(
    path: Path,
    patients: int = 60,
    sources=("a", "b", "c"),
    seed: int = 0,
    only_negative: str | None = None,
    silent: str | None = None,
):
    """Two films a patient; every source has its own brightness; films of ``silent`` have no label."""
    rng, secret = np.random.default_rng(seed), public_secret("tests")
    with StoreWriter(path, secret=secret, short_side=32) as writer:
        for source_number, source in enumerate(sources):
            for person in range(patients):
                for order in range(2):
                    labels = {f: int(rng.random() < 0.5) for f in FINDINGS}
                    if source == only_negative:
                        labels = dict.fromkeys(FINDINGS, 0)
                    name = f"{source}-{person}-{order}"
                    row = {
                        "image": writer.key("image", name),
                        "patient": writer.key("patient", f"{source}-{person}"),
                        "study": writer.key("study", name),
                        "digest": writer.key("digest", name),
                        "source": source,
                        "order": order,
                        **({} if source == silent else {label_column(f): v for f, v in labels.items()}),
                    }
                    writer.add(row, film(rng, labels, shift=10 * source_number))
        writer.finish()
    return path


def plan_values(**changes) -> dict:
    """A plan of two short rounds on a store; dotted changes, with __ for the dots."""
    values = {
        "name": "tiny",
        "seed": 3,
        "model": {
            "vision": {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 1, "heads": 2, "pool": "mean"}
        },
        "phases": [
            {
                "name": "diagnosis",
                "rounds": 2,
                "objective": {"name": "diagnosis", "findings": list(FINDINGS), "size": 32, "augment": None},
                "local": {"epochs": 2, "batch_size": 16, "lr": 0.003},
            }
        ],
        "federation": {"min_sites": 2, "deadline_seconds": 240, "first_deadline_seconds": 240, "wait_seconds": 2},
        "evaluation": {"replicates": 100, "min_cell": 2},
        "simulation": {"store": True, "fractions": {"train": 0.6, "validation": 0.4, "test": 0.0}},
    }
    from models.config import override

    for dotted, value in changes.items():
        override(values, dotted.replace("__", "."), value)
    return values


def write_plan(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump(plan_values(**changes)))
    return path


def federate(folder: Path, store: Path, client=None, nodes: int = 3, **changes):
    """Run the plan through the real ServerApp code on an in-process grid; returns the run folder.

    The run's failure is raised, after it was written down.
    """
    from client.app import carry
    from server.app import FlowerCourier, execute
    from server.folder import RunFolder
    from strategies.launch import launch
    from tests.inprocess import InProcessGrid

    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "config": str(write_plan(folder / "plan.yaml", **changes)),
        "data": str(store),
        "out": str(folder / "out"),
    }
    launched = launch(values)
    grid = InProcessGrid(client or carry, nodes, values)
    run = RunFolder.create(folder / "out" / "run", launched.plan)
    execute(launched, FlowerCourier(grid), run)
    return run
