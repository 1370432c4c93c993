"""Build backend: setuptools, plus one file in the wheel, ``fedcxr_quiet.pth``.

Flower sends telemetry and asks for updates unless its environment says no, and Ray reports usage and asks for a cloud's
metadata server. Someone who types plain ``flwr run .`` has not set that environment; a ``.pth`` file in site-packages is
read at the start of every Python of this environment, before any of them is imported. It only sets defaults: whoever
wants telemetry sets FLWR_TELEMETRY_ENABLED=1.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks we do not change)

NAME = "fedcxr_quiet.pth"


def quiet_line() -> str:
    """One line of Python that sets the defaults of ``server/quiet.py``, read from its source."""
    source = Path(__file__).resolve().parents[1] / "server" / "quiet.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "QUIET":
            values = ast.literal_eval(node.value)
            return f"import os; [os.environ.setdefault(k, v) for k, v in {values!r}.items()]\n"
    raise RuntimeError("server/quiet.py: QUIET not found")


def _add(folder: str, wheel: str) -> str:
    path = Path(folder) / wheel
    data = quiet_line().encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            body = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                body += f"{NAME},sha256={digest},{len(data)}\n".encode()
            new.writestr(item, body)
        new.writestr(NAME, data)
    temporary.replace(path)
    return wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _add(wheel_directory, build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _add(wheel_directory, build_meta.build_editable(wheel_directory, config_settings, metadata_directory))
