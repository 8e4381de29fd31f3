"""Test examples of the rows of an ablation, and how each row answered them."""

from collections.abc import Mapping

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.sweep import SweepRow
from ftkit.report.document import Section, Table
from ftkit.results.predictions import Predictions, read_predictions

_WRONG, _RIGHT = 20, 10  # examples of each row that are shown
_TEXT = 200  # letters of an answer that are shown


def examples(analysis: Analysis) -> Mapping[int, Section]:
    """Return some test examples of the first seed of each row, the wrong ones first, beside the reference's answers."""
    reference = analysis.reference.number
    others = (_first_predictions(row) for row in analysis.sweep.rows if row.number == reference)
    theirs = {key: text for found in others if found for key, text in zip(found.ids, found.predictions, strict=True)}
    return {
        row.number: _shown(found, {} if row.number == reference else theirs, reference)
        for row in analysis.sweep.rows
        if (found := _first_predictions(row)) is not None
    }


def _first_predictions(row: SweepRow) -> Predictions | None:
    paths = (run.test_predictions for run in row.done)
    return next((read_predictions(path) for path in paths if path.exists()), None)


def _shown(found: Predictions, theirs: Mapping[str, str | None], reference: int) -> Section:
    correct = found.correct
    wrong = [place for place in range(len(found)) if not correct[place]]
    right = [place for place in range(len(found)) if correct[place]][:_RIGHT]
    # What the reference gets right tells the two apart best.
    wrong.sort(key=lambda place: theirs.get(found.ids[place]) != found.labels[place])
    scores = [] if found.scores is None else [found.score_name or "probability of the label"]
    others = [f"row {reference}'s prediction"] if theirs else []
    head = ["outcome", "example", "label", "prediction", *scores, *others]
    rows = [
        [
            "right" if correct[place] else "wrong",
            *map(_cut, (found.ids[place], found.labels[place], found.predictions[place])),
            *_score(found, place),
            *([_cut(theirs.get(found.ids[place]))] if theirs else []),
        ]
        for place in (*wrong[:_WRONG], *right)
    ]
    first = f", first what row {reference} gets right" if theirs else ""
    sentence = (
        f"{len(wrong):,} of {len(found):,} test examples are wrong with the first seed. Below: "
        f"{min(_WRONG, len(wrong))} of them{first}; then {len(right)} that are right."
    )
    return Section("", [sentence], Table(head, rows))


def _score(found: Predictions, place: int) -> list[str]:
    """The score of an example: of several classes the probability of its label."""
    if found.scores is None:
        return []
    if found.scores.ndim == 1:
        return [f"{found.scores[place]:.3f}"]
    name = f"probability:{found.labels[place]}"
    return [f"{found.scores[place, found.score_names.index(name)]:.3f}" if name in found.score_names else ""]


def _cut(text: str | None) -> str:
    return "(missing)" if text is None else text[:_TEXT]
