"""Names of run folders and of the files in them, shared by writers and readers."""

import json
import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from ftkit.errors import FormatError, InputError

RUNS = Path("runs")  # in the current folder; what is trained goes into a new folder below it
ORDER_FILE = ".order"  # in RUNS: the names of the folders, a line for each training, in the order of their beginnings
RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
CURVES_FILE = "metrics.csv"
BEST_CHECKPOINT = "best.ckpt"  # in checkpoints/; it counts where CONFIG_FILE says `model_selection: best`

FORMAT = 2  # of result.json, of an ablation's files and of checkpoints

UNLABELED = -1  # in the place of the class of an example that has none

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Form = Literal["ftkit", "peft", "transformers"]  # which library loads what `ftkit push` writes


def predictions_file(split: str) -> str:
    """Return the name of the file with the predictions of a split.

    Example:
        >>> predictions_file("test")
        'predictions-test.tsv'
    """
    return f"predictions-{split}.tsv"


def predictions_in(path: str | Path, split: str = "test") -> Path:
    """Return a prediction file; of a folder that holds predictions of a split, these."""
    inside = Path(path) / predictions_file(split)
    return inside if inside.exists() else Path(path)


def examples_file(split: str) -> str:
    """Return the name of the file with what is known of the examples of a split."""
    return f"examples-{split}.tsv"


def losses_file(name: str) -> str:
    """Return the name of the file with the losses of held-out texts, see :class:`ftkit.Forgetting`."""
    return f"losses-{name}.tsv"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run folder holds any checkpoint."""
    return any((folder / "checkpoints").glob("*.ckpt"))


def is_trained(folder: Path) -> bool:
    """Return whether a training in a folder came to its end.

    Raises:
        InputError: Its ``result.json`` is damaged, or of another format.
    """
    result = folder / RESULT_FILE
    return has_checkpoint(folder) and result.is_file() and "status" not in read_result(result)


def newest_run(name: str | None = None) -> Path | None:
    """Return the folder below ``runs`` in the current folder whose training began last; None without one.

    Clocks are set back, so the order of the trainings is kept in ``runs/.order``; times decide among other folders.

    Args:
        name: Only folders that were named by date and this name, as ``ftkit fit`` does.
    """
    dated = re.compile(rf"[\d-]{{15}}-{re.escape(name or '')}(-\d+)?")
    saved = [file for file in RUNS.glob("*/checkpoints/*.ckpt") if name is None or dated.fullmatch(file.parts[1])]
    if not saved:
        return None
    order = {name: number for number, name in enumerate(_trained_names())}
    return max(saved, key=lambda file: (order.get(file.parts[1], -1), file.stat().st_mtime_ns, file)).parents[1]


def _trained_names() -> list[str]:
    try:
        return (RUNS / ORDER_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []


def need_newest_run() -> Path:
    """Return the folder of :func:`newest_run`, with a notice.

    Raises:
        InputError: Nothing was trained here.
    """
    if (folder := newest_run()) is None:
        raise InputError("there is no run", file=RUNS, fix="train with `ftkit fit`, or name a run's folder")
    print(f"notice: using the newest run, {folder}", file=sys.stderr)
    return folder


def read_result(file: Path) -> dict[str, Any]:
    """Read the ``result.json`` of a run.

    Raises:
        InputError: The file is damaged, or of another format.
        OSError: It cannot be read.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is damaged: {error}", file=file, fix="move it away, or train again") from error
    if not isinstance(result, dict):
        raise InputError("is damaged: it is no object", file=file, got=result, fix="move it away, or train again")
    refuse_other_format(result.get("format"), file)
    return result


def refuse_other_format(found: Any, file: str | Path, line: int | None = None) -> None:
    """Refuse a file of another edition of ftkit, whose keys may mean something else.

    Raises:
        FormatError: It is not :data:`FORMAT`.
    """
    if found != FORMAT:
        theirs = "an unnumbered format" if found is None else f"format {found}"
        problem = f"was written in {theirs}, and this ftkit reads format {FORMAT}"
        fix = "use a new output folder, or the version of ftkit that wrote this one"
        raise FormatError(problem, file=file, line=line, fix=fix)
