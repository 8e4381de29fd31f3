"""Adapt the private interfaces of jsonargparse that ftkit uses; no other file uses any.

``tests/test_jsonargparse_internals.py`` names every assumption that is made here.
"""

import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, _typehints
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._subcommands import find_action_and_subcommand, is_branch_key
from jsonargparse._typehints import get_all_subclass_paths


class RefusesEmptyUnknown:
    """A part of a parser that refuses an unknown option whose value is an empty mapping, as any other unknown option.

    jsonargparse looks at the leaves of a configuration alone, and ``foo: {}`` has none. Assumes that ``_apply_actions``
    gets each configuration, and the arguments of each class, as they were given.
    """

    def _apply_actions(self, cfg: Any, parent_key: str = "", **options: Any) -> Any:
        self._refuse(dict(cfg.items(branches=True, nested=False)) if isinstance(cfg, Namespace) else cfg, parent_key)
        return super()._apply_actions(cfg, parent_key, **options)  # type: ignore[misc]

    def _refuse(self, given: Any, parent_key: str) -> None:
        for name, value in given.items() if isinstance(given, dict) else ():
            key = f"{parent_key}.{name}" if parent_key else str(name)
            value = dict(value.items(branches=True, nested=False)) if isinstance(value, Namespace) else value
            option, _ = find_action_and_subcommand(self, key, exclude=_ActionConfigLoad)
            if not isinstance(value, dict) or option is not None:
                continue
            if not value and not is_branch_key(self, key):
                raise KeyError(f"Option '{key}' is not accepted")
            self._refuse(value, key)


_METAVARS = {int: "N", float: "X", Path: "PATH"}


class PlainHelp(DefaultHelpFormatter):
    """Help as people write it: the choices and the default of an option, without Python's types and roles.

    Assumes that the formatter asks these methods for the usage, the values and the text of an argument.
    """

    def _format_usage(self, usage: str | None, actions: Iterable[Action], groups: Any, prefix: str | None) -> str:
        positionals = (action for action in actions if not action.option_strings)
        words = (
            "COMMAND" if isinstance(one.choices, dict) else self._format_args(one, one.dest) for one in positionals
        )
        return f"{'usage: ' if prefix is None else prefix}{' '.join([self._prog, '[options]', *words])}\n\n"

    def _format_args(self, action: Action, default_metavar: str) -> str:
        kind = getattr(action, "_typehint", None)
        choices = next((get_args(one) for one in (kind, *get_args(kind)) if get_origin(one) is Literal), ())
        if choices and action.option_strings:
            return "|".join(choices)
        if kind is bool:
            return "true|false" if action.default else ""
        return super()._format_args(action, default_metavar)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        kind = getattr(action, "_typehint", None)
        shown = (name for one, name in _METAVARS.items() if one in (kind, *get_args(kind)))
        return next(shown, super()._get_default_metavar_for_optional(action).rstrip("_"))

    def _format_action_invocation(self, action: Action) -> str:
        return re.sub(r", --\w+\+ \S+", "", super()._format_action_invocation(action)).rstrip()

    def _get_help_string(self, action: Action) -> str:
        text = re.sub(r":\w+:`~?\.?(.*?)`", r"`\1`", action.help or "").replace("``", "`")
        shown = action.option_strings and action.default is not False and action.default not in (None, "", SUPPRESS)
        return f"{text} (default: %(default)s)" if shown else text


def option_names(parser: Any) -> list[str]:
    """Return the dotted names of all options of a parser and of its subcommands.

    Assumes that ``_actions`` lists the options, as in argparse, and that the ``choices`` of an action with subcommands
    are their parsers by name.
    """
    names = {name.lstrip("-") for action in parser._actions for name in action.option_strings}
    for action in parser._actions:
        names.add(action.dest)
        if isinstance(action.choices, dict):
            names.update(*map(option_names, action.choices.values()))
    extra = {name for name in names if name.endswith((".help", "+"))}
    return sorted(names - extra - {"help", "h", "print_shtab", "==SUPPRESS=="})


def option_type(parser: Any, name: str) -> Any:
    """Return the type hint of an option; None if it has none.

    Assumes that an option with a type hint keeps it as ``_typehint``, under its dotted name as ``dest``.
    """
    return next((getattr(action, "_typehint", None) for action in parser._actions if action.dest == name), None)


def class_paths(kind: Any) -> list[str]:
    """Return the class paths that an option of a type may name, of classes that are imported.

    Assumes that ``get_all_subclass_paths`` takes any type hint, and looks into unions and the results of callables.
    """
    return [] if kind is None else get_all_subclass_paths(kind)


_resolved = _typehints.resolve_class_path_by_name


def resolve_class_name(kind: Any, name: str) -> str:
    """Return the class path of a short name; of several classes with this name that of torch is meant.

    bitsandbytes and transformers, once they are imported, have an ``AdamW`` or ``Adafactor`` beside torch's. Assumes
    that jsonargparse asks ``resolve_class_path_by_name`` of its ``_typehints`` for a name without dots.
    """
    of_torch = [path for path in class_paths(kind) if path.startswith("torch.") and path.rpartition(".")[2] == name]
    return of_torch[0] if len(of_torch) == 1 else _resolved(kind, name)


_typehints.resolve_class_path_by_name = resolve_class_name
_keep_options = _typehints.discard_init_args_on_class_path_change


def discard_options(parser: Any, previous: Any, value: Any) -> None:
    """Let an adapter that takes the place of another start from its own defaults; other classes keep what fits both.

    The rank of one method of peft means another thing in the next. Assumes that jsonargparse asks
    ``discard_init_args_on_class_path_change`` of its ``_typehints``, with full class paths.
    """
    if "peft_type" not in getattr(_typehints.import_object(value["class_path"]), "__dataclass_fields__", ()):
        _keep_options(parser, previous, value)
    elif previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        previous["init_args"] = Namespace()


_typehints.discard_init_args_on_class_path_change = discard_options


def accept_shell_style(parser: Any, optional: str | None = None) -> None:
    """Let ``--force`` mean ``--force true``, a positional list take several words, and the one named ``optional`` none.

    The option of an argument such as ``from_`` is ``--from``. Assumes that an option with a type hint keeps it as
    ``_typehint``, reads it when it parses, and then obeys ``nargs`` and ``const`` of argparse, which looks options up
    in ``_option_string_actions``.
    """
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if kind is bool:
            action.nargs, action.const = "?", True
        elif get_origin(kind) is list and not action.option_strings:
            words = "*" if action.dest == optional else "+"
            action._typehint, action.nargs, action.metavar = get_args(kind)[0], words, action.dest
        elif action.dest == optional:
            action.nargs, action.required = "?", False
        elif action.dest.endswith("_"):
            action.option_strings = [f"--{action.dest.removesuffix('_')}"]
            parser._option_string_actions[action.option_strings[0]] = action


def prefer_int(parser: Any) -> None:
    """Let ``1`` be one batch, and not all of them, in an option such as ``limit_train_batches: int | float``.

    ``typing`` makes equal unions one object, so ``Union[int, float]`` is ``Union[float, int]`` if another library wrote
    that first. Assumes that an option with a type hint keeps it as ``_typehint``, and tries its types in their order.
    """
    for action in parser._actions:
        kinds = list(get_args(getattr(action, "_typehint", None)))
        if {int, float} <= set(kinds):
            kinds.remove(int)
            kinds.insert(kinds.index(float), int)
            action._typehint = reduce(or_, kinds)


def given_options(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Return only what was given, on the command line or in its config files: no defaults, nothing required.

    Assumes that ``parse_args`` takes ``_skip_validation``.
    """
    return parser.parse_args(list(arguments), defaults=False, _skip_validation=True)
