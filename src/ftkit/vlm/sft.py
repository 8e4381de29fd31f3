"""Supervised fine-tuning of a vision-language model, as a Lightning module."""

from typing import Any

from ftkit.errors import at_least
from ftkit.run_folder import SplitName
from ftkit.vlm.answers import relaxed_match
from ftkit.vlm.model import VLMModule


class VLMSFT(VLMModule):
    """A vision-language model that is trained on the answers of its examples.

    The loss is the mean cross-entropy of the answers' tokens, their ends among them. In evaluation the model answers
    every example greedily: ``val/accuracy``, ``test/accuracy`` and ``accuracy`` are exact matches,
    ``val/relaxed_accuracy``, ``test/relaxed_accuracy`` and the column ``relaxed_match`` of the prediction file are
    ChartQA's, which allow numbers to be off by ``tolerance``.

    Args:
        tolerance: Largest relative error of a number in a relaxed match.
        **options: Those of :class:`ftkit.vlm.model.VLMModule`.
    """

    def __init__(self, tolerance: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        at_least(0, tolerance=tolerance)
        self.tolerance = tolerance

    def evaluated(self, split: SplitName, batch: dict[str, Any]) -> dict[str, Any]:
        """Log ``SPLIT/loss``, ``SPLIT/accuracy`` and ``SPLIT/relaxed_accuracy``; return the predictions."""
        found = super().evaluated(split, batch)
        if found:
            right = found["columns"]["relaxed_match"]
            share = sum(value == "yes" for value in right) / len(right)
            self.log(f"{split}/relaxed_accuracy", share, batch_size=len(right), sync_dist=True)
        return found

    def predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch's predictions, with the column ``relaxed_match``."""
        found = super().predictions(batch)
        if found:
            pairs = zip(found["prediction"], found["label"], strict=True)
            near = ["yes" if relaxed_match(said, label, self.tolerance) else "no" for said, label in pairs]
            found["columns"] = {**found["columns"], "relaxed_match": near}
        return found
