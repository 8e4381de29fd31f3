"""Find what is compared: a prediction file, a run folder, or a row with all its seeds, and how often it was tried."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.ablation.convergence import not_converged
from ftkit.ablation.description import DESCRIPTION_FILE
from ftkit.ablation.ledger import LEDGER_FILE
from ftkit.ablation.result import Result
from ftkit.ablation.summary import summarize
from ftkit.ablation.sweep import RunState, read_sweep
from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.run_folder import CONFIG_FILE, RESULT_FILE, predictions_file

_PREDICTIONS = re.compile(r"predictions-(train|val|test)\.tsv")
_LIMITS = ("limit_test_batches", "limit_val_batches", "fast_dev_run")  # of Lightning's trainer


@dataclass(frozen=True)
class Side:
    """One of two models that are compared."""

    name: str  # as it was given
    files: Mapping[int | None, Path]  # the prediction files by seed; None is a seed that is not known
    split: str  # train, val or test; empty where it is not known
    whole: bool = False  # whether the whole split was answered, according to result.json and the config
    notes: Sequence[str] = ()  # what a reader should know of its runs
    converged: bool = True  # whether the training did, as far as is known
    tries: int = 1  # how many settings were tried to get it
    tries_from: str = "not known, counted as 1"  # where that number is from
    picked_from: int = 1  # how many finished seeds its row has if it is one of them; else 1


def read_side(given: str | Path) -> Side:
    """Find the prediction files of a side.

    It is a prediction file, also one in a run folder; a run folder; or the folder of a row, such as ``OUT/05_lora``,
    which is all its finished seeds.

    Raises:
        InputError: It is none of these, or not finished, or has no predictions.
    """
    path = Path(given).absolute()
    match = _PREDICTIONS.fullmatch(path.name)
    split, folder = (match[1], path.parent) if match else ("test", path)
    is_run = (folder / RESULT_FILE).is_file()
    if path.is_file() and not is_run:
        return Side(str(given), {None: path}, match[1] if match else "")
    # The folder of a setting may lie between row and run.
    rows = folder.parents[:2] if is_run else (folder,)
    if found := [row for row in rows if (row.parent / DESCRIPTION_FILE).is_file()]:
        return _of_row(str(given), found[0], split, folder if is_run else None)
    if not is_run:
        problem = "not a prediction file, a run folder, or a row of an output folder"
        raise InputError(problem, file=given, fix="give FILE.tsv, a run folder, or OUT/NUMBER_NAME")
    result = Result.read(folder / RESULT_FILE)
    run = RunState(result.raw.get("seed", 0), folder, "done", result=result)
    trouble, _ = not_converged(run), run.answers  # which must fit result.json
    return Side(str(given), *_files([run], split), [f"not converged: {trouble}"] if trouble else [], not trouble)


def _of_row(given: str, folder: Path, split: str, only: Path | None) -> Side:
    """Return a row, or the one run of it that lies in ``only``."""
    sweep = read_sweep(folder.parent)
    row = next((row for row in sweep.rows if any(folder in run.directory.parents for run in row.runs)), None)
    runs = () if row is None else row.done if only is None else (*row.done, *row.untuned, *row.tries)
    done = list({run.directory: run for run in runs if run.result and only in (None, run.directory)}.values())
    if row is None or not done:
        problem = "has no finished run, according to the ledger" if row or folder.exists() else "there is no such row"
        raise InputError(problem, file=given, fix=f"see `ftkit ablation status {folder.parent}`")
    found, seeds = summarize(row, sweep.published), len(row.done)
    picked = [] if only is None or seeds < 2 else [f"one of {seeds} finished seeds of its row; {folder} is all of them"]
    tries = sweep.ledger.tries(folder.name), f"settings finished in {folder.parent / LEDGER_FILE}"
    files = _files(done, split)
    return Side(given, *files, [*found.notes, *picked], found.converged, *tries, picked_from=seeds if picked else 1)


def _files(runs: Sequence[RunState], split: str) -> tuple[dict[int | None, Path], str, bool]:
    """Return the prediction files by seed, the split, and whether the whole of it was answered."""
    files: dict[int | None, Path] = {run.seed: run.directory / predictions_file(split) for run in runs}
    for file in files.values():
        if not file.is_file():
            raise InputError("there is no such prediction file", file=file, fix="let test_step return predictions")
    configs = [file for run in runs if (file := run.directory / CONFIG_FILE).is_file()]
    limits = [(read_config(file).get("trainer") or {}).get(limit) for file in configs for limit in _LIMITS]
    return files, split, all(limit is None or str(limit) in ("False", "1.0") for limit in limits)
