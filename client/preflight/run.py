"""Reads the site's YAML and runs every check that its usable keys allow: one mistake never hides another."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic

from client.preflight.machine import check_decoders, check_device, check_disk, check_memory, check_sandbox
from client.preflight.outcome import Check, error, ok, warning
from client.preflight.places import check_index, check_reports, check_secret, check_socket, check_state, check_store
from client.preflight.server import check_server
from models.config import ConfigError, build, read_yaml

Found = Iterator[Check]
Parts = dict[str, Any]

_CHECKS: tuple[tuple[str, tuple[str, ...], Callable[..., Found]], ...] = (
    ("store", ("store",), check_store),
    ("secret", ("secret", "store"), check_secret),
    ("index", ("secret", "store"), check_index),
    ("state", ("state",), check_state),
    ("socket", ("socket",), check_socket),
    ("disk", ("store", "state", "reading", "policy", "dicom folder"), check_disk),
    ("memory", ("workers", "reading"), check_memory),
    ("device", ("device",), check_device),
    ("sandbox", ("reading",), check_sandbox),
    ("reports", ("reports file", "reports"), check_reports),
    ("server", ("server",), check_server),
)
"""(name, keys of the YAML or arguments of :func:`preflight` that it needs, the check)"""

_COMPARED = ("name", "store", "secret", "workers")


def preflight(path: Path, dicom: Path | None = None, reports: Path | None = None) -> Found:
    """Check the site that ``path`` describes.

    Args:
        dicom: a folder that is to be ingested: then the disk is held against the number of its files.
        reports: the reports that are to be ingested with it: then their columns and encoding are checked.

    Raises:
        ConfigError: the YAML cannot be read at all.
    """
    read_yaml(path)  # before anything is said
    yield from check_decoders()
    try:
        from client.site_config import SiteConfig, contradictions, site_values
    except ImportError as missing:  # said above; without the decoders the configuration cannot be loaded either
        yield error("config", f"{path.name}: not read, because {missing.name or 'a library'} cannot be imported")
        return
    values = site_values(path)
    parts = _usable(SiteConfig, values)
    wrong = _mistakes(SiteConfig, values, path.name)
    if wrong:  # the class compares its keys only if each is right by itself
        compared = contradictions(**{key: parts.get(key) for key in _COMPARED})
        wrong += [line for line in (f"{path.name}: {text}" for text in compared) if line not in wrong]
    yield from (error("config", line) for line in wrong)
    if not wrong:
        yield ok("config", f"{path.name}: every key is known and its value allowed; this site is {parts['name']!r}")
    parts |= {"dicom folder": dicom, "reports file": reports}
    for name, keys, check in _CHECKS:
        arguments = [parts[key] for key in keys if key in parts]
        if len(arguments) < len(keys):
            lacking = " and ".join(key for key in keys if key not in parts)
            yield warning(name, f"not checked, for want of a usable {lacking} (see config)")
        else:
            yield from _guarded(name, check, *arguments)


def _mistakes(cls: type, values: dict[str, Any], name: str) -> list[str]:
    try:
        build(cls, values, where=name)
    except ConfigError as found:
        return str(found).splitlines()
    return []


def _usable(cls: type, values: dict[str, Any]) -> Parts:
    """The keys whose own value is right, and the defaults of those that are not there."""
    hints, parts = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        if field.name not in values:
            if field.default is not dataclasses.MISSING:
                parts[field.name] = field.default
            continue
        try:
            parts[field.name] = pydantic.TypeAdapter(hints[field.name]).validate_python(values[field.name])
        except pydantic.ValidationError:
            continue
    return parts


def _guarded(name: str, check: Callable[..., Found], *arguments: Any) -> Found:
    """A check that breaks is one more thing that is wrong, and no reason to keep quiet about the rest."""
    try:
        yield from check(*arguments)
    except OSError as failure:  # without its file name, which may be an accession number
        yield error(name, f"cannot be checked ({failure.strerror or type(failure).__name__})")
    except Exception as failure:
        yield error(name, f"the check itself failed ({type(failure).__name__}); please report it")
