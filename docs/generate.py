"""Generate the parts of the reference that come from the program: the help of commands and the keys of config files.

`python docs/generate.py` prints them.
"""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from unittest.mock import patch

import lightning as L

import ftkit
from ftkit.cli import COMMANDS, LIGHTNING_COMMANDS, Command, Commands, main
from ftkit.parsing import FtkitParser
from ftkit.training.compiled import CompiledTraining
from ftkit.training.fit_batch import FitBatch

_OPTION = re.compile(
    r"^  --(?P<name>[\w.]+)(?= |,)(?: \S+|, --\S+ \S+)* {2,}(?P<help>\S.*?) "
    r"\((?P<required>required, )?type: (?P<type>.*?)(?:, default: (?P<default>.*?))?(?:, known subclasses: .*)?\)$"
)
# The options of `fit` that are ftkit's own; those of the trainer and of checkpoints are Lightning's.
_OF_A_RUN = re.compile(r"(?!trainer|ckpt_path|weights_only)[a-z_]+(\.[a-z_]+)?")


def commands() -> list[str]:
    """Return the name of every command, such as ``ablation run``."""
    return [*LIGHTNING_COMMANDS, *_names(COMMANDS)]


def command_help() -> str:
    """Return the help of every command as Markdown, a section for each."""
    return "\n\n".join(f"## ftkit {name}\n\n```text\n{_help(name, 100)}\n```" for name in commands())


def configurable() -> dict[str, list[type]]:
    """Return the classes that a config file names, by the place where it names them."""
    public = [value for value in (getattr(ftkit, name) for name in ftkit.__all__) if inspect.isclass(value)]
    return {
        "model": [one for one in public if issubclass(one, L.LightningModule)],
        "data": [one for one in public if issubclass(one, L.LightningDataModule)],
        "trainer.callbacks": [*(one for one in public if issubclass(one, L.Callback)), FitBatch, CompiledTraining],
    }


def config_keys() -> str:
    """Return the keys of a run and of every configurable class as Markdown lists."""
    parts = [
        "## The run",
        _list(row for row in _options(_help("fit", 100_000, "--help_all")) if _OF_A_RUN.fullmatch(row["name"])),
    ]
    for place, classes in configurable().items():
        parts.append(f"## `{place}`")
        for one in classes:
            parser = FtkitParser()
            parser.add_class_arguments(one, "key")
            with patch.dict(os.environ, COLUMNS="100000"):
                rows = _options(parser.format_help())
            parts += [f"### {one.__name__}", (inspect.getdoc(one) or "").splitlines()[0], _list(rows)]
    return "\n\n".join(parts)


def _names(commands: Commands, before: str = "") -> Iterator[str]:
    for name, command in commands.items():
        yield from [before + name] if isinstance(command, Command) else _names(command, f"{before}{name} ")


def _help(command: str, width: int, option: str = "--help") -> str:
    with redirect_stdout(io.StringIO()) as out, patch.dict(os.environ, COLUMNS=str(width)):
        main([*command.split(), option])
    return out.getvalue().rstrip()


def _options(text: str) -> Iterator[re.Match[str]]:
    """Find the options in a help text whose lines are not wrapped."""
    lines = re.sub(r"\n {20,}", "  ", text).splitlines()
    return (found for found in map(_OPTION.match, lines) if found and not found["name"].endswith(".help"))


def _list(options: Iterator[re.Match[str]]) -> str:
    lines = []
    for one in options:
        default = "required" if one["required"] else f"default `{one['default']}`"
        name = one["name"].removeprefix("key.")
        lines.append(f"`{name}`\n: `{_short(one['type'])}`, {default}\n\n  {_markdown(one['help'])}\n")
    return "\n".join(lines) or "It has no keys."


def _short(annotation: str) -> str:
    """Return a type without the modules of its classes."""
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", re.sub(r"<class '(.*?)'>", r"\1", annotation))


def _markdown(text: str) -> str:
    return re.sub(r":\w+:`~?\.?(.*?)`", r"`\1`", text).replace("``", "`").replace("<", "&lt;")


def other_names(page: str) -> str:
    """Return a section with the public names that the page does not place."""
    other = [name for name in ftkit.__all__ if not re.search(rf":: {name}$", page, re.MULTILINE)]
    classes = {name: inspect.isclass(getattr(ftkit, name)) for name in other}
    listed = "\n\n".join(f".. auto{'class' if is_class else 'function'}:: {name}" for name, is_class in classes.items())
    return f"## Others\n\n```{{eval-rst}}\n{listed}\n```" if other else ""


# What is generated in the place of `<!-- generated: NAME -->`, from the text of the page.
KINDS: dict[str, Callable[[str], str]] = {
    "commands": lambda page: command_help(),
    "config keys": lambda page: config_keys(),
    "other names": other_names,
}

if __name__ == "__main__":
    print("\n\n".join(write("") for write in KINDS.values()))
