"""Metrics as an argument of a module: one clone a split, over what the evaluation steps return."""

from collections.abc import ItemsView, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassF1Score

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.binary import BinaryEvaluator, in_double
from ftkit.results.metrics import UNPARSED
from ftkit.training.lightning_internals import attached_trainer
from ftkit.training.trained_state import TrainedStateModule

Metrics: TypeAlias = Metric | MetricCollection | dict[str, Metric]

_LOGGED_BY_MODULES = {"loss", "accuracy"}


class MeasuredModule(TrainedStateModule):
    """A module that tells classes apart and logs metrics of its choice, as ``val/NAME`` and ``test/NAME``.

    The metrics are given what the evaluation steps return for the prediction file, see
    :class:`ftkit.training.recorder.RunRecorder`: ``preds``, of two classes the probability of the positive one, float
    (B,), of more that of each class, float (B, C), and where there is none the predicted class, int64 (B,); and
    ``target``, int64 (B,), the class; of two 1 is the positive one.
    Metrics whose ``update`` takes them also get ``answers``, int64 (B,), the predicted class, -1 for none of them, and
    ``ids``, list of B str. They are computed once an evaluation, over all processes; no checkpoint holds them.

    Args:
        metrics: Any torchmetrics metric, or several: a ``MetricCollection``, or a mapping of names to metrics. The
            names ``loss`` and ``accuracy`` are taken by the module. Null takes :class:`ftkit.BinaryEvaluator`, or of
            more than two classes the macro F1 (the micro F1 is the accuracy), for validation alone: of a test,
            ``ftkit evaluate`` finds its figures in the prediction file.
        **options: Those of the next class.

    Raises:
        InputError: A metric has one of the module's own names.
    """

    class_names: tuple[str, ...]  # of two the negative one first

    def __init__(self, metrics: Metrics | None = None, **options: Any) -> None:
        super().__init__(**options)
        clones = _clones(BinaryEvaluator(), "val/") if metrics is None else _clones(metrics, "val/", "test/")
        self.metrics, self._by_default = nn.ModuleDict(clones), metrics is None

    def measure_classes(self, classes: int) -> None:
        """Choose the default metrics for a number of classes, or refuse a given one that does not take so many."""
        if self._by_default:
            if classes > 2:
                macro = MulticlassF1Score(classes, average="macro")
                self.metrics = nn.ModuleDict(_clones({"macro_f1": macro}, "val/"))
            return
        expected, kind = (None, "Binary") if classes == 2 else (classes, "Multiclass")
        for name, metric in self.metrics["val/"].items(keep_base=True):  # type: ignore[operator]
            got = type(metric).__name__
            if getattr(metric, "num_classes", expected) != expected or (expected and got.startswith("Binary")):
                number = f", and num_classes {classes}" if expected else ""
                problem, fix = (
                    f"does not take the probabilities of {classes} classes",
                    f"use one called {kind}...{number}",
                )
                raise InputError(problem, field=f"metrics.{name}", got=got, fix=fix)

    @staticmethod
    def refuse_other_classes(trained: Sequence[str], now: Sequence[str], file: str | Path | None = None) -> None:
        """Refuse data of other classes, or of another order, than those of a training."""
        if trained != now:
            problem, got = f"was trained on the classes {', '.join(trained)}", ", ".join(now)
            fix, field = "use data of these classes, in the same order (labels)", "data" if file is None else None
            raise InputError(problem, file=file, field=field, got=got, fix=fix)

    def on_validation_epoch_start(self) -> None:
        """Forget an earlier evaluation, also one that was interrupted."""
        for _, collection in self._collections():
            collection.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of the validation split."""
        if dataloader_idx == 0:
            self._measure("val/", outputs)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch, if it is of the test split; others that ``test`` runs over have their prediction files."""
        if "test/" in self.metrics and self.is_test_split(dataloader_idx):
            self._measure("test/", outputs)

    def is_test_split(self, dataloader_idx: int) -> bool:
        """Return whether a loader that ``test`` runs over is that of the test split."""
        splits = getattr(getattr(attached_trainer(self), "datamodule", None), "evaluate_splits", ("test",))
        return list(splits)[dataloader_idx : dataloader_idx + 1] == ["test"]

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of what was evaluated; an undefined figure is NaN, and one that is no number is refused."""
        for prefix, collection in self._collections():
            figures = collection.compute() if any(one.update_called for one in collection.values()) else {}
            for name, value in figures.items():
                if getattr(value, "numel", lambda: 0)() != 1:
                    got, fix = type(value).__name__, "use one that comes to a number, such as an area"
                    raise InputError("is more than a number", field=f"metrics: {name}", got=got, fix=fix)
                if name.removeprefix(prefix) not in _LOGGED_BY_MODULES:
                    self.log(name, value)

    on_test_epoch_end = on_validation_epoch_end

    def _measure(self, prefix: str, outputs: Any) -> None:
        if not isinstance(outputs, Mapping) or "id" not in outputs:
            return
        target, answers = (self._codes(outputs[name]) for name in ("label", "prediction"))
        preds = outputs.get("probability", answers)
        if "score" in outputs:  # in float64 a sigmoid keeps the order of log-odds up to 36
            preds = in_double(outputs["score"]).sigmoid()
        dict(self._collections())[prefix].update(preds, target, ids=outputs["id"], answers=answers)

    def _collections(self) -> ItemsView[str, Any]:
        return self.metrics.items()

    def _codes(self, classes: Tensor | list[str]) -> Tensor:
        """Classes (B,) as int64 by their place, -1 for none of them."""
        if isinstance(classes, Tensor):
            return classes
        known = {normalize(name): code for code, name in enumerate(self.class_names)}
        return torch.tensor([known.get(name, UNPARSED) for name in classes], device=self.device)


def _clones(metrics: Metrics, *prefixes: str) -> dict[str, MetricCollection]:
    """Return a collection for each prefix, such as ``val/``."""
    if not isinstance(metrics, MetricCollection):
        # Groups are found by comparing the states after one batch, where different metrics can agree by chance.
        several: Any = metrics if isinstance(metrics, dict) else [metrics]
        metrics = MetricCollection(several, compute_groups=False)
    if taken := _LOGGED_BY_MODULES.intersection(metrics.keys(keep_base=True)):
        raise InputError("is logged by the module itself", field=f"metrics.{taken.pop()}", fix="choose another name")
    return {prefix: metrics.clone(prefix=prefix) for prefix in prefixes}
