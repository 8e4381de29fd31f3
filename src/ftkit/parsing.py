"""A jsonargparse parser whose errors name the key, the value and the nearest valid one, in ftkit's one form."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from ftkit.errors import InputError

_INNER = re.compile(r"^\s*- (?P<inner>[\w.]+: .*(?:\(got |; fix: ).*)$", re.MULTILINE)
_KEY = re.compile(r"[Kk]ey '(?P<key>[^']+)' is not expected|(?:Option|option) '(?P<option>[^']+)' is not accepted")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: --(?P<key>[\w.]+)")
_PARSER_KEY = re.compile(r'Parser key "(?P<key>[^"]+)"')
_ARGUMENT = re.compile(r"argument (?P<key>\S+): invalid choice: '(?P<value>[^']*)' \(choose from (?P<names>[^)]*)\)")
_EXPECTED = re.compile(
    r'Parser key "(?P<key>[^"]+)": \s*Expected an? (?P<kind>.+?)\.\s+Got value: (?P<value>.+)', re.DOTALL
)
_CHOICES = re.compile(r"Expected an? (?P<kind>.+)")
_GIVEN = re.compile(r"Given value: (?P<value>.+)")


class ErrorMixin:
    """Raises :class:`ftkit.errors.InputError` where jsonargparse would print its usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain what the parser found wrong."""
        raise explain(message, option_names(self)) from ex


class FtkitParser(ErrorMixin, ArgumentParser):
    """The parser of the commands that do not go through LightningCLI."""


def explain(message: str, known: list[str]) -> InputError:
    """Turn a message of jsonargparse into one line that says key, value and way out.

    Args:
        message: What jsonargparse would print.
        known: The names of the options there are.

    Example:
        >>> print(explain("unrecognized arguments: --trainer.max_epoch 3", ["trainer.max_epochs", "model"]))
        trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?
    """
    keys, given = _PARSER_KEY.findall(message), _GIVEN.search(message)
    if keys and (match := _INNER.search(message)):  # the parser of a class_path has already explained itself
        return InputError(f"{keys[0]}.{match['inner']}")
    if match := _UNRECOGNIZED.search(message):
        return _no_such(match["key"], known)
    if match := _KEY.search(message):
        return _no_such(match["key"] or match["option"], known)
    if match := _ARGUMENT.search(message):
        return _no_such(match["value"], re.findall(r"'([^']*)'", match["names"]), "no such command")
    if match := _EXPECTED.search(message):
        return InputError(f"expected {_plain(match['kind'])}", field=match["key"], got=match["value"].strip())
    if keys and given:
        kinds = [kind for kind in _CHOICES.findall(message) if "NoneType" not in kind]
        expected = " or ".join(dict.fromkeys(_plain(kind) for kind in kinds)) or "another kind of value"
        return InputError(f"expected {expected}", field=keys[-1], got=given["value"])
    return InputError(re.sub(r"\s*\n\s*", " ", message.strip()))


def option_names(parser: Any) -> list[str]:
    """The dotted names of all options of a parser and of its subcommands."""
    names = {name.lstrip("-") for action in parser._actions for name in action.option_strings}
    names |= {action.dest for action in parser._actions}
    return sorted(names - {"help", "h", "==SUPPRESS=="})


def _no_such(key: str, names: list[str], problem: str = "no such option") -> InputError:
    # The last part alone may be misspelt in a long dotted name, or the key may lack its prefix.
    last = {name.rpartition(".")[2]: name for name in names}
    close = get_close_matches(key, names, n=1) or [
        last[part] for part in get_close_matches(key.rpartition(".")[2], last, n=1)
    ]
    fix = (
        f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}" if len(names) < 30 else "see --help"
    )
    return InputError(problem, field=key, fix=fix)


def _plain(kind: str) -> str:
    """A type as a user would say it: the choices of a Literal, or the name of a class."""
    kind = kind.removeprefix("typing.")
    if kind.startswith("Literal["):
        return "one of " + kind.removeprefix("Literal[").rstrip("]").replace("'", "")
    return kind.removeprefix("<class '").removesuffix("'>")
