"""Runs of a study: one that is complete is not repeated, so that a study can be done in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from server.simulate import simulate


def complete(
    name: str, values: Mapping[str, Any], out: Path, data: str, workers: int = 1, resume: bool = False
) -> tuple[Path, Path]:
    """Folder and plan of the complete run ``name`` of the plan ``values``, made in ``out`` if it is not there.

    resume: a run of the plan's name that was stopped goes on from its last checkpoint.
    """
    plan, mark = out / f"{name}.yaml", out / f"{name}.json"
    if mark.exists():
        return out / json.loads(mark.read_text())["folder"], plan
    out.mkdir(parents=True, exist_ok=True)
    plan.write_text(yaml.safe_dump(dict(values)))
    begun = sorted(out.glob(f"*-{values['name']}/checkpoints")) if resume else []
    done = simulate(
        {"config": str(plan), "data": data, "out": str(out)},
        workers=workers,
        resume=begun[-1].parent.name if begun else "",
    )
    if not done.ok:
        raise SystemExit(f"{name}: {done.results.get('error')}; see {done.folder}")
    marks, sent = len(done.results["marks"]), done.results["bytes_per_round"] / 1e6
    print(f"{name}: {done.seconds:.0f} s, {sent:.2f} MB a round, {marks} marks", flush=True)
    mark.write_text(json.dumps({"folder": done.folder.name, "seconds": done.seconds}))
    return done.folder, plan
