"""Explain a ``class_path`` that names no usable class, with the nearest one that does."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import ftkit
from ftkit.errors import InputError
from ftkit.jsonargparse_internals import class_paths

_UNKNOWN_NAME = re.compile(r"Expected a dot import path string: (?P<given>\S+)")
_OR_A_NUMBER = re.compile(r"Expected an? <class '(?:int|float)'>")
_OR_A_WORD = re.compile(r"Expected an? typing\.Literal\[(?P<words>.+?)\]")
_SEVERAL = re.compile(r"Multiple subclasses with name (?P<given>\S+)\. Give the .*?: (?P<paths>.+?)\.?$", re.MULTILINE)
_NOT_IN_MODULE = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
_NO_IMPORT = re.compile(r"Problem with given class_path '(?P<given>[^']+)':\s+(?P<said>[^\n]+)")
_NO_MODULE = re.compile(r"No module named '(?P<module>[^']+)'")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_ANOTHER_KIND = re.compile(r"Import path (?P<given>\S+ )?does not correspond to a subclass of (?P<base>\w+)")
_GIVEN = re.compile(r"Given value: (?P<given>[\w.]+)$", re.MULTILINE)


def explain_class(message: str, key: str | None, paths: Sequence[str] = ()) -> InputError | None:
    """Explain why a class cannot be used; None if the message is about something else.

    Example:
        >>> print(explain_class("Expected a dot import path string: Lyon", "optimizer", ["torch.optim.Lion"]))
        optimizer: no such class (got 'Lyon'); fix: did you mean torch.optim.Lion?
    """
    if match := _SEVERAL.search(message):
        fix = f"give one of {match['paths']}"
        return InputError("several classes have this name", field=key, got=match["given"], fix=fix)
    if (match := _UNKNOWN_NAME.search(message)) and not _OR_A_NUMBER.search(message):
        words = re.findall(r"'(\w+)'", one["words"]) if (one := _OR_A_WORD.search(message)) else []
        fix = _nearest(match["given"], [*words, *paths, *_own_classes()], _another(paths))
        return InputError("no such class", field=key, got=match["given"], fix=fix)
    if match := _NOT_IN_MODULE.search(message):
        return _not_in_module(match["module"], match["name"], key, paths)
    if match := _NO_IMPORT.search(message):
        module, _, name = match["given"].rpartition(".")
        if module in sys.modules and not hasattr(sys.modules[module], name):  # a module whose names load lazily
            return _not_in_module(module, name, key, paths)
        missing = _NO_MODULE.search(match["said"])
        if missing and f"{match['given']}.".startswith(f"{missing['module']}."):
            places = f"modules are looked for in {Path.cwd()} and among the packages"
            fix = _nearest(match["given"], paths, places)
            return InputError(f"there is no module {missing['module']}", field=key, got=match["given"], fix=fix)
        return InputError(f"its module cannot be imported: {match['said']}", field=key, got=match["given"])
    if match := _ANOTHER_KIND.search(message):
        given = match["given"] or (_GIVEN.search(message) or {"given": ""})["given"]
        return InputError(f"is not a {match['base']}", field=key, got=given.strip(), fix=_another(paths))
    return None


def check_classes(config: Mapping[str, Any], file: Path | None) -> None:
    """Refuse a model or data module whose name is a misspelt one of ftkit's; nothing is imported for it.

    Raises:
        InputError: It is.
    """
    own = _own_classes()
    for field in ("model", "data"):
        section = config.get(field)
        given = section.get("class_path") if isinstance(section, dict) else section
        module, _, name = given.rpartition(".") if isinstance(given, str) else ("", "", "")
        if name and module in ("", "ftkit") and f"ftkit.{name}" not in own and (fix := _nearest(name, own, "")):
            raise InputError("no such class", file=file, field=field, got=given, fix=fix)


def refuse_imports(stored: Any, field: str) -> None:
    """Refuse a class with its arguments, from a file that may come from anywhere, for which a module would be imported.

    Args:
        stored: ``class_path`` and ``init_args``, or a name; another value is left to who uses it.
        field: Where it is stored.

    Raises:
        InputError: A class, also of an argument, is of a module that is not imported.
    """
    path = stored.get("class_path") if isinstance(stored, Mapping) else stored
    if not isinstance(path, str) or (path is stored and not _DOTTED.fullmatch(path)):
        return
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise InputError("no such class among those that are imported", field=field, got=path)
    arguments = stored.get("init_args") if isinstance(stored, Mapping) else None
    hints = get_type_hints(found) if isinstance(found, type) else {}
    for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
        hint = hints.get(name)
        if class_paths(hint) or any(map(is_dataclass, get_args(hint))):
            refuse_imports(value, f"{field}.{name}")


def _own_classes() -> list[str]:
    return [f"ftkit.{name}" for name in dir(ftkit) if name[0].isupper()]  # also those not imported yet


def _not_in_module(module: str, name: str, key: str | None, paths: Sequence[str]) -> InputError:
    there = sys.modules.get(module)
    close = get_close_matches(name, {*dir(there), *getattr(there, "__all__", ())}, n=1)  # or lazy ones
    fix = f"did you mean {module}.{close[0]}?" if close else _nearest(name, paths, _another(paths))
    return InputError(f"module '{module}' has no attribute '{name}'", field=key, fix=fix)


def _nearest(given: str, paths: Sequence[str], otherwise: str) -> str:
    """Return which known class may have been meant by a class path or a class name."""
    names = {path.rpartition(".")[2]: path for path in reversed(paths)}
    close = get_close_matches(given.rpartition(".")[2], names, n=1)
    return f"did you mean {names[close[0]]}?" if close else otherwise


def _another(paths: Sequence[str]) -> str:
    own = ", ".join(path for path in paths if re.fullmatch(r"ftkit\.\w+", path))
    return f"name {f'{own}, or ' if own else ''}a class of your own with its module: my_module.MyClass"
