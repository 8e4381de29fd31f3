"""Parse with jsonargparse; errors name the key and the nearest valid one, in ftkit's one form."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from ftkit.class_paths import explain_class
from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.jsonargparse_internals import RefusesEmptyUnknown, class_paths, option_names, option_type

_PARSER_KEY = re.compile(r'\s*(?:- )?Parser key "(?P<key>[^"]+)":')
_NESTED = re.compile(r'^\s*- (?P<message>Parser key ".*)', re.MULTILINE)
_EXPLAINED = re.compile(r"^\s*(?:- )?(?P<message>[\w.]+: .*(?:\(got |; fix: ).*)$", re.MULTILINE)
_NO_SUCH = re.compile(
    r"[Kk]ey '(?P<key>[^']+)' is not expected|[Oo]ption '(?P<option>[^']+)' is not accepted|"
    r"does not accept option '(?P<config>[^']+)'|unrecognized arguments: --(?P<argument>[\w.]+)"
)
_ARGUMENT = re.compile(r"argument (?P<key>\S+): invalid choice: '(?P<value>[^']*)' \(choose from (?P<names>[^)]*)\)")
_UNION = re.compile(r"Does not validate against any of the Union subtypes\s+Subtypes: .*\s+Errors:\s+(?:- )?")
_NO_FILE = re.compile(r"(?P<problem>File does not exist|Path is not a file): '(?P<file>.+)'$")


class ErrorMixin(RefusesEmptyUnknown):
    """Raise :class:`ftkit.errors.InputError` where jsonargparse would print its usage and exit.

    Options cannot be abbreviated, since a misspelt one could be meant.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain what the parser found wrong."""
        raise explain(message, option_names(self), lambda name: option_type(self, name)) from ex

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a config file; errors name it, and the line where that is known."""
        read_config(Path(str(cfg_path)))
        try:
            return super().parse_path(cfg_path, *args, **kwargs)  # type: ignore[misc]
        except InputError as error:
            raise InputError(str(error), file=cfg_path) from error


class FtkitParser(ErrorMixin, ArgumentParser):
    """The parser of the commands that do not go through LightningCLI."""


def explain(message: str, known: list[str], type_of: Callable[[str], Any] = lambda name: None) -> InputError:
    """Name the key, the nearest one or the file that a message of jsonargparse is about; its own words stay otherwise.

    Example:
        >>> print(explain("unrecognized arguments: --trainer.max_epoch 3", ["trainer.max_epochs", "model"]))
        trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?
    """
    keys: list[str] = []
    while match := _PARSER_KEY.match(message):  # a class_path has a parser of its own, and so on inwards
        keys.append(match["key"])
        message = message[match.end() :]
        if nested := _NESTED.search(message):
            message = nested["message"]
    key = ".".join(keys) or None
    unusable = explain_class(message, key, class_paths(type_of(key)) if key else ())
    # By inner parsers: one for each type that was tried.
    explained = sorted(_EXPLAINED.findall(message), key=lambda said: "did you mean" not in said)
    if key and explained and ("did you mean" in explained[0] or "did you mean" not in str(unusable)):
        return InputError(f"{key}.{explained[0]}")
    if match := _NO_FILE.search(message):
        problem = "there is no such file" if match["problem"].startswith("File") else "not a file"
        return InputError(problem, file=match["file"], field=key)
    if match := _NO_SUCH.search(message):
        return _no_such(next(filter(None, match.groups())), known)
    if match := _ARGUMENT.search(message):
        return _no_such(match["value"], re.findall(r"'([^']*)'", match["names"]), "no such command")
    return unusable or InputError(" ".join(_UNION.sub("", message).split()), field=key, fix="see --help")


def _no_such(key: str, names: list[str], problem: str = "no such option") -> InputError:
    # In a long dotted name one misspelt part hardly shows, so the first and the last parts are compared alone too.
    firsts = {name.partition(".")[0]: name.partition(".")[0] for name in names}
    lasts = {name.rpartition(".")[2]: name for name in names}
    if not names:  # the options of a class are those of its constructor
        return InputError("is an option of a class that is not given", field=key, fix="name the class before it")
    if key in names and problem == "no such option":
        return InputError("no such option here", field=key, fix="write it without dashes, or behind its command")
    last = key.rpartition(".")[2]
    close = get_close_matches(key, [name for name in names if get_close_matches(last, [name.rpartition(".")[2]])], n=1)
    for part, whole in ((key.partition(".")[0], firsts), (last, lasts)):
        if not close and part not in firsts:
            close = [whole[name] for name in get_close_matches(part, whole, n=1)]
    fix = (
        f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}" if len(names) < 30 else "see --help"
    )
    return InputError(problem, field=key, fix=fix)
