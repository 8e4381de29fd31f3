"""The ``ftkit`` command: ``fit|validate|test|predict`` through LightningCLI, and one thin function per other command.

Everything heavy is imported by the command that needs it, so that ``ftkit --help`` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ftkit.errors import EnvironmentFault, ExitCode, FtkitError
from ftkit.parsing import FtkitParser
from ftkit.quiet import quiet_libraries

LIGHTNING_COMMANDS = {
    "fit": "train a model on a data set, both described by config files",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split and keep every prediction",
    "predict": "predict the test split",
}


def ablation_run(
    folder: Path,
    overlay: list[Path] | None = None,
    rows: str | None = None,
    seeds: str = "123",
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Run the rows of an ablation that are not done yet.

    Args:
        folder: A folder with base.yaml and rows/.
        overlay: Config files laid between the base and each row, such as demo.yaml.
        rows: The rows to run, such as 1-5,10; all of them if not given.
        seeds: The seeds to run each row with, such as 123,124.
        out: Where the results go; runs/FOLDER if not given.
        force: Run the rows again even if they are done.
    """
    quiet_libraries()
    from ftkit.ablation import commands
    from ftkit.ablation.progress import SweepProgress
    from ftkit.lightning_cli import CellEngine

    progress = SweepProgress()
    commands.ablation_run(CellEngine(progress.step), folder, overlay, rows, seeds, out, force, progress)


def ablation_status(directory: Path) -> None:
    """Say what became of each cell of an output folder.

    Args:
        directory: The output folder of `ftkit ablation run`.
    """
    from ftkit.ablation import commands

    print(commands.ablation_status(directory), end="")


def ablation_table(
    directory: Path,
    format: Literal["text", "markdown", "csv", "spreadsheet"] = "text",
    timing: bool = True,
    reference: int | None = None,
) -> None:
    """Print the table of an output folder: ours beside the published figures.

    Args:
        directory: The output folder of `ftkit ablation run`.
        format: For a terminal, as Markdown, as unrounded CSV, or as CSV without cells that spreadsheets would run.
        timing: With what differs from run to run: seconds, memory, checkpoint size and the front made of them.
        reference: The number of the row to compare with; the first row if not given.
    """
    from ftkit.ablation import commands

    print(commands.ablation_table(directory, format, timing, reference), end="")


def ablation_report(
    directory: Path,
    out: Path | None = None,
    reference: int | None = None,
    png: bool = True,
    wandb: bool = False,
) -> None:
    """Write the report of an output folder: one HTML page, Markdown, CSV, and the plots.

    Args:
        directory: The output folder of `ftkit ablation run`.
        out: Where the report goes; the folder report in DIRECTORY if not given.
        reference: The number of the row to compare with; the first row if not given.
        png: Draw the plots as PNG too, which needs the extra `reports`; as SVG they are drawn always.
        wandb: Log table, plots and files as one run to Weights & Biases; offline without WANDB_API_KEY.
    """
    from ftkit.ablation import commands

    print(commands.ablation_report(directory, out, reference, png, wandb), end="")


def evaluate(
    files: list[Path],
    against: Path | None = None,
    positive: str | None = None,
    threshold_from: Path | None = None,
    threshold_metric: Literal[
        "accuracy", "f_measure", "balanced_accuracy", "mcc", "precision", "recall", "specificity", "npv"
    ] = "balanced_accuracy",
    costs: tuple[float, float] | None = None,
    save_threshold: Path | None = None,
    slice: str | None = None,
    beta: float = 1.0,
    level: float = 0.95,
    seed: int = 0,
    normalize_labels: bool = False,
    unrounded: bool = False,
    json: bool = False,
    markdown: bool = False,
    html: Path | None = None,
) -> None:
    """Report on prediction files: counts and figures, then what keeps them honest.

    Args:
        files: Prediction files: TSV, CSV or JSON lines.
        against: A prediction file for the same examples, to compare every other file with.
        positive: The positive class, for example yes; the one that the score column names if not given.
        threshold_from: A validation file to choose a threshold on, or a threshold saved before (.json).
        threshold_metric: What the chosen threshold makes best.
        costs: Cost of a false positive and of a false negative: choose the cheapest threshold instead.
        save_threshold: Write the chosen threshold to this file.
        slice: A column: report each of its values on its own, too.
        beta: Weight of recall over precision in F-beta.
        level: Confidence of the intervals.
        seed: Seed of the bootstrap.
        normalize_labels: Ignore case, outer blanks and a final full stop in labels and answers.
        unrounded: Print all digits.
        json: Print JSON, always with all digits.
        markdown: Print Markdown.
        html: Write a page with plots to this file.
    """
    from ftkit.evaluation import command

    command.evaluate(
        files, against, positive, threshold_from, threshold_metric, costs, save_threshold, slice,
        beta, level, seed, normalize_labels, unrounded, json, markdown, html,
    )  # fmt: skip


# A command is a function; a group is a dict of commands.
COMMANDS: dict[str, Any] = {
    "evaluate": evaluate,
    "ablation": {"run": ablation_run, "status": ablation_status, "table": ablation_table, "report": ablation_report},
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: The arguments; those of the process if not given.

    Returns:
        The exit code, see :class:`ftkit.errors.ExitCode`.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _dispatch(arguments)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE


def _dispatch(arguments: list[str]) -> None:
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in LIGHTNING_COMMANDS:
        _run_lightning(arguments)
        return
    # jsonargparse appends to a list with `--overlay+`; a repeated `--overlay` says the same.
    arguments = [re.sub(r"^(--overlay)(?==|$)", r"\1+", argument) for argument in arguments]
    chosen, function = _parser().parse_args(arguments), COMMANDS
    while isinstance(function, dict):
        name = chosen.subcommand
        function, chosen = function[name], chosen[name]
    function(**chosen.as_dict())


def _run_lightning(arguments: list[str]) -> None:
    quiet_libraries()
    from torch import OutOfMemoryError

    from ftkit.lightning_cli import FtkitCLI

    try:
        FtkitCLI(arguments)
    except OutOfMemoryError as error:
        raise EnvironmentFault(
            f"out of memory: {str(error).splitlines()[0]}",
            fix="use a smaller --data.batch_size with a larger --trainer.accumulate_grad_batches",
        ) from error


def _parser() -> FtkitParser:
    """The parser of all commands; the options of those that Lightning runs are LightningCLI's own."""
    parser = FtkitParser(
        prog="ftkit", description="Which way of fine-tuning is worth it, and can the answer be trusted?"
    )
    parser.add_argument("--version", action="version", version=f"ftkit {version('ftkit')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    _add_commands(parser, {**LIGHTNING_COMMANDS, **COMMANDS})
    return parser


def _add_commands(parser: FtkitParser, commands: dict[str, Any]) -> None:
    subcommands = parser.add_subcommands(required=True)
    for name, command in commands.items():
        child = FtkitParser(description=_words(command))
        subcommands.add_subcommand(name, child, help=_words(command))
        if isinstance(command, dict):
            _add_commands(child, command)
        elif callable(command):
            child.add_function_arguments(command, as_positional=True)
            _as_on_a_shell(child)


def _as_on_a_shell(parser: FtkitParser) -> None:
    """Let ``--force`` mean ``--force true``, and a positional list take several words."""
    for action in parser._actions:
        kind = getattr(action, "_typehint", None)
        if kind is bool:
            action.nargs, action.const = "?", True
        elif get_origin(kind) is list and not action.option_strings:
            action._typehint, action.nargs, action.metavar = get_args(kind)[0], "+", action.dest


def _words(command: Callable[..., None] | dict[str, Any] | str) -> str:
    if isinstance(command, dict):
        return " | ".join(command)
    return command if isinstance(command, str) else (command.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
