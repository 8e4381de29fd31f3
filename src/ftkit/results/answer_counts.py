"""Count the labels of a prediction file with the answers to them, and find classes that are hardly ever answered."""

from collections import Counter
from pathlib import Path

from ftkit.results.prediction_file import PredictionFile

LabelsAndAnswers = Counter[tuple[str | None, str | None]]  # how many examples have a label and an answer

_CLASSES = 20  # more labels are texts, not classes, or a list too long to read
_EXAMPLES = 5  # of a class: of fewer, none answered is no surprise
_RARELY = 10  # times as many examples as answers


def labels_and_answers(predictions: Path) -> LabelsAndAnswers:
    """Read how often each label has each answer; the label of an example without one is empty."""
    counts: LabelsAndAnswers = Counter()
    for batch in PredictionFile(predictions).batches(labeled=False):
        counts.update(zip(batch["label"].to_pylist(), batch["prediction"].to_pylist(), strict=True))
    return counts


def labels_in(counts: LabelsAndAnswers) -> Counter[str]:
    """Return how many examples have each label."""
    labels: Counter[str] = Counter()
    for (label, _), count in counts.items():
        if label:
            labels[label] += count
    return labels


def unanswered(counts: LabelsAndAnswers) -> str:
    """Return the classes that are answered less than a tenth as often as they are labels; empty if there are none."""
    labels, answers = labels_in(counts), Counter[str | None]()
    for (_, answer), count in counts.items():
        answers[answer] += count
    if len(labels) > _CLASSES:
        return ""
    rare = (name for name, count in sorted(labels.items()) if count >= max(_EXAMPLES, _RARELY * answers[name] + 1))
    found = ", ".join(f"{name} ({labels[name]:,} labels, {answers[name]:,} answers)" for name in rare)
    return found and f"hardly ever answered: {found}"
