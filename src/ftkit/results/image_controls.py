"""Judge whether a model looks at its images, by its answers when they are blank or swapped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ftkit.errors import InputError
from ftkit.results.predictions import Predictions, read_predictions
from ftkit.results.preferences import half_points, interval_of_counts, is_preference
from ftkit.results.statistics import Interval, clopper_pearson
from ftkit.results.verdict import Judgement, judge
from ftkit.run_folder import predictions_file

CONTROLS = ("blank", "swapped")
FEW = 0.05  # share of answers that change without the image, below which it is not looked at

Conclusion = Literal["looks at the image", "does not look at the image", "is not shown to look at the image"]


@dataclass(frozen=True)
class Control:
    """Hold the answers with other images beside those with the examples' own.

    Attributes:
        accuracy: Share of right answers; a tie of a pair counts as half.
        interval: Its 95% interval.
        changed: How many answers differ.
        changed_interval: The 95% interval of their share (Clopper and Pearson).
        judgement: Whether the own images are better, see :func:`ftkit.results.verdict.judge`.
    """

    accuracy: float
    interval: Interval
    changed: int
    changed_interval: Interval
    judgement: Judgement


@dataclass(frozen=True)
class ImageControls:
    """Hold what answers to the same questions with other images show.

    Attributes:
        n: Labeled examples that have images; no others count.
        accuracy: Share of right answers to them with their own images.
        interval: Its 95% interval.
        controls: ``blank`` and ``swapped``.
    """

    n: int
    accuracy: float
    interval: Interval
    controls: Mapping[str, Control]

    @property
    def conclusion(self) -> Conclusion:
        """Return whether the model looks at the image.

        Swapped images decide, because they resemble the training images; answers to a gray image may be anything. The
        model looks at the image if it is significantly more often right with an example's own image than with
        another's. It does not if it is not, and fewer than one answer in twenty changes, by the upper end of the
        interval (72 examples are needed where none changes). Otherwise nothing is shown: there are too few examples, or
        answers change with the image without being right more often.
        """
        swapped = self.controls["swapped"]
        if swapped.judgement.outcome == "better":
            return "looks at the image"
        if swapped.changed_interval[1] < FEW:
            return "does not look at the image"
        return "is not shown to look at the image"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "conclusion": self.conclusion}


def read_image_controls(folder: str | Path) -> ImageControls:
    """Read the test predictions of the run in a folder and of its controls, see ``ftkit test --controls``.

    Raises:
        InputError: A file is missing or damaged, or those of the controls hold examples that the run's own does not,
            or not the same ones.

    Example:
        >>> import tempfile
        >>> from ftkit import write_predictions
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("test", "test-blank", "test-swapped"):
        ...     answers = map(str, range(80)), ["yes", "no"] * 40, ["yes"] * 80
        ...     write_predictions(folder / predictions_file(name), *answers)
        >>> read_image_controls(folder).conclusion
        'does not look at the image'
    """
    real = read_predictions(Path(folder) / predictions_file("test"))
    points, places = half_points(real), {one: place for place, one in enumerate(real.ids)}
    asked: list[str] | None = None
    found = {}
    for name in CONTROLS:
        path = Path(folder) / predictions_file(f"test-{name}")
        other = read_predictions(path)
        asked = asked or other.ids
        if other.ids != asked or not places.keys() >= set(asked):
            problem, fix = "holds other examples than the run's own predictions", "run `ftkit test --controls` again"
            raise InputError(problem, file=path, field="id", fix=fix)
        labeled = [place for place, label in enumerate(other.labels) if label is not None]
        if not labeled:
            raise InputError("no example has a label", file=path, field="label")
        of_own = [places[asked[place]] for place in labeled]
        own, others = points[of_own], half_points(other)[labeled]
        changed = sum(real.predictions[a] != other.predictions[b] for a, b in zip(of_own, labeled, strict=True))
        judgement = judge((own - others)[None], answers=2)
        bounds = clopper_pearson(changed, len(labeled))
        found[name] = Control(*_accuracy(others, real), changed, bounds, judgement)
    return ImageControls(len(own), *_accuracy(own, real), found)


def _accuracy(points: np.ndarray, predictions: Predictions) -> tuple[float, Interval]:
    right, ties = int((points == 2).sum()), int((points == 1).sum())
    pairs = is_preference(predictions.labels, predictions.predictions)
    return float(points.mean()) / 2, interval_of_counts(len(points), right, ties if pairs else None)
