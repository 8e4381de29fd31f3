"""``ftkit evaluate``: prediction files in, an honest report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ftkit.errors import InputError, at_least
from ftkit.report.binary_report import Evaluation
from ftkit.report.document import to_markdown, to_text
from ftkit.report.exact_report import ExactEvaluation
from ftkit.report.page import to_html
from ftkit.report.preference_report import PreferenceEvaluation
from ftkit.results.answers import Answers, read_answers
from ftkit.results.assessment import BinaryReport, Settings, assess
from ftkit.results.comparison import Comparison, compare, corrected
from ftkit.results.exact_match import assess_exact, read_free_answers
from ftkit.results.preferences import assess_preferences, is_preference_file, read_preferences
from ftkit.results.scan import AnswerFile, NotBinaryError
from ftkit.results.statistics import holm
from ftkit.results.threshold import Costs, Threshold, freeze_threshold
from ftkit.storage import atomic_write

Criterion = Literal[
    "accuracy", "f_measure", "balanced_accuracy", "mcc", "precision", "recall", "specificity", "npv"
]  # fmt: skip
DEFAULT_CRITERION: Criterion = "balanced_accuracy"


def evaluate(
    files: list[Path],
    against: Path | None = None,
    positive: str | None = None,
    threshold_from: Path | None = None,
    threshold_metric: Criterion | None = None,
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
) -> Evaluation | ExactEvaluation | PreferenceEvaluation:
    """Report on prediction files and print the report.

    Labels such as yes and no get the report of a yes/no question; free texts and many classes get exact match; pairs of
    a chosen and a rejected answer get a report of preferences.

    Args:
        files: Prediction files: TSV, CSV, JSON lines (also gzipped) or Parquet.
        against: A prediction file for the same examples, to compare every other file with.
        positive: The positive class, for example yes. Default: the one that the score column names, or the usual one.
        threshold_from: A validation file to choose a threshold on, or a threshold saved before (.json).
        threshold_metric: What the chosen threshold makes best; balanced_accuracy if not given.
        costs: Cost of a false positive and of a false negative, such as [1,5]: choose the cheapest threshold
            instead.
        save_threshold: Write the chosen threshold to this file (.json).
        slice: A column: report each of its values on its own, too.
        beta: Weight of recall over precision in F-beta.
        level: Confidence of the intervals.
        seed: Seed of the draws that intervals are made of.
        normalize_labels: Ignore how labels and answers are spelled: case, width, surrounding punctuation and blanks,
            1.0 for 1, marks of a chat template; where yes and no are the classes, true and 1 also mean yes.
        unrounded: Print all digits.
        json: Print JSON, always with all digits.
        markdown: Print Markdown.
        html: Write a page with plots to this file.

    Returns:
        What was found.

    Raises:
        InputError: A file cannot be used; the message says where and why.
    """
    if json and markdown:
        raise InputError("choose one of --json and --markdown")
    at_least(0, seed=seed)
    _check_options(files, beta, level, threshold_from, threshold_metric, costs, save_threshold)
    settings = Settings(beta, level, seed)
    digits = None if unrounded else 4
    evaluation: Evaluation | ExactEvaluation | PreferenceEvaluation
    if any(map(is_preference_file, files)):
        pairs = "pairs of a chosen and a rejected answer"
        _refuse_without_classes(pairs, positive=positive, threshold_from=threshold_from)
        evaluation = _preferences(files, against, slice, settings, digits)
    else:
        try:
            evaluation = _binary(
                files, against, positive, threshold_from,
                Costs(*costs) if costs else threshold_metric or DEFAULT_CRITERION, slice, normalize_labels, settings,
                digits,
            )  # fmt: skip
        except NotBinaryError as reason:
            if positive is not None:
                raise
            _refuse_without_classes(reason.labels, threshold_from=threshold_from)
            evaluation = _exact(files, against, slice, normalize_labels, settings, digits, reason.labels)
    if isinstance(evaluation, Evaluation) and evaluation.threshold is not None and save_threshold is not None:
        evaluation.threshold.save(save_threshold)
    if html is not None:
        with atomic_write(html) as file:
            file.write(to_html(evaluation.document(figures=True)))
    printed = evaluation.document()
    print(evaluation.to_json() if json else to_markdown(printed) if markdown else to_text(printed))
    return evaluation


def _binary(
    files: Sequence[Path],
    against: Path | None,
    positive: str | None,
    threshold_from: Path | None,
    criterion: str | Costs,
    slice_by: str | None,
    normalize: bool,
    settings: Settings,
    digits: int | None,
) -> Evaluation:
    # The two classes are the same in all files, so all are read before any is judged.
    validation = [threshold_from] if threshold_from is not None and not _is_saved(threshold_from) else []
    references = [against] if against is not None else []
    answers = read_answers(files, positive, slice_by, normalize, also=references + validation)
    models, others = answers[: len(files)], answers[len(files) :]
    threshold = None
    if validation:
        threshold = freeze_threshold(others[-1], criterion)
    elif threshold_from is not None:
        threshold = Threshold.load(threshold_from)
    return Evaluation(
        reports=[_reported(model, settings) for model in models],
        comparisons=_compared(models, others[0] if references else None, settings),
        threshold=threshold,
        at_threshold=[] if threshold is None else [_at_threshold(model, threshold, settings) for model in models],
        digits=digits,
        level=settings.level,
        seed=settings.seed,
    )


def _exact(
    files: Sequence[Path],
    against: Path | None,
    slice_by: str | None,
    normalize: bool,
    settings: Settings,
    digits: int | None,
    why: str,
) -> ExactEvaluation:
    models = [read_free_answers(path, slice_by, normalize) for path in files]
    reference = None if against is None else read_free_answers(against, None, normalize)
    reports = [assess_exact(model, settings.level) for model in models]
    comparisons = _compared(models, reference, settings)
    return ExactEvaluation(reports=reports, comparisons=comparisons, digits=digits, level=settings.level, why=why)


def _preferences(
    files: Sequence[Path], against: Path | None, slice_by: str | None, settings: Settings, digits: int | None
) -> PreferenceEvaluation:
    models = [read_preferences(path, slice_by) for path in files]
    reference = None if against is None else read_preferences(against)
    reports = [assess_preferences(model, settings.level) for model in models]
    comparisons = _compared(models, reference, settings)
    return PreferenceEvaluation(reports=reports, comparisons=comparisons, digits=digits, level=settings.level)


def _compared(models: Sequence[AnswerFile], reference: AnswerFile | None, settings: Settings) -> list[Comparison]:
    """Compare files with a reference, which does not compete with itself, nor count in Holm's correction."""
    if reference is None:
        return []
    rivals = (model for model in models if model.path.resolve() != reference.path.resolve())
    return corrected([compare(rival, reference, settings.level, settings.seed) for rival in rivals])


def _reported(model: Answers, settings: Settings) -> BinaryReport:
    whole = assess(
        model.target,
        model.answer,
        model.classes.positive,
        model.classes.negative,
        str(model.path),
        model.score,
        model.kind,
        settings,
    )
    parts = [
        _assessed(model, model.answer, value, settings, model.slice == code) for code, value in enumerate(model.slices)
    ]
    adjusted = holm([part.baselines.p_majority for part in parts])
    slices = {
        part.name: replace(part, baselines=replace(part.baselines, p_holm=p))
        for part, p in zip(parts, adjusted, strict=True)
    }
    return replace(
        whole,
        slices=slices,
        unparsed=model.unparsed,
        columns=model.columns,
        notes=model.notes,
        warnings=model.warnings,
    )


def _at_threshold(model: Answers, threshold: Threshold, settings: Settings) -> BinaryReport:
    return _assessed(model, threshold.apply(model), f"{model.path} at the threshold", settings)


def _assessed(
    model: Answers, answer: np.ndarray, name: str, settings: Settings, rows: Any = slice(None)
) -> BinaryReport:
    """The report of some answers without their scores."""
    positive, negative = model.classes.positive, model.classes.negative
    return assess(model.target[rows], answer[rows], positive, negative, name, settings=settings)


def _refuse_without_classes(found: str, **options: object) -> None:
    """Refuse options that need two classes, where something else was found."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"needs a yes/no question, and there are {found}", field=name, fix="leave it out")


def _check_options(
    files: Sequence[Path],
    beta: float,
    level: float,
    threshold_from: Path | None,
    threshold_metric: str | None,
    costs: tuple[float, float] | None,
    save_threshold: Path | None,
) -> None:
    if not files:
        raise InputError("no prediction file given", field="files", fix="give one or more files")
    if not 0 < level < 1:
        raise InputError("must lie between 0 and 1", field="level", got=level)
    if beta <= 0:
        raise InputError("must be positive", field="beta", got=beta)
    if save_threshold is not None and threshold_from is None:
        raise InputError("there is no threshold to save", field="save_threshold", fix="give --threshold_from as well")
    if save_threshold is not None and not _is_saved(save_threshold):
        raise InputError(
            "the ending tells a saved threshold from a validation file",
            field="save_threshold",
            got=save_threshold,
            fix="name a file that ends in .json",
        )
    choosing = {"costs": costs, "threshold_metric": threshold_metric}
    given = [name for name, value in choosing.items() if value is not None]
    if len(given) > 1:
        raise InputError("choose one of --costs and --threshold_metric")
    for name in given:
        if threshold_from is None:
            raise InputError("there is no threshold to choose", field=name, fix="give --threshold_from as well")
        if _is_saved(threshold_from):
            raise InputError(
                f"{threshold_from} is a threshold that was chosen before",
                field=name,
                fix=f"leave --{name} out, or give --threshold_from a validation file",
            )


def _is_saved(threshold_from: Path) -> bool:
    """Whether it is a saved threshold and not a validation file."""
    return threshold_from.suffix == ".json"
