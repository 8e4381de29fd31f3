"""The ``ftkit`` command: ``fit|validate|test|predict`` through LightningCLI, and one thin function per other command.

Everything heavy is imported by the command that needs it, so that ``ftkit --help`` answers at once.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ftkit.commands.short_help import short_help
from ftkit.errors import EnvironmentFault, ExitCode, FtkitError, first_line
from ftkit.jsonargparse_internals import PlainHelp, accept_shell_style
from ftkit.library_output import check_before_imports, quiet_libraries
from ftkit.parsing import FtkitParser
from ftkit.storage import FULL_DISK

LIGHTNING_COMMANDS = {
    "fit": "train a model on a data set, both described by config files",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split and write every prediction",
    "predict": "predict the test split",
}


@dataclass(frozen=True)
class Command:
    """A command of the command line: a function whose signature and docstring are its options.

    Args:
        function: The function, or where it is (``package.module:name``), imported when the command is called.
            A string that it returns is printed.
        help: One line for the list of commands.
        optional: The positional argument that may be left out.
    """

    function: Callable[..., Any] | str
    help: str
    optional: str | None = None

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        return self.function if callable(self.function) else resolve_name(self.function)


Commands = Mapping[str, "Command | Commands"]

COMMANDS: Commands = {
    "init": Command("ftkit.commands.init:init", "write an ablation to start from, which runs offline"),
    "doctor": Command("ftkit.commands.doctor:doctor", "check a training on one batch before starting it"),
    "plan": Command("ftkit.commands.plan:plan_command", "plan minutes, memory and price of trainings on a device"),
    "evaluate": Command("ftkit.commands.evaluate:evaluate_command", "report on prediction files"),
    "verdict": Command("ftkit.commands.verdict:verdict_command", "say whether A is better than B", "sides"),
    "images": {
        "prepare": Command("ftkit.commands.images:prepare", "convert a folder of images to RGB squares of one size"),
    },
    "data": {
        "audit": Command(
            "ftkit.commands.audit:audit_command", "find duplicates within and between splits", optional="config"
        ),
        "show": Command("ftkit.commands.data:data_show", "show a training example with supervised tokens highlighted"),
    },
    "model": {
        "show": Command(
            "ftkit.commands.model:model_show", "show a model's architecture, memory needs and prompt format"
        ),
    },
    "completion": Command("ftkit.commands.completion:completion", "print what makes a shell complete commands"),
    "serve": Command("ftkit.commands.serve:serve", "serve a run, a local model or a hub model over HTTP", "model"),
    "push": Command("ftkit.commands.push:push", "upload a run to the hub, with a model card", "run"),
    "ablation": {
        "run": Command(
            "ftkit.commands.ablation:ablation_run",
            "run the rows of an ablation that are not finished",
        ),
        "status": Command("ftkit.commands.ablation:ablation_status", "show the status of every run"),
        "table": Command(
            "ftkit.commands.ablation:ablation_table", "print the table of results beside published figures"
        ),
        "add": Command("ftkit.commands.ablation:ablation_add", "add a run that was made elsewhere to the table"),
        "import": Command("ftkit.commands.ablation:ablation_import", "make an ablation of peft's method comparison"),
        "report": Command("ftkit.commands.ablation:ablation_report", "write the report: HTML, Markdown, CSV and plots"),
    },
}

GROUPS = {
    "images": "images for vision-language models",
    "data": "training data",
    "model": "inspect a model",
    "ablation": "compare variants of a training",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, see :class:`ftkit.errors.ExitCode`."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    quiet_libraries()
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        if sys.platform == "win32":
            problem, fix = "ftkit runs on Linux and macOS, not on Windows", "use the Windows Subsystem for Linux"
            raise EnvironmentFault(problem, fix=fix)
        _dispatch(arguments)
        sys.stdout.flush()  # what cannot be written shows here, and not after the exit code
    except FtkitError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning exits with 1 after it has cleaned up
            return ExitCode.INTERRUPTED
        return end.code if isinstance(end.code, int) else ExitCode.DONE if end.code is None else ExitCode.BUG
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _end_output()
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        place = error.filename or "the output, or a temporary file"
        print(f"error: {place}: the disk is full; fix: free some space, then run it again", file=sys.stderr)
        _end_output()
        return ExitCode.ENVIRONMENT
    return ExitCode.DONE


def _end_output() -> None:
    """Let nothing more be written to the standard output, not even by Python when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> None:
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words and words[0] in LIGHTNING_COMMANDS:
        if {"-h", "--help"} & set(arguments):
            print(short_help(words[0], LIGHTNING_COMMANDS[words[0]]), end="")
        else:
            _run_lightning(["--help" if argument == "--help_all" else argument for argument in arguments])
        return
    arguments = [_with_underscores(argument) for argument in arguments]
    # jsonargparse appends to a list with `--overlay+`; a repeated `--overlay` says the same.
    arguments = [
        re.sub(r"^(--overlay|--names|--set|--allowed_hosts)(?==|$)", r"\1+", argument) for argument in arguments
    ]
    chosen = make_parser(words).parse_args(arguments)
    command: Command | Commands = COMMANDS
    while not isinstance(command, Command):
        command, chosen = command[chosen.subcommand], chosen[chosen.subcommand]
    result = command.load()(**chosen.as_dict())
    if isinstance(result, str):
        print(result, end="")


def _with_underscores(argument: str) -> str:
    """Return ``--threshold-from=x-y`` as ``--threshold_from=x-y``."""
    return re.sub(r"^--[^=]+", lambda name: f"--{name[0][2:].replace('-', '_')}", argument)


def _run_lightning(arguments: list[str]) -> None:
    given = list(pairwise([*arguments, ""]))
    files = (Path(value) for option, value in given if option == "--config")
    check_before_imports(
        (file for file in files if file.suffix in (".yaml", ".yml") or file.is_dir()), dict(_named(given))
    )
    from torch import OutOfMemoryError

    from ftkit.lightning_cli import FtkitCLI

    try:
        FtkitCLI(arguments)
    except OutOfMemoryError as error:
        raise EnvironmentFault(
            f"out of memory: {first_line(error)}",
            fix="use a smaller --data.batch_size with a larger --trainer.accumulate_grad_batches, or the callback "
            "ftkit.training.fit_batch.FitBatch, which finds them; in evaluation a smaller --data.batch_size, or "
            "--data.evaluation_batch_size where there is one",
        ) from error


def _named(given: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the classes that options name: the last one of an option counts."""
    for option, value in given:
        name, _, inline = option.partition("=")
        if name in ("--model", "--data"):
            yield name[2:], inline or value


def make_parser(words: Sequence[str] | None) -> FtkitParser:
    """Build the parser of all commands; LightningCLI parses the options of its own commands.

    Args:
        words: The words of the command line: only the command that they name is imported for its options; None imports
            every command, for shell completion.
    """
    parser = FtkitParser(
        prog="ftkit",
        description="Which way of fine-tuning is worth it, and can the answer be trusted?",
        formatter_class=PlainHelp,
    )
    parser.add_argument("--version", action="version", version=f"ftkit {version('ftkit')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    lightning = {name: Command("", help) for name, help in LIGHTNING_COMMANDS.items()}
    children = _add_commands(parser, {**lightning, **COMMANDS}, words)
    for name, help in LIGHTNING_COMMANDS.items() if words is None else ():
        for option in sorted(set(re.findall(r"--[a-z][\w.]+", short_help(name, help)))):
            children[name].add_argument(option)
    return parser


def _add_commands(parser: FtkitParser, commands: Commands, words: Sequence[str] | None) -> dict[str, FtkitParser]:
    subcommands = parser.add_subcommands(required=True)
    children = {}
    for name, command in commands.items():
        chosen = words is None or words[:1] == [name]
        help = command.help if isinstance(command, Command) else f"{GROUPS[name]}: {' | '.join(command)}"
        child = children[name] = FtkitParser(description=help)
        subcommands.add_subcommand(name, child, help=help)
        child.prog = f"{parser.prog} {name}"
        if not isinstance(command, Command):
            _add_commands(child, command, words and words[1:] if chosen else ())
        elif chosen and command.function:
            child.add_function_arguments(command.load(), as_positional=True)
            accept_shell_style(child, command.optional)
    return children
