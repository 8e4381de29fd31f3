"""The house: arrows run downwards, and no wing knows another."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ftkit

SRC = Path(ftkit.__file__).parent
# What each floor may import, besides itself and the ground that everything stands on.
GROUND = {"errors", "lock", "normalize", "run_folder", "storage"}
ALLOWED = {
    "evaluation": set(),
    "models": {"hub"},
    "rows": {"models"},
    "training": {"models", "rows", "evaluation", "hub"},
    "classifier": {"training", "models", "rows", "evaluation", "hub"},
    "vlm": {"training", "models", "rows", "evaluation", "hub"},
    "language": {"training", "models", "rows", "evaluation", "hub"},
    "serving": {"training", "models", "rows", "evaluation", "hub"},
    "ablation": {"training", "evaluation"},
}
# What the files below every floor may import.
SINGLE_FILES: dict[str, set[str]] = {
    "errors": set(),
    "normalize": set(),
    "run_folder": set(),
    "storage": {"errors"},
    "lock": {"errors", "storage"},
    "hub": {"errors"},
    "jsonargparse_internals": set(),
    "parsing": {"errors", "jsonargparse_internals"},
}


def imported(path: Path) -> set[str]:
    """The parts of ftkit that a file imports, also inside functions."""
    return {name.split(".")[1] for name in imported_names(path) if name.startswith("ftkit.")}


def imported_names(path: Path) -> set[str]:
    """The names of modules that a file imports, also inside functions, and of what it takes from packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {node.module or ""} if node.module != "ftkit" else set()
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_arrows_run_downwards() -> None:
    found = {
        f"{path.relative_to(SRC)} -> {part}"
        for floor, allowed in ALLOWED.items()
        for path in sorted((SRC / floor).glob("**/*.py"))
        for part in imported(path) - {floor} - allowed - GROUND
    }
    assert not found


def test_the_ground_carries_itself() -> None:
    assert SINGLE_FILES.keys() >= GROUND
    found = {name: imported(SRC / f"{name}.py") - allowed for name, allowed in SINGLE_FILES.items()}
    assert not any(found.values()), found


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in SRC.glob("*/__init__.py")}
    assert packages == ALLOWED.keys() | {"commands"}


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {".".join(path.relative_to(SRC.parent).with_suffix("").parts): path for path in SRC.glob("**/*.py")}
    assert len(modules) > 100
    graph = {name: imported_names(path) & modules.keys() for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_submodules_of_transformers_and_peft_are_imported_in_one_file_each() -> None:
    """Their top-level names are public; what lies deeper may change with any release."""
    homes = {"transformers": "models/transformers_internals.py", "peft": "models/peft_internals.py"}
    public = {"transformers.utils.logging"}
    found = {
        f"{path.relative_to(SRC)} -> {node.module}"
        for path in sorted(SRC.glob("**/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and "." in node.module and node.module not in public
        if (home := homes.get(node.module.split(".")[0])) and path != SRC / home
    }
    assert not found
