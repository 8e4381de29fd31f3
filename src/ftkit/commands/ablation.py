"""The ``ftkit ablation`` commands."""

from pathlib import Path
from typing import Literal

from ftkit.ablation.folder import Format
from ftkit.errors import InputError, TrainingFailed


def ablation_run(
    folder: Path,
    overlay: list[Path] | None = None,
    rows: str | None = None,
    seeds: str | None = None,
    out: Path | None = None,
    force: bool = False,
    executor: Literal["here", "ray"] = "here",
    search: Path | None = None,
    set: list[str] | None = None,
    plan: str | None = None,
) -> None:
    """Run the rows of an ablation that are not done yet, and print the table of those that are.

    Args:
        folder: A folder with base.yaml and rows/.
        overlay: Config files applied between the base and each row, such as demo.yaml; repeat it for several.
        rows: The rows to run, such as 1-5,10; all of them if not given.
        seeds: The seeds to run each row with, such as 123,124; if not given, the seed_everything of base.yaml or of an
            overlay, or else 123.
        out: Where the results go; runs/FOLDER if not given.
        force: Run rows again even if they are done.
        executor: Make the runs one after the other in this process, or distribute them with Ray: over the cluster that
            RAY_ADDRESS names, or else over this machine's processors.
        search: A file of settings to try for each row; the best is chosen on validation. By default search.yaml in
            FOLDER, if it exists.
        set: Values to try for one option, such as model.init_args.optimizer.init_args.lr=1e-4,3e-4,1e-3; repeat it for
            several options.
        plan: Plan the sweep first, for a device of `ftkit plan`, such as a100, or here: a line before the first run,
            and what was planned beside what is measured.

    Raises:
        InputError: A file or option is wrong; nothing was run.
        TrainingFailed: A row failed; the others were run. The message names the failed ones.
        EnvironmentFault: The output folder is taken or cannot be written, or no row could be run at all.
    """
    from ftkit.ablation_runs import Ablation

    ablation = Ablation(folder, overlay or (), rows, out)
    failure = None
    try:
        numbers = None if seeds is None else parse_seeds(seeds)
        ablation.run(numbers, force, executor, search=search, settings=set or (), plan=plan)
    except TrainingFailed as error:  # of some rows; the table shows the others
        failure = error
    print(f"{ablation_table(ablation.out)}\nresults: {ablation.out}\nnext: ftkit ablation report {ablation.out}")
    if failure:
        raise failure


def ablation_status(directory: Path) -> str:
    """Show the status of each run of an output folder.

    Args:
        directory: The output folder of `ftkit ablation run`.
    """
    from ftkit.ablation.sweep import read_sweep  # with the statistics, which running does not need

    sweep = read_sweep(directory)
    lines = []
    for row in sweep.rows:
        if not row.runs:
            lines.append(f"{row.number:>3}  {row.name:<26} {'':<10} not run")
        untuned = [run for run in row.untuned if run not in row.runs]
        for run in [*row.runs, *untuned, *row.tries]:
            reason = f": {run.reason}" if run.reason else ", made elsewhere" if run.external else ""
            tried = f"  {run.setting}" if run.setting else "  untuned" if run in untuned else ""
            lines.append(f"{row.number:>3}  {row.name:<26} seed {run.seed:<5} {run.status}{reason}{tried}")
    return "\n".join([*lines, *(f"notice: {notice}" for notice in sweep.ledger.notices)]) + "\n"


def ablation_table(directory: Path, format: Format = "text", timing: bool = True, reference: int | None = None) -> str:
    """Render the table of an output folder.

    Args:
        directory: The output folder of `ftkit ablation run`.
        format: For a terminal, as Markdown, as unrounded CSV or JSON, or as CSV in which a spreadsheet takes no cell
            for a formula.
        timing: Show what differs from run to run: seconds, memory, checkpoint size and the Pareto front.
        reference: The number of the row to compare with; the first row if not given.
    """
    from ftkit.ablation.analysis import analyse  # with scipy, which only tables and reports need
    from ftkit.report.ablation_table import table

    return table(analyse(directory, reference), format, timing)


def ablation_report(
    directory: Path, out: Path | None = None, reference: int | None = None, png: bool = True, wandb: bool = False
) -> str:
    """Write the report of an output folder, from its files alone.

    Args:
        directory: The output folder of `ftkit ablation run`.
        out: Where the report goes; the folder report in `directory` if not given.
        reference: The number of the row to compare with; the first row if not given.
        png: Draw the plots as PNG too.
        wandb: Log the report as one run to Weights & Biases.

    Raises:
        InputError: `directory` is not such a folder, a file in it is damaged, or there is no such row.
        EnvironmentFault: A file could not be written or drawn, or Weights & Biases failed; the rest is written.
    """
    from ftkit.report.ablation_report import read_results, write

    out = out or directory / "report"
    built = read_results(directory, reference)
    files = write(built, out, png)
    said = f"{out / 'report.html'}, and {len(files) - 1} other files in {out}\n"
    if not wandb:
        return said
    from ftkit.report.wandb_report import log_report

    return f"{said}{log_report(built, directory, out)}\n"


def ablation_add(
    directory: Path,
    row: str,
    predictions: Path,
    costs: Path | None = None,
    seed: int | None = None,
    question: str = "",
) -> str:
    """Add a run that was made elsewhere to an output folder, as a row of its table and report.

    Args:
        directory: The output folder of `ftkit ablation run`.
        row: Number and name of the row, such as 40_trainer.
        predictions: Its prediction file over the test examples of the ablation.
        costs: A YAML file of its costs, any of: seconds, peak_memory_mb, trainable_parameters, checkpoint_mb, device,
            machine, base_model, made_with.
        seed: The seed whose runs it is compared with; the first one that is done if not given.
        question: The question that the row answers.
    """
    from ftkit.ablation.external import add_external_run

    return f"{add_external_run(directory, row, predictions, costs, seed, question)}\n"


def ablation_import(folder: Path, out: Path) -> str:
    """Make an ablation folder of peft's method comparison: a row of each experiment, its results as published figures.

    Args:
        folder: A task of peft's method_comparison, with experiments and results.
        out: The new ablation folder.
    """
    from ftkit.ablation.peft_experiments import import_experiments

    return f"{import_experiments(folder, out)}\n"


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as ``"123,124"``.

    Raises:
        InputError: A part is not a whole number from 0 to 4294967295.

    Example:
        >>> parse_seeds("123, 124")
        [123, 124]
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit()) or int(part) >= 2**32:
            raise InputError("not a seed", field="seeds", got=part, fix="write whole numbers, such as 123,124")
    return [int(part) for part in parts]
