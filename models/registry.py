"""Plug-ins by file name: to add an objective, a tower or a rule, add one file to its folder.

A plug-in module holds a ``Config`` class whose first field is ``name: Literal["<file name>"]`` and whose
``build(...)`` makes the component.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any

from pydantic import BeforeValidator

from models.config import ConfigError, build, unknown_key


def names(package: str) -> list[str]:
    """Plug-ins of ``package``, sorted. Modules that start with an underscore, or that the package lists in ``PARTS``,
    are no plug-ins."""
    folder = importlib.import_module(package)
    found = {m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")}
    return sorted(found - set(getattr(folder, "PARTS", ())))


def configure(package: str, values: Any) -> Any:
    """``{"name": "vit", "width": 128}`` to ``models.vision.vit.Config(width=128)``.

    Raises:
        ConfigError: no or unknown name, or a key the plug-in does not know.
    """
    if not isinstance(values, dict):
        if type(values).__module__.rpartition(".")[0] == package:
            return values  # already built
        raise ConfigError(f"expected keys and values with a 'name', got {values!r}")
    known = names(package)
    name = values.get("name")
    if name is None:
        raise ConfigError(f"name: missing; one of {', '.join(known)}")
    if name not in known:
        text = unknown_key("name", str(name), known).replace("known keys:", "known names:")
        raise ConfigError(text.replace("unknown key", f"unknown name {name!r}"))
    return build(importlib.import_module(f"{package}.{name}").Config, values)


def Plugin(package: str) -> Any:  # a type factory, hence the capital
    """Annotation of a config field that holds a plug-in of ``package``."""
    return Annotated[Any, BeforeValidator(lambda values: configure(package, values))]
