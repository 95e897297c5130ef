"""A preparation chain as a whole: run it on one item, and name it by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from pipeline.imaging.refusal import refusal_of

CODE_VERSION = 4
"""Raised whenever the same settings give different prepared pixels, so that the store computes them anew."""

_MONAI_STATE = ("R", "first_call", "overrides", "lazy", "log_stats", "progress", "_lazy")


def prepare_item(chain: Compose, item: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Run a chain on one item.

    Args:
        chain: transforms from :class:`ReadMammogramd` to :class:`ResizeImaged`.
        item: ``image`` (path) and, where known, ``laterality``, ``view``, ``patient_id``.

    Returns:
        The item with ``image`` float32 (1, h, w), ``preparation``, ``provenance``, ``laterality``, ``view``,
        ``spacing_mm``.

    Raises:
        Refusal: if the image cannot be used, with the path in ``where``; other errors pass through.
    """
    try:
        return dict(chain(dict(item)))
    except Exception as error:  # Compose wraps what a transform raised
        refusal = refusal_of(error)
        if refusal is None:
            raise
        raise refusal.at(item.get("image", "")) from None


def chain_digest(chain: Compose) -> str:
    """SHA-256 (hexadecimal) over every transform's class, its settings and the code's version.

    Raises:
        ValueError: for a setting that has no stable description, such as a lambda.
    """
    description = {"code": CODE_VERSION, "chain": describe_chain(chain)}
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def describe_chain(chain: Compose) -> list[dict[str, Any]]:
    """Class and settings of every transform, as plain values that JSON and a checkpoint can hold.

    Raises:
        ValueError: for a setting that has no stable description, such as a lambda.
    """
    return [_described(transform) for transform in chain.flatten().transforms]


def chain_from_description(description: Sequence[Mapping[str, Any]]) -> Compose:
    """Build a chain again from :func:`describe_chain`.

    Only this package's own transforms are built: a description comes out of a file, and must not be able to run code.

    Raises:
        ValueError: for a transform that is not of ``pipeline.imaging.transforms``.
    """
    from pipeline.imaging import transforms

    built = []
    for entry in description:
        module, _, name = str(entry["class"]).rpartition(".")
        kind = getattr(transforms, name, None) if module == transforms.__name__ else None
        if kind is None or not name.endswith("d") or name.startswith("_"):
            raise ValueError(
                f"the preparation holds {entry['class']!r}, which is not of {transforms.__name__}; "
                "give the chain itself, as `preprocessing` of the configuration"
            )
        built.append(kind(**entry["settings"]))
    return Compose(built)


def _described(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | Path):
        return str(value) if isinstance(value, Path | Enum) else value
    if isinstance(value, Mapping):
        return {str(key): _described(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_described(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(str(entry) for entry in value)
    name = getattr(value, "__qualname__", None)
    if name is not None and "<lambda>" not in name:
        return f"{value.__module__}.{name}"
    settings = getattr(value, "__dict__", None)
    if settings is None or name is not None:
        raise ValueError(f"{value!r} in a preparation chain has no stable description; use a named function or a class")
    kept = {key: _described(entry) for key, entry in sorted(settings.items()) if key not in _MONAI_STATE}
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", "settings": kept}
