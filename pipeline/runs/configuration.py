"""Check of the resolved configuration: MONAI takes a misspelled override in silence, a run must not."""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

# Keys that may change between the parts of one run: they do not change what is computed.
FREE_ON_RESUME = ("resume", "max_epochs", "output_dir", "run_name", "device", "bundle_root")
_REFERENCE = re.compile(r"[@%](\w+)")


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


def check_configuration(bundle_root: str | Path | None = None, *, rules: dict[str, bool] | None = None) -> None:
    """Refuse top-level ids that no shipped file defines and no reference uses, and rules that do not hold.

    Call it first in `initialize`.

    Args:
        bundle_root: folder of the shipped configuration files; default: that of the running workflow.
        rules: message -> whether it holds.

    Raises:
        ConfigurationError: with the nearest known ids.
    """
    parser = _running(ConfigParser)
    if parser is None:
        raise ConfigurationError("check_configuration is called from a bundle's `initialize`")
    workflow = _running(ConfigWorkflow)
    roots = {Path(root) for root in (bundle_root, getattr(workflow, "config_root_path", None)) if root}
    configuration = parser.get()
    known = shipped_ids(roots)
    referred = set(_REFERENCE.findall(json.dumps(configuration, default=str)))
    own_actions = {getattr(workflow, name, None) for name in ("init_id", "run_id", "final_id")}
    problems = []
    for key in configuration:
        if key.startswith("_") or key in known or key in referred or key in own_actions:
            continue
        close = difflib.get_close_matches(key, sorted(known), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "no shipped id is like it"
        problems.append(f"{key!r} is no id of this bundle and nothing refers to it; {hint}")
    if problems:
        scalars = sorted(k for k in known if not isinstance(configuration.get(k), dict | list))
        raise ConfigurationError(f"{'; '.join(problems)}. Scalars that can be set: {', '.join(scalars)}")
    broken = [message for message, holds in (rules or {}).items() if not holds]
    if broken:
        raise ConfigurationError("; ".join(broken))


def shipped_ids(roots: set[Path]) -> set[str]:
    """Top-level ids of every configuration file below the bundle's folders."""
    known: set[str] = set()
    for root in roots:
        for file in sorted(root.rglob("*.json")):
            if file.name != "metadata.json":
                content = json.loads(file.read_text(encoding="utf-8"))
                known |= {re.split(r"::|#", key)[0].lstrip("+~") for key in content}
    return known


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
