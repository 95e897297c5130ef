"""Names of training methods for a grid: a method's overlay and terms added to it, e.g. "trades+arfl"."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from pipeline import bundle_file


class GridError(ValueError):
    """An experiment that cannot be what its author meant, or cannot go on."""


@dataclass(frozen=True)
class Variant:
    """One method of a grid.

    Attributes:
        name: as given, e.g. "trades+arfl".
        method: stem of the file in `bundles/arfl/methods/`.
        terms: stems of the files in `bundles/arfl/terms/`.
    """

    name: str
    method: str
    terms: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Overlays, in the order in which they are laid over train.json."""
        return [_folder("methods") / f"{self.method}.json", *(_folder("terms") / f"{term}.json" for term in self.terms)]

    @property
    def branches(self) -> bool:
        """Does the method train one normalisation per domain, so that its branches are tested each by itself?"""
        return "DSBN" in json.dumps(_content("methods", self.method))

    def carries(self, key: str) -> bool:
        """Does training depend on this entry, one of standard_ratio, arfl_weight, budget?"""
        parser = ConfigParser(ConfigParser.load_config_files([str(bundle_file("train.json")), *map(str, self.files)]))
        text = json.dumps(parser.get("method"))
        ratio = "@standard_ratio" in text
        if key == "standard_ratio":
            return ratio
        if key == "arfl_weight":
            return parser["arfl_weight"] != 0
        return ("@budget" in text or "@attack" in text) and not (ratio and parser["standard_ratio"] == 1)


def variant(name: str) -> Variant:
    """Read a name such as "dual_arfl", "trades+arfl" or "dual+awp+ema".

    Raises:
        GridError: an unknown method or term, two methods, or a term that is in the method already.
    """
    method, *terms = name.strip().split("+")
    if method not in known("methods"):
        near = difflib.get_close_matches(method, known("methods"), n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise GridError(f"method {method!r} is unknown; {meant}allowed are {', '.join(known('methods'))}")
    for term in terms:
        if term in known("terms"):
            continue
        if term in known("methods"):
            raise GridError(
                f"{name!r} joins two methods, {method!r} and {term!r}; a run has one method and any number of terms "
                f"({', '.join(known('terms'))})"
            )
        raise GridError(f"term {term!r} of {name!r} is unknown; allowed are {', '.join(known('terms'))}")
    settings = _content("methods", method)
    for term in terms:
        again = [key for key, value in _content("terms", term).items() if settings.get(key) == value]
        if again or terms.count(term) > 1:
            raise GridError(f"{name!r}: {term!r} is in {method!r} already; leave it out")
    weight = 10.0  # train.json's
    for content in (settings, *(_content("terms", term) for term in terms)):
        weight = content.get("arfl_weight", weight)
    if "after_relu" in terms and weight == 0:
        raise GridError(f"{name!r}: 'after_relu' says where ARFL takes its map; add it: '{method}+arfl+after_relu'")
    return Variant(name.strip(), method, tuple(terms))


def known(kind: str) -> list[str]:
    """Stems of the overlays in `bundles/arfl/<kind>/`."""
    return sorted(path.stem for path in _folder(kind).glob("*.json"))


def _folder(kind: str) -> Path:
    return bundle_file("train.json").parent / kind


@cache
def _content(kind: str, stem: str) -> dict[str, Any]:
    return json.loads((_folder(kind) / f"{stem}.json").read_text(encoding="utf-8"))
