"""Strict configuration: YAML into frozen dataclasses.

A component owns its config class and decorates it with :func:`config`. Loading is strict: an unknown key is an
error that names the nearest known key, a wrong type is an error that names the place, and a class states its own
contradictions in ``check()``, naming both keys.

    @config
    class Diagnosis:
        findings: tuple[str, ...]
        balance: bool = True

    build(Diagnosis, {"findings": ["Edema"], "balanse": False})
    # ConfigError: objective.balanse: unknown key; did you mean 'balance'? known keys: balance, findings
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic
import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used. The text names the key, its value, and what is allowed."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Turn a class into a frozen, keyword-only, validated dataclass; ``check(self)`` runs after construction."""

    def __post_init__(self: Any) -> None:
        check = getattr(self, "check", None)
        if check is not None:
            check()

    if "__post_init__" not in cls.__dict__:
        cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    # NaN passes every "must be positive" and switches a cap off in silence, so it is refused everywhere.
    strict = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False, allow_inf_nan=False)
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=strict)(cls)


def build(cls: type[T], values: dict[str, Any] | None, where: str = "") -> T:
    """Build config class ``cls`` from plain values; ``where`` prefixes the key path in errors.

    Raises:
        ConfigError: with one line for every mistake found, not only the first.
    """
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{where or cls.__name__}: expected keys and values, got {type(values).__name__}")
    try:
        return pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_line(cls, e, where) for e in error.errors())) from None


def _line(cls: type, error: Any, where: str) -> str:
    loc = [str(part) for part in error["loc"]]
    path = ".".join(p for p in [where, *loc] if p)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(path, loc[-1], _known_keys(cls, loc[:-1]))
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: missing; this key is required"
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and (not loc or "\n" in text):  # a plug-in tells all its mistakes
        return "\n".join(f"{path}: {line}" if path else line for line in text.split("\n"))
    shown = error.get("input")
    return f"{path}: {text} (got {shown!r})" if not isinstance(shown, dict) else f"{path}: {text}"


def unknown_key(path: str, key: str, known: list[str]) -> str:
    """One line for a key that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{path}: unknown key; {hint}known keys: {', '.join(sorted(known)) or 'none'}"


def _known_keys(cls: Any, loc: list[str]) -> list[str]:
    """Field names of the dataclass that sits at ``loc`` below ``cls``; containers and unions are looked through."""
    found = _dataclasses_in(cls)
    for part in loc:
        step = []
        for klass in found:
            hints = {f.name: f.type for f in dataclasses.fields(klass)}
            resolved = _type_hints(klass)
            if part in hints:
                step += _dataclasses_in(resolved.get(part, hints[part]))
        found = step or found  # list positions and union tags are not fields
    return sorted({f.name for klass in found for f in dataclasses.fields(klass)})


def _type_hints(klass: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(klass)


def _dataclasses_in(annotation: Any) -> list[type]:
    import typing

    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return [annotation]
    return [k for arg in typing.get_args(annotation) for k in _dataclasses_in(arg)]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping. Duplicate keys are errors: YAML itself would keep the last one in silence."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of an existing YAML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, got {type(values).__name__}")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    pass


def _mapping_without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, list | dict):
            raise yaml.MarkedYAMLError(problem="a key is no plain value", problem_mark=key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def override(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``values['a']['b'] = value`` for ``dotted == 'a.b'`` in place; missing levels are created.

    A number steps into a list: ``phases.0.rounds``.
    """
    *parents, last = dotted.split(".")
    here: Any = values
    for part in parents:
        if isinstance(here, list):
            here = here[_position(here, part, dotted)]
        else:
            here = here.setdefault(part, {})
        if not isinstance(here, dict | list):
            raise ConfigError(f"{dotted}: {part!r} holds a value, not keys; it cannot be stepped into")
    if isinstance(here, list):
        here[_position(here, last, dotted)] = value
    else:
        here[last] = value


def _position(items: list[Any], part: str, dotted: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{dotted}: {part!r} is not a position in a list of {len(items)}")
    return int(part)


def to_plain(value: Any) -> Any:
    """A config object as YAML-ready dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def config_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of a config object: equal configs, equal hash, on every machine."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
