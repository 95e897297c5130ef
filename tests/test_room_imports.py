"""Rooms of the house: only the imports that the design allows."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipeline"

# room -> rooms that it may import; rooms that are not named may import none. `__main__` and experiments may import all.
ALLOWED = {
    "phantom": {"imaging"},
    "cohort": {"imaging", "phantom", "statistics"},
    "methods": {"attacks", "networks", "runs"},
    "evaluation": {"imaging", "attacks", "networks", "statistics"},
    "report": {"statistics"},
    "imaging": set(),
    "networks": set(),
    "attacks": set(),
    "statistics": set(),
    "runs": set(),
}
FREE = {"__main__", "experiments"}
NO_TORCH = {"statistics", "report"}


def imported_modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("relative")
            elif node.module == "pipeline":
                names |= {f"pipeline.{alias.name}" for alias in node.names}
            elif node.module:
                names.add(node.module)
    return names


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(room, []).append(file)
    return found


def test_every_room_is_known():
    assert set(rooms()) - {"__init__"} == (set(ALLOWED) | FREE) & set(rooms())


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_the_design_allows(room):
    for file in rooms().get(room, []):
        modules = imported_modules(file)
        assert "relative" not in modules, f"{file.name}: imports inside the package are absolute"
        others = {name.split(".")[1] for name in modules if name.startswith("pipeline.")}
        others -= {room, "__version__", "bundle_file"}
        assert others <= ALLOWED[room], f"{room}/{file.name} imports {', '.join(sorted(others - ALLOWED[room]))}"


@pytest.mark.parametrize("room", sorted(NO_TORCH))
def test_statistics_and_report_never_import_torch(room):
    for file in rooms()[room]:
        assert not {m for m in imported_modules(file) if m.split(".")[0] in {"torch", "monai", "ignite"}}, file.name
