"""What ftkit uses of jsonargparse beyond its public interface; no other file does.

``tests/test_jsonargparse_internals.py`` names every assumption that is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace


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
    return sorted(names - {"help", "h", "==SUPPRESS=="})


def accept_shell_style(parser: Any) -> None:
    """Let ``--force`` mean ``--force true``, and a positional list take several words.

    Assumes that an option with a type hint keeps it as ``_typehint``, reads it when it parses, and then obeys ``nargs``
    and ``const`` of argparse.
    """
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if kind is bool:
            action.nargs, action.const = "?", True
        elif get_origin(kind) is list and not action.option_strings:
            action._typehint, action.nargs, action.metavar = get_args(kind)[0], "+", action.dest


def given_options(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Return only what was given, on the command line or in its config files: no defaults, nothing required.

    Assumes that ``parse_args`` takes ``_skip_validation``.
    """
    return parser.parse_args(list(arguments), defaults=False, _skip_validation=True)
