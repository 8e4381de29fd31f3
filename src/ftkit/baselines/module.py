"""Lightning modules that are fitted once instead of trained by gradients."""

from abc import abstractmethod
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ftkit.errors import InputError
from ftkit.models.base_files import BaseFiles, Location
from ftkit.training.evaluation_metrics import MeasuredModule, Metrics
from ftkit.training.optimizer import Interval, Scheduler
from ftkit.training.recorder import add_to_result

_LEAST = 1e-7  # probability in a loss; an estimator may be certain


class _NoFiles(BaseFiles):
    def fingerprint(self) -> dict[str, str]:
        return {}


class Baseline(MeasuredModule):
    """A classifier that is fitted at once when a training starts; its training has one step, which changes nothing.

    A subclass says how it is fitted and what it predicts. Its checkpoint holds what it returns as its ``state``.

    Args:
        seed: Seed of whatever is drawn; null takes the one that ``seed_everything`` set.
        metrics: See :class:`ftkit.training.evaluation_metrics.MeasuredModule`.
    """

    default_epochs: ClassVar[int] = 1
    reads_texts: ClassVar[bool] = True  # the data module encodes nothing
    unsaved: ClassVar[list[str]] = ["features", "estimator", "search", "metrics"]  # no plain values
    revision: str | None = None
    scheduler: Scheduler = None
    scheduler_interval: Interval = "step"
    warmup: float = 0.0
    class_names: tuple[str, ...] = ("0", "1")

    def __init__(self, seed: int | None = None, metrics: Metrics | None = None) -> None:
        super().__init__(metrics)
        self.automatic_optimization = False
        self.save_hyperparameters(ignore=self.unsaved)  # those of the subclass too
        self.hparams["seed"] = self.seed = torch.initial_seed() if seed is None else seed
        self.fitted = False
        self.found: dict[str, Any] = {}  # what was chosen on validation, for the run's result

    @abstractmethod
    def fit(self, train: Dataset[Any], val: Dataset[Any]) -> None:
        """Fit on the train split; choices are made on the validation split."""

    @abstractmethod
    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the predicted classes, int64 (B,), and the probabilities (B, C), None if there are none."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what was fitted, as tensors and plain values."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""

    @property
    def base_options(self) -> dict[str, Any]:
        """Return what the base model is: none."""
        return {"source": "none"}

    @property
    def base_files(self) -> BaseFiles:
        """Return where the base model comes from: nowhere."""
        return _NoFiles(None, Location("none"))

    def configure_callbacks(self) -> list[L.Callback]:
        """Let the trainer accumulate and clip nothing, for there is no gradient."""
        self.trainer.accumulate_grad_batches, self.trainer.gradient_clip_val = 1, None
        return super().configure_callbacks()

    def configure_optimizers(self) -> Any:
        """Return an optimizer of nothing, by whose step Lightning counts that something was fitted."""
        return torch.optim.SGD([torch.zeros(1)], lr=1.0)

    def setup(self, stage: str) -> None:
        """Take over the classes from the data module, which has to be one of texts with classes."""
        classes = getattr(getattr(self.trainer, "datamodule", None), "class_names", None)
        if classes is None:
            fix = "use ftkit.TextClassificationDataModule or ftkit.SpamDataModule"
            raise InputError("needs a data module of texts with classes", field="data", fix=fix)
        if self.trainer.world_size > 1:
            raise InputError("is fitted in one process", field="trainer.devices", got=self.trainer.world_size, fix="1")
        if getattr(self.trainer.datamodule, "sampling", None):  # type: ignore[attr-defined]
            fix = "leave it out; many estimators take class_weight: balanced"
            raise InputError("is of epochs, and a baseline has none", field="data.sampling", fix=fix)
        if self.fitted and stage != "fit":
            self.refuse_other_classes(self.class_names, classes)
        self.class_names = classes
        self.measure_classes(len(classes))

    def on_fit_start(self) -> None:
        """Fit, unless a fitted checkpoint is resumed."""
        if not self.fitted or self.trainer.ckpt_path is None:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            with self.trainer.precision_plugin.forward_context():  # as evaluation steps run
                self.fit(data.datasets["train"], data.datasets["val"])
            self.fitted = True

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count the step and end the training: the whole train split was fitted when it started."""
        optimizer: Any = self.optimizers()
        optimizer.step()
        self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Record that this was a baseline, and what was chosen on validation."""
        add_to_result(self.trainer, baseline=True, **({"chosen": self.found} if self.found else {}))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Log ``val/accuracy`` and, if there are probabilities, ``val/loss``; return the predictions."""
        return self._evaluated(batch, "val/")

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Log the same of the test split; return the predictions of every split that ``test`` runs over."""
        return self._evaluated(batch, "test/" if self.is_test_split(dataloader_idx) else None)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return the predictions of a batch."""
        return self._evaluated(batch, None)

    def _evaluated(self, batch: dict[str, Any], prefix: str | None) -> dict[str, Any]:
        if not self.fitted:
            raise InputError("was never fitted", field="model", got=type(self).__name__, fix="fit it first")
        prediction, probability = self.predict(batch)
        label = batch["label"]
        prediction = prediction.to(label.device)
        found = {"id": batch["id"], "label": label, "prediction": prediction, "columns": batch.get("columns", {})}
        if probability is not None:
            probability = probability.float().to(label.device)
            found["probability"] = probability if probability.shape[1] > 2 else probability[:, 1]
        if prefix:
            figures = {"accuracy": (prediction == label).float().mean()}
            if probability is not None:
                figures["loss"] = F.nll_loss(probability.clamp_min(_LEAST).log(), label)
            logged = {f"{prefix}{name}": value for name, value in figures.items()}
            self.log_dict(logged, batch_size=len(label), add_dataloader_idx=False)
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was fitted, and the classes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = list(self.class_names)
        checkpoint["fitted"] = self.state() if self.fitted else None

    def pin_base(self, checkpoint: Any) -> None:
        """Take over the classes of a checkpoint, if there are no data yet."""
        if checkpoint.get("classes"):
            self.class_names = tuple(checkpoint["classes"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what was fitted, or refuse what another kind of model, or one of other classes, has written."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("fitted") is None:
            raise InputError("holds nothing that was fitted", file=self._file_of(checkpoint), fix="fit again")
        self.refuse_other_classes(tuple(checkpoint["classes"]), self.class_names, self._file_of(checkpoint))
        self.restore(checkpoint["fitted"])
        self.fitted = True
