"""``ftkit evaluate``: prediction files in, an honest report out."""

from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.report.binary_report import Evaluation
from ftkit.report.class_report import ClassEvaluation
from ftkit.report.document import to_markdown
from ftkit.report.evaluate import evaluate, is_saved
from ftkit.report.exact_report import ExactEvaluation
from ftkit.report.page import to_html
from ftkit.report.preference_report import PreferenceEvaluation
from ftkit.results.changes import write_rows
from ftkit.storage import atomic_write


def evaluate_command(
    files: list[Path],
    *,
    save_threshold: Path | None = None,
    unrounded: bool = False,
    json: bool = False,
    markdown: bool = False,
    html: Path | None = None,
    changes: Path | None = None,
    **options: Any,
) -> Evaluation | ClassEvaluation | ExactEvaluation | PreferenceEvaluation:
    """Print a report on prediction files.

    Labels such as yes and no get the report of a yes/no question; three to 50 classes one of classes; free texts get
    exact match; pairs of a chosen and a rejected answer get a report of preferences.

    Args:
        files: Prediction files: TSV, CSV, JSON lines (also gzipped) or Parquet; of a run folder, its test.
        save_threshold: Write the chosen threshold to this file (.json).
        unrounded: Print all digits.
        json: Print JSON, always with all digits.
        markdown: Print Markdown.
        html: Write a page with plots to this file; with `--against`, also what changed, example by example.
        changes: Write what changed, example by example, to this file (.tsv).
        **options: Those of :func:`ftkit.report.evaluate.evaluate`.

    Raises:
        InputError: A file cannot be used; the message says where and why.
    """
    if json and markdown:
        raise InputError("choose one of --json and --markdown")
    if save_threshold is not None and options.get("threshold_from") is None:
        raise InputError("there is no threshold to save", field="save_threshold", fix="give --threshold_from as well")
    if save_threshold is not None and not is_saved(save_threshold):
        problem, fix = "the ending tells a saved threshold from a validation file", "name a file that ends in .json"
        raise InputError(problem, field="save_threshold", got=save_threshold, fix=fix)
    if changes is not None and options.get("against") is None:
        raise InputError("there is nothing to compare with", field="changes", fix="give --against as well")
    evaluation = evaluate(files, digits=None if unrounded else 4, **options)
    if isinstance(evaluation, Evaluation) and evaluation.threshold is not None and save_threshold is not None:
        evaluation.threshold.save(save_threshold)
    if html is not None:
        with atomic_write(html) as file:
            file.write(to_html(evaluation.document(figures=True)))
    if changes is not None:
        names = dict(zip((str(model.path) for model in evaluation.models), evaluation.names, strict=True))
        rows = [{"file": names[str(one.after.path)], **row} for one in evaluation.changes for row in one.rows()]
        with atomic_write(changes) as file:
            write_rows(file, rows)
    print(evaluation.to_json() if json else to_markdown(evaluation.document()) if markdown else evaluation)
    return evaluation
