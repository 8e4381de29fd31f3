"""The house: arrows run downwards, and no wing knows another."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import ftkit

SRC = Path(ftkit.__file__).parent
# What each floor may import, besides itself and the ground that everything stands on.
GROUND = {"config_files", "errors", "lock", "normalize", "run_folder", "storage", "wandb_settings"}
ALLOWED = {
    "results": set(),
    "models": {"hub"},
    "examples": {"models", "results", "hub"},
    "training": {"class_paths", "examples", "hub", "jsonargparse_internals", "models", "parsing", "results"},
    "classifier": {"training", "models", "examples", "results", "hub"},
    "baselines": {"training", "models", "examples", "results", "hub"},
    "vlm": {"training", "models", "examples", "results", "hub"},
    "language": {"training", "models", "examples", "results", "hub"},
    "serving": {"training", "models", "examples", "results", "hub"},
    "ablation": {"results"},
    "report": {"ablation", "results"},
    "plan": {"ablation", "classifier", "vlm", "training", "models", "hub", "lightning_cli", "run_config"},
}
# What the files below every floor may import.
SINGLE_FILES: dict[str, set[str]] = {
    "errors": set(),
    "config_files": {"errors"},
    "normalize": set(),
    "run_folder": {"errors"},
    "wandb_settings": set(),
    "storage": {"errors"},
    "lock": {"errors", "storage"},
    "hub": {"errors", "storage"},
    "jsonargparse_internals": set(),
    "class_paths": {"errors", "jsonargparse_internals"},
    "parsing": {"class_paths", "config_files", "errors", "jsonargparse_internals"},
}

# Libraries whose private attributes are used in these files alone.
ADAPTED = ("lightning", "pytorch_lightning", "torchmetrics", "jsonargparse")
ADAPTERS = {
    "jsonargparse_internals.py",
    "lightning_cli_internals.py",
    "models/peft_internals.py",
    "models/transformers_internals.py",
    "plan/torch_internals.py",
    "training/lightning_internals.py",
    "training/logged_values_internals.py",
}
# Private names of torch, which no file adapts, and what is public in spite of its underscore.
OTHERS = {
    "_call_impl", "_compiled_call_impl", "_dynamo", "_foreach_div_", "_sampler_iter", "_save_to_state_dict", "_version",
    "_replace",
}  # fmt: skip


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


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_own(receiver: ast.expr) -> bool:
    """Whether it is the object itself: `self`, `cls` or `super()`."""
    if isinstance(receiver, ast.Call) and isinstance(receiver.func, ast.Name):
        return receiver.func.id == "super"
    return isinstance(receiver, ast.Name) and receiver.id in ("self", "cls")


def private_names(tree: ast.AST) -> Iterator[tuple[bool, str, int]]:
    """Private names that are asked of an object, or given to a call: whether it is the object itself, name and line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield is_own(node.value), node.attr, node.lineno
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield False, node.arg, node.value.lineno
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("ftkit"):
            for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
                if is_private(name):
                    yield False, name, node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            name = getattr(node.args[1], "value", "")
            if is_private(str(name)):
                yield is_own(node.args[0]), name, node.lineno


def defined_in(kind: type) -> set[str]:
    """The private names that a class defines: what it holds itself, and what it sets on its objects."""
    names = set(vars(kind)) - {"_abc_impl"}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind)))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            names.add(node.attr)
    return set(filter(is_private, names))


def test_private_attributes_of_other_objects_are_asked_for_in_the_adapters_alone() -> None:
    found = {
        f"{path.relative_to(SRC)}:{line}: {name}"
        for path in SRC.glob("**/*.py")
        if str(path.relative_to(SRC)) not in ADAPTERS
        for own, name, line in private_names(ast.parse(path.read_text(encoding="utf-8")))
        if not own and name not in OTHERS
    }
    assert not found


def test_no_class_outside_of_the_adapters_uses_or_replaces_what_is_private_of_its_foreign_bases() -> None:
    adapters = {".".join(("ftkit", *Path(name).with_suffix("").parts)) for name in ADAPTERS}
    found, seen = set(), set()
    for path in SRC.glob("**/*.py"):
        if path.name == "__main__.py":
            continue
        module = import_module(".".join(path.relative_to(SRC.parent).with_suffix("").parts))
        for kind in vars(module).values():
            if not isinstance(kind, type) or kind.__module__ != module.__name__ or kind.__module__ in adapters:
                continue
            theirs = {
                name for base in kind.__mro__ if base.__module__.split(".")[0] in ADAPTED for name in defined_in(base)
            }
            seen |= theirs
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind))) if theirs else ast.Module([], [])
            used = {name for own, name, _ in private_names(tree) if own} | (defined_in(kind) if theirs else set())
            found |= {f"{kind.__module__}.{kind.__name__}: {name}" for name in used & theirs}
    assert {"_trainer", "_parse_ckpt_path", "_data_parallel_size"} <= seen  # the bases were looked into
    assert not found
