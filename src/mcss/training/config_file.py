"""Settings from a file: a run's ``config.json``, or a few lines of TOML or YAML."""

import json
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from mcss.errors import reason
from mcss.training.settings import TrainSettings

NO_SETTINGS = (
    "method_name",
    "capture_fingerprint",
    "digest",
    "versions",
    "machine",
    "label_instants",
    "beside_fingerprints",
    "files",
)
"""What a run's ``config.json`` says besides its settings."""

_Settings = TypeVar("_Settings")


def read_config(path: Path, settings: TrainSettings) -> TrainSettings:
    """Return `settings` with those that a file states.

    A setting has the name of its option, ``min_gap`` or ``min-gap``, and stands at the top of the file or within its
    group, as in ``config.json``.

    Args:
        path: A JSON, TOML or YAML file.
        settings: The settings that the file does not state.

    Raises:
        ValueError: The file cannot be read, is of another method, or states an unknown setting or a wrong value.
    """
    values = _read(path)
    method = values.get("method_name", settings.method.name)
    if method != settings.method.name:
        raise ValueError(
            f"{path}: expected the settings of {settings.method.name}, got those of {method}; "
            f"use `mcss train {method}`."
        )
    stated = {name: value for name, value in values.items() if name not in NO_SETTINGS}
    left: dict[str, Any] = {}
    settings = _with_values(settings, stated, left, path)
    if left:
        known = ", ".join(sorted(_names(settings)))
        raise ValueError(f"{path}: unknown settings {', '.join(sorted(left))}; {settings.method.name} has {known}.")
    return settings


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"config: there is no file {path}; expected a run's config.json, or a TOML or YAML file.")
    try:
        text = path.read_text(encoding="utf-8")
        match path.suffix.lower():
            case ".json":
                values = json.loads(text)
            case ".toml":
                values = tomllib.loads(text)
            case ".yaml" | ".yml":
                values = yaml.safe_load(text) or {}
            case suffix:
                raise ValueError(f"expected a name that ends in .json, .toml or .yaml, got {suffix or path.name!r}")
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise ValueError(f"config: {path} cannot be read ({reason(error)}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"config: {path}: expected settings by name, got a {type(values).__name__}.")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _with_values(settings: _Settings, values: Mapping[str, Any], left: dict[str, Any], path: Path) -> _Settings:
    """Set what the dataclass and its groups have; the rest goes to `left`."""
    hints, changes = get_type_hints(type(settings)), {}
    groups = [each.name for each in fields(settings) if is_dataclass(getattr(settings, each.name))]  # type: ignore[arg-type]
    flat = {name: value for name, value in values.items() if name not in groups}
    for group in groups:
        stated = values.get(group) or {}
        if not isinstance(stated, Mapping):
            raise ValueError(f"{path}: {group}: expected settings by name, got {_shown(stated)}.")
        inner = {str(name).replace("-", "_"): value for name, value in stated.items()}
        rest: dict[str, Any] = {}
        own = getattr(settings, group)
        changes[group] = _with_values(own, {**{k: v for k, v in flat.items() if k in _names(own)}, **inner}, rest, path)
        left |= rest
    for name, value in flat.items():
        if name in hints and name in {each.name for each in fields(settings)}:  # type: ignore[arg-type]
            changes[name] = _converted(value, hints[name], f"{path}: {name}")
        elif not any(name in _names(getattr(settings, group)) for group in groups):
            left[name] = value
    try:
        return replace(settings, **changes)  # type: ignore[type-var]
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


def _shown(value: Any) -> str:
    """Show the beginning of a value, which aliases in YAML can make endless."""
    text = reprlib.repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _names(settings: Any) -> set[str]:
    """Return the names of all settings, those in groups included."""
    names = set()
    for each in fields(settings):
        value = getattr(settings, each.name)
        names |= _names(value) if is_dataclass(value) else {each.name}
    return names


def _converted(value: Any, annotation: Any, name: str) -> Any:
    """Return a value of a file as the type of its setting."""
    origin, choices = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        if value is None and NoneType in choices:
            return None
        return _converted(value, next(choice for choice in choices if choice is not NoneType), name)
    if origin is Literal:
        if isinstance(value, str | int | float | None) and value in choices:
            return value
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {_shown(value)}.")
    if origin is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if isinstance(words, list | tuple) and (choices[-1] is Ellipsis or len(words) == len(choices)):
            return tuple(_converted(word, choices[0], name) for word in words)
        raise ValueError(
            f"{name}: expected a list{'' if choices[-1] is Ellipsis else f' of {len(choices)}'}, got {_shown(value)}."
        )
    if annotation is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-3 for a text
        except (ValueError, OverflowError):
            pass
    elif annotation is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    elif isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{name}: expected {_KINDS[annotation]}, got {_shown(value)}.")


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
