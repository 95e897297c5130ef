"""Check of the resolved configuration: MONAI takes a misspelled override in silence, a run must not."""

from __future__ import annotations

import difflib
import inspect
import json
import pydoc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow

# Keys that may change between the parts of one run: they do not change what is computed. Initial weights are not read
# again.
FREE_ON_RESUME = (
    "resume", "max_epochs", "output_dir", "run_name", "device", "bundle_root",
    "dataset_dir", "store_dir", "initial_weights",
)  # fmt: skip
_REFERENCE = re.compile(r"[@%](\w+(?:(?:#|::)\w+)*)")


class ConfigurationError(ValueError):
    """A configuration that cannot be what its author meant."""


def _running(kind: type) -> Any:
    # A configuration expression has no handle on the parser that evaluates it; the parser is `self` up the stack.
    frame = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, kind):
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    return None


def current_configuration() -> dict[str, Any]:
    """The configuration that is being evaluated, after overrides.

    Raises:
        ConfigurationError: called from outside a MONAI configuration.
    """
    parser = _running(ConfigParser)
    if parser is None:
        raise ConfigurationError("no configuration is being evaluated; pass one, or call this from a bundle's `run`")
    return json.loads(json.dumps(parser.get(), default=str))


def training_facts() -> dict[str, Any]:
    """What the configuration that is being evaluated says of the training, for the checkpoint and reports on it."""
    configuration = current_configuration()
    facts = {name: configuration.get(name) for name in ("method", "standard_ratio", "arfl_weight", "start_epoch")}
    manifest = configuration.get("manifest")
    facts["arfl"] = None
    if facts["arfl_weight"]:
        # References to scalars of the top, as train.json writes them.
        settings = {name: value for name, value in configuration["arfl"].items() if not name.startswith("_")}
        settings = {
            name: configuration.get(value[1:]) if isinstance(value, str) and value.startswith("@") else value
            for name, value in settings.items() if name != "network"
        }  # fmt: skip
        facts["arfl"] = settings
    return facts | {"manifest": Path(str(manifest)).name if manifest else None}


def check_configuration(
    bundle_root: str | Path | None = None,
    *,
    rules: dict[str, bool] | None = None,
    parser: ConfigParser | None = None,
) -> None:
    """Refuse ids that no shipped file defines and nothing refers to, arguments that no component takes, broken rules.

    An id is a key at the top, or in a group of components such as `train`. Call it first in `initialize`.

    Args:
        bundle_root: folder of the shipped configuration files; default: that of the running workflow.
        rules: message -> whether it holds.
        parser: of the configuration; default: the one that is being evaluated.

    Raises:
        ConfigurationError: with the nearest known names.
    """
    parser = parser or _running(ConfigParser)
    if parser is None:
        raise ConfigurationError("check_configuration is called from a bundle's `initialize`, or with a parser")
    workflow = _running(ConfigWorkflow)
    roots = {Path(root) for root in (bundle_root, getattr(workflow, "config_root_path", None)) if root}
    configuration = parser.get()
    known = shipped_ids(roots)
    known |= set(_references(configuration))
    known |= {name for name in (getattr(workflow, each, None) for each in ("init_id", "run_id", "final_id")) if name}
    problems = [
        f"{path!r} is no id of this bundle and nothing refers to it; {_nearest(path, known)}"
        for path in _ids(configuration)
        if path not in known
    ]
    scalars = sorted(k for k in known & configuration.keys() if not isinstance(configuration[k], dict | list))
    allowed = f"\nScalars that can be set: {', '.join(scalars)}" if problems else ""
    problems += _unknown_arguments(configuration, parser)
    problems += [message for message, holds in (rules or {}).items() if not holds]
    if problems:
        raise ConfigurationError("; ".join(problems) + allowed)


def shipped_ids(roots: set[Path]) -> set[str]:
    """Ids of every configuration file below the bundle's folders, at the top ("train") and in groups ("train#sampler").

    An overlay's key "a#b#c" makes its beginnings known too.
    """
    known: set[str] = set()
    for root in roots:
        for file in sorted(root.rglob("*.json")):
            if file.name != "metadata.json":
                content = json.loads(file.read_text(encoding="utf-8"))
                for key, value in content.items():
                    path = key.replace("::", "#").lstrip("+~")
                    known |= _beginnings(path) | {f"{path}#{inner}" for inner in _ids(value)}
    return known


def _ids(node: Any) -> Iterator[str]:
    """Keys of a group, and below them those of groups. A component's keys are arguments, other values are data."""
    if not isinstance(node, dict) or "_target_" in node:
        return
    for key, value in node.items():
        if key.startswith("_"):
            continue
        yield key
        if isinstance(value, dict) and any(isinstance(each, dict) and "_target_" in each for each in value.values()):
            yield from (f"{key}#{inner}" for inner in _ids(value))


def _references(configuration: dict[str, Any]) -> Iterator[str]:
    for path in _REFERENCE.findall(json.dumps(configuration, default=str)):
        yield from _beginnings(path.replace("::", "#"))


def _beginnings(path: str) -> set[str]:
    parts = path.split("#")
    return {"#".join(parts[:count]) for count in range(1, len(parts) + 1)}


def _unknown_arguments(configuration: dict[str, Any], parser: ConfigParser) -> list[str]:
    """Arguments that a component's signature does not have, each with the nearest that it has."""
    problems = []
    for path, node in _components(configuration):
        try:
            component = ConfigComponent(node, id=path, locator=parser.locator)
            target = pydoc.locate(str(component.resolve_module_name()))
            parameters = _parameters(target)
        except (TypeError, ValueError, ModuleNotFoundError, pydoc.ErrorDuringImport):
            continue  # an expression, or a target that only its own construction can judge
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            continue
        names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_POSITIONAL]
        problems += [
            f"{path}#{key} is no argument of {node['_target_']}; {_nearest(key, set(names))}, "
            f"it takes {', '.join(names) or 'none'}"
            for key in node
            if not key.startswith("_") and key not in names
        ]
    return problems


def _parameters(target: Any) -> list[inspect.Parameter]:
    """Parameters of a component. A class of ours that takes `**others` hands them on to its base class."""
    parameters = list(inspect.signature(target).parameters.values())
    if not inspect.isclass(target) or not target.__module__.startswith("pipeline."):
        return parameters
    for base in inspect.getmro(target)[1:]:
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
        if "__init__" in vars(base) and base is not object:
            own = [each for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
            known = {each.name for each in own}
            inherited = list(inspect.signature(base).parameters.values())
            parameters = own + [each for each in inherited if each.name not in known]
    return parameters


def _components(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    if isinstance(node, dict) and "_target_" in node:
        yield path, node
    for key, value in entries:
        yield from _components(value, f"{path}#{key}" if path else str(key))


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else "nothing known is like it"


def refuse_changed_configuration(recorded: dict[str, Any], current: dict[str, Any], where: Path) -> None:
    """Raise if a resumed run would train something else than the run that lies in `where`."""

    def comparable(configuration: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in configuration.items() if k not in FREE_ON_RESUME and not k.startswith("_")}
        return json.loads(json.dumps(kept, default=str))

    old, new = comparable(recorded), comparable(current)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        shown = "; ".join(f"{key}: {_short(old.get(key))} then, {_short(new.get(key))} now" for key in changed[:5])
        raise ConfigurationError(
            f"resume: the run in {where} was started with another configuration ({shown}); "
            "give the same values, or another run_name"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
