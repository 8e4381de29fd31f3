"""Evaluate prediction files, whatever kind of answers they hold, and compare them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ftkit.errors import InputError, at_least, positive
from ftkit.report.binary_report import Evaluation
from ftkit.report.class_report import ClassEvaluation
from ftkit.report.evaluation import Evaluated
from ftkit.report.exact_report import ExactEvaluation
from ftkit.report.preference_report import PreferenceEvaluation
from ftkit.results import comparison
from ftkit.results.answers import binary_answers, class_answers
from ftkit.results.assessment import assess_answers, assess_binary
from ftkit.results.changes import Changes
from ftkit.results.class_assessment import assess_classes
from ftkit.results.comparison import Comparison, corrected
from ftkit.results.exact_match import assess_exact, read_free_answers
from ftkit.results.known_examples import beside, known_examples
from ftkit.results.preferences import assess_preferences, is_preference_file, read_preferences
from ftkit.results.scan import AnswerFile, NotBinaryError, scan
from ftkit.results.settings import Settings
from ftkit.results.several_classes import against_rest, find_classes
from ftkit.results.threshold import Costs, Criterion, Threshold, freeze_threshold
from ftkit.run_folder import predictions_in

DEFAULT_CRITERION: Criterion = "balanced_accuracy"
E = TypeVar("E", bound=Evaluated[Any])


def evaluate(
    files: Path | str | Sequence[Path | str],
    against: Path | str | None = None,
    positive: str | None = None,
    threshold_from: Path | str | None = None,
    threshold_metric: Criterion | None = None,
    costs: tuple[float, float] | None = None,
    slice: str | None = None,
    beta: float = 1.0,
    level: float = 0.95,
    seed: int = 0,
    normalize_labels: bool = False,
    digits: int | None = 4,
    examples: Path | str | None = None,
) -> Evaluation | ClassEvaluation | ExactEvaluation | PreferenceEvaluation:
    """Evaluate prediction files.

    Labels such as yes and no get the report of a yes/no question; three to 50 classes
    (:func:`ftkit.results.several_classes.find_classes`) one of classes; free texts get exact match; pairs of a chosen
    and a rejected answer get a report of preferences.

    Args:
        files: One prediction file or several: TSV, CSV, JSON lines (also gzipped) or Parquet; a run folder is its
            predictions of test.
        against: A prediction file for the same examples, to compare every other file with; or a run folder.
        positive: The positive class, for example yes. Default: the one that the score column names, or the usual one.
            With three or more classes: evaluate this one against the rest, as a yes/no question.
        threshold_from: A validation file to choose a threshold on, a run folder for its predictions of val, or a
            threshold saved before (.json).
        threshold_metric: What the chosen threshold maximizes; balanced_accuracy if not given.
        costs: Cost of a false positive and of a false negative, such as [1,5]: choose the cheapest threshold
            instead.
        slice: A column: also report each of its values on its own.
        beta: Weight of recall over precision in F-beta.
        level: Confidence of the intervals.
        seed: Seed of the draws that intervals are computed from.
        normalize_labels: Ignore how labels and answers are spelled: case, width, surrounding punctuation
            and blanks, 1.0 for 1, marks of a chat template; if the classes are yes and no, true and 1 mean yes.
        digits: Decimals in texts, None for all.
        examples: The ``examples-test.tsv`` of a run or the output of ``ftkit data audit --examples``: also report
            accuracies and comparisons without examples that have a duplicate in train. Default: the file in the
            run folder of each prediction file.

    Returns:
        The evaluation: ``print`` shows its report, a notebook too; ``reports`` holds the figures of each file,
        ``comparisons`` those against the reference, ``to_json()`` everything.

    Raises:
        InputError: A file cannot be used; the message says where and why.

    Example:
        >>> import tempfile
        >>> from ftkit.results.predictions import write_predictions
        >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
        >>> write_predictions(path, "abcd", ["yes", "no", "no", "yes"], ["yes", "no", "yes", "no"])
        >>> evaluate(path).reports[0].figures["accuracy"].value
        0.5
    """
    paths = [predictions_in(file) for file in ([files] if isinstance(files, str | Path) else files)]
    threshold_from = None if threshold_from is None else predictions_in(threshold_from, "val")
    at_least(0, seed=seed)
    _check_options(paths, beta, level, threshold_from, threshold_metric, costs)
    if examples is not None and not Path(examples).is_file():
        raise InputError("there is no such file", file=examples, fix="write it with ftkit data audit --examples")
    known = known_examples([*map(beside, paths)] if examples is None else [Path(examples)])
    settings = Settings(beta, level, seed, known=known)
    evaluated = partial(_evaluated, files=len(paths), settings=settings, digits=digits)
    reference = [] if against is None else [(predictions_in(against), None)]
    read = [*((path, slice) for path in paths), *reference]
    if any(map(is_preference_file, paths)):
        pairs = "pairs of a chosen and a rejected answer"
        _refuse_without_classes(pairs, positive=positive, threshold_from=threshold_from)
        return evaluated(PreferenceEvaluation, [read_preferences(*one) for one in read], assess_preferences)
    criterion = Costs(*costs) if costs else threshold_metric or DEFAULT_CRITERION
    # The classes are the same in all files, so all are read before any is judged.
    validation = [(threshold_from, None)] if threshold_from is not None and not is_saved(threshold_from) else []
    try:
        scans = [scan(path, by, normalize_labels) for path, by in (*read, *validation)]
        classes = find_classes(scans, normalize_labels)
        if classes is not None and positive is None:
            found, fix = f"{len(classes.names)} classes", "name one to set against the rest with --positive"
            _refuse_without_classes(found, fix, threshold_from=threshold_from, beta=None if beta == 1 else beta)
            return evaluated(ClassEvaluation, class_answers(scans, classes), assess_classes)
        if classes is not None and positive is not None:
            scans = [against_rest(one, classes, positive) for one in scans]
        answers = binary_answers(scans, positive, normalize_labels)
        threshold = freeze_threshold(answers[-1], criterion) if validation else None
        if threshold is None and threshold_from is not None:
            threshold = Threshold.load(threshold_from)
        decided = [] if threshold is None else [(one, threshold.apply(one)) for one in answers[: len(paths)]]
        at = [assess_answers(one, answer, f"{one.path} at the threshold", settings) for one, answer in decided]
        return evaluated(Evaluation, answers[: len(read)], assess_binary, threshold=threshold, at_threshold=at)
    except NotBinaryError as reason:
        if positive is not None:
            raise
        _refuse_without_classes(reason.labels, threshold_from=threshold_from)
        free = [read_free_answers(*one, normalize_labels) for one in read]
        return evaluated(ExactEvaluation, free, assess_exact, why=reason.labels)


def compare(a: Path | str, b: Path | str, **options: Any) -> Comparison:
    """Compare two prediction files on the examples that both answer: a minus b.

    Args:
        a: The model's prediction file.
        b: The reference's.
        **options: ``positive``, ``level``, ``seed`` and ``normalize_labels`` of :func:`evaluate`.

    Raises:
        InputError: A file cannot be used, they share no example, or they are one file.

    Example:
        >>> import tempfile
        >>> from ftkit.results.predictions import write_predictions
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_predictions(folder / "a.tsv", "abcd", ["yes", "no", "no", "yes"], ["yes", "no", "no", "yes"])
        >>> write_predictions(folder / "b.tsv", "abcd", ["yes", "no", "no", "yes"], ["yes", "no", "yes", "no"])
        >>> found = compare(folder / "a.tsv", folder / "b.tsv")
        >>> found.difference, found.p
        (0.5, 0.5)
    """
    comparisons = evaluate([a], against=Path(b), **options).comparisons
    if not comparisons:
        raise InputError("is compared with itself", file=a, fix="give two files")
    return comparisons[0]


def _evaluated(
    kind: type[E],
    answers: Sequence[AnswerFile],
    assess: Callable[[Any, Settings], Any],
    files: int,
    settings: Settings,
    digits: int | None,
    **more: Any,
) -> E:
    """Return the evaluation of the first ``files``; the next one, if there is one, is the reference."""
    level, seed, known = settings.level, settings.seed, settings.known
    reports = [assess(one, settings) for one in answers[:files]]
    models = answers[:files] if known is None else [known.mark(model) for model in answers[:files]]
    # The reference does not compete with itself, nor count in Holm's correction.
    pairs = [(one, other) for other in answers[files:] for one in models if one.path.resolve() != other.path.resolve()]
    return kind(
        reports=reports,
        models=models,
        comparisons=corrected([comparison.compare(one, other, level, seed) for one, other in pairs]),
        changes=[Changes(one, other, known) for one, other in pairs],
        digits=digits,
        level=level,
        seed=seed,
        **more,
    )


def _refuse_without_classes(found: str, fix: str = "leave it out", **options: object) -> None:
    """Refuse options that need two classes, where something else was found."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"needs a yes/no question, and there are {found}", field=name, fix=fix)


def _check_options(
    files: Sequence[Path],
    beta: float,
    level: float,
    threshold_from: Path | None,
    threshold_metric: str | None,
    costs: tuple[float, float] | None,
) -> None:
    if not files:
        raise InputError("no prediction file given", field="files", fix="give one or more files")
    if not 0 < level < 1:
        raise InputError("must lie between 0 and 1", field="level", got=level)
    positive(beta=beta)
    choosing = {"costs": costs, "threshold_metric": threshold_metric}
    given = [name for name, value in choosing.items() if value is not None]
    if len(given) > 1:
        raise InputError("choose one of --costs and --threshold_metric")
    for name in given:
        if threshold_from is None:
            raise InputError("there is no threshold to choose", field=name, fix="give --threshold_from as well")
        if is_saved(threshold_from):
            problem = f"{threshold_from} is a threshold that was chosen before"
            raise InputError(problem, field=name, fix=f"leave --{name} out, or give --threshold_from a validation file")


def is_saved(threshold_from: Path) -> bool:
    """Whether it is a saved threshold and not a validation file."""
    return threshold_from.suffix == ".json"
