"""Find classes that a model hardly ever answers, which its accuracy alone does not show."""

from collections import Counter
from pathlib import Path

from ftkit.results.prediction_file import PredictionFile

_CLASSES = 20  # more labels are texts, not classes, or a list too long to read
_EXAMPLES = 5  # of a class: of fewer, none answered is no surprise
_RARELY = 10  # times as many examples as answers


def unanswered(predictions: Path) -> str:
    """Return the classes that are answered less than a tenth as often as they are labels; empty if there are none."""
    labels: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for batch in PredictionFile(predictions).batches(labeled=False):
        labels.update(filter(None, batch["label"].to_pylist()))
        answers.update(batch["prediction"].to_pylist())
    if len(labels) > _CLASSES:
        return ""
    rare = (name for name, count in sorted(labels.items()) if count >= max(_EXAMPLES, _RARELY * answers[name] + 1))
    found = ", ".join(f"{name} ({labels[name]:,} labels, {answers[name]:,} answers)" for name in rare)
    return found and f"hardly ever answered: {found}"
