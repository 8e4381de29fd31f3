"""Check what a checkpoint or an export says of its model, before anything is built from it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor

from ftkit.class_paths import refuse_imports
from ftkit.errors import InputError
from ftkit.jsonargparse_internals import class_paths, option_names, option_type
from ftkit.parsing import FtkitParser
from ftkit.run_folder import refuse_other_format

_OF_LIGHTNING: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "callbacks": dict,
    "loops": dict,
    "epoch": int,
    "global_step": int,
}
_OF_FTKIT: dict[str, type | tuple[type, ...]] = {  # None is no value
    "base": dict,
    "encoding": dict,
    "adapter": dict,
    "prompt": dict,
    "ranks": dict,
    "class_path": str,
    "class_weights": (list, tuple),
    "classes": (list, tuple),
    "fitted": dict,
    "lr": float,
}
_FIX = "use an intact copy, or train again"


def check_fields(checkpoint: Mapping[str, Any], file: str | Path) -> None:
    """Refuse a checkpoint whose parts are of another kind, or that another edition of ftkit wrote.

    Raises:
        InputError: It is none; the first part that is wrong is named.
    """
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError("is not a Lightning checkpoint: must hold values by name", file=file, field="state_dict")
    _check_types(checkpoint, _OF_LIGHTNING, file)
    if "base" not in checkpoint:  # of a module that is not ftkit's
        return
    refuse_other_format(checkpoint.get("format"), file)
    _check_types(checkpoint, _OF_FTKIT, file)
    base = checkpoint["base"] or {}
    _check_types(base, {"fingerprint": dict}, file, "base.")
    for place, values, kind in (
        ("state_dict", checkpoint["state_dict"], Tensor),
        ("base.fingerprint", base.get("fingerprint") or {}, str),
    ):
        if wrong := next((name for name, value in values.items() if not isinstance(value, kind)), None):
            raise InputError(
                f"must be {kind.__name__}", file=file, field=f"{place}.{wrong}", got=values[wrong], fix=_FIX
            )


def read_options(
    kind: type, stored: Mapping[str, Any] | None, file: str | Path | None, field: str, without: Collection[str] = ()
) -> dict[str, Any]:
    """Return stored arguments of a constructor, checked against its annotations; none that begins with ``_``.

    Nothing is imported because a file says so: a class is left to its constructor to look at.

    Args:
        kind: The class.
        stored: The arguments by name, as plain values.
        file: Where they were stored.
        field: The name of the mapping there.
        without: Arguments that are not needed, for the caller has others.

    Raises:
        InputError: One is of another type, unknown or missing; it is named.
    """
    if stored is None:
        raise InputError("is missing", file=file, field=field, fix=_FIX)
    given = {str(name): value for name, value in stored.items() if not str(name).startswith("_")}
    given = {name: value for name, value in given.items() if name not in without}
    parser = FtkitParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=set(without), fail_untyped=False)
    known = {name.partition(".")[0] for name in option_names(parser)}
    classes = {name for name in known if class_paths(option_type(parser, name))}
    known -= classes
    if not any(one.kind is one.VAR_KEYWORD for one in signature(kind).parameters.values()):
        known |= given.keys() - signature(kind).parameters.keys()  # refused; else the constructor knows
    try:
        for name in classes & given.keys():
            refuse_imports(given[name], name)
        parsed = parser.parse_object({name: value for name, value in given.items() if name in known}, defaults=False)
    except InputError as error:
        raise InputError(f"{field}.{error}".replace("fix: see --help", f"fix: {_FIX}"), file=file) from error
    return given | {name: value for name, value in vars(parsed).items() if not isinstance(value, Namespace)}


@contextmanager
def named(file: str | Path | None, kind: type) -> Iterator[None]:
    """Name the file where a class refuses what is stored in it.

    Raises:
        InputError: The class refused it, or could do nothing with it.
    """
    try:
        yield
    except InputError as error:
        if file is None or str(file) in str(error):
            raise
        raise InputError(str(error), file=file) from error
    except (TypeError, AttributeError, ValueError, KeyError, ArithmeticError) as error:
        problem = f"do not fit {kind.__name__}: {error}"
        raise InputError(problem, file=file, field="hyper_parameters", fix=_FIX) from error


def _check_types(
    found: Mapping[str, Any], expected: Mapping[str, type | tuple[type, ...]], file: str | Path, place: str = ""
) -> None:
    for name, kinds in expected.items():
        value = found.get(name)
        if value is not None and not isinstance(value, kinds):
            words = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise InputError(f"must be {words}", file=file, field=f"{place}{name}", got=value, fix=_FIX)
