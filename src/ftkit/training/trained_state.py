"""A LightningModule whose checkpoints hold what was trained, and the identity of the frozen base."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable

from ftkit.errors import InputError
from ftkit.models.base_files import BaseFiles, differing_files
from ftkit.run_folder import FORMAT
from ftkit.training.callback_checks import refuse_callbacks
from ftkit.training.checkpoint import find_checkpoint, load_checkpoint, trainable_parameters
from ftkit.training.export import read_trained
from ftkit.training.lightning_internals import attached_trainer
from ftkit.training.optimizer import Interval, Scheduler, configured_optimizers
from ftkit.training.schedule import check_schedules
from ftkit.training.stored_options import named, read_options

DEFAULT_EPOCHS = 3  # of the commands, where nothing says how long to train


class TrainedStateModule(L.LightningModule):
    """A LightningModule whose checkpoints hold the trainable parameters and the identity of the frozen base."""

    default_epochs: ClassVar[int] = DEFAULT_EPOCHS
    revision: str | None  # of the base model, if it is on the hub
    optimizer: OptimizerCallable
    scheduler: Scheduler
    scheduler_interval: Interval
    warmup: float

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False  # the frozen weights come from the base; on_load_checkpoint compares the keys
        self.lr: float | None = None  # set by Lightning's LearningRateFinder; replaces the optimizer's own rate

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the trainable parameters, and its scheduler if there is one."""
        parameters = trainable_parameters(self).values()
        schedule = (self.scheduler, self.lr, self.scheduler_interval, self.warmup)
        return configured_optimizers(
            parameters, self.make_optimizer, *schedule, lambda: self.trainer.estimated_stepping_batches
        )

    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Make the optimizer of some parameters."""
        return self.optimizer(parameters)

    def configure_callbacks(self) -> list[L.Callback]:
        """Add none, and refuse those that cannot do their work; Lightning asks before anything is set up."""
        refuse_callbacks(self.trainer, self, ours=True)
        return []

    def on_fit_start(self) -> None:
        """Apply a learning rate that was found, and compare the schedule with the length of the training."""
        if self.lr is not None:  # Lightning has changed the optimizer alone
            self.trainer.strategy.setup_optimizers(self.trainer)
        check_schedules(self.trainer)

    def log(
        self, name: str, value: Any, *args: Any, batch_size: int | None = None, sync_dist: bool = False, **options: Any
    ) -> None:
        """Log a figure, as in Lightning; a mean over processes weighs each by its ``batch_size``.

        Lightning averages the sizes in whole numbers, so that 2 and 1 would count as 1 each.
        """
        if sync_dist and batch_size is not None and (trainer := attached_trainer(self)) is not None:
            batch_size *= trainer.world_size
        super().log(name, value, *args, batch_size=batch_size, sync_dist=sync_dist, **options)  # type: ignore[misc]

    @property
    @abstractmethod
    def base_options(self) -> dict[str, Any]:
        """What the frozen weights are made from, as the options say it, in plain values."""

    @property
    @abstractmethod
    def base_files(self) -> BaseFiles:
        """Where they come from."""

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """The contents of the base model's files, as they were when they were loaded; or as they are now."""
        return self.base_files.fingerprint()

    @property
    def base(self) -> dict[str, Any]:
        """The identity of the base model, as plain values: its name and the contents of its files."""
        return {**self.base_options, "fingerprint": self.fingerprint}

    def keep_fingerprint(self) -> None:
        """Note the contents of the base model that was loaded just now."""
        self.fingerprint = self.base_files.fingerprint()

    def pin_base(self, checkpoint: Mapping[str, Any]) -> None:
        """Choose the commit that a checkpoint was trained on, if the base model is on the hub and no revision is given.

        Nothing of the base model is loaded yet.
        """
        if self.revision is None:
            self.revision = commit_trained_on(checkpoint)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu", **changes: Any) -> Self:
        """Load a tuned model from a ``.ckpt`` file, or from the run folder that holds it, in evaluation mode.

        Args:
            path: See :func:`find_checkpoint`; or the folder of a classifier that ``ftkit push`` wrote.
            device: Where the model goes.
            **changes: Constructor arguments that differ from those of training, such as ``quantization``.

        Raises:
            InputError: There is no checkpoint, it is damaged, or it does not fit its base model.
            UnavailableError: The base model cannot be had.
        """
        return cls.restored(read_trained(path), device, **changes)

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, map_location: Any = None, hparams_file: Any = None,
        strict: bool | None = None, weights_only: bool | None = None, **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Load a tuned model as Lightning's method does: in training mode, on the device of its weights.

        Lightning's own builds the network before it has looked into the checkpoint for classes and commit. What was
        trained is always compared (``strict``), code always refused (``weights_only``); the rest is as in :meth:`load`.
        """
        if hparams_file is not None:
            raise InputError("is not taken", field="hparams_file", fix="name the arguments that differ")
        checkpoint = load_checkpoint(find_checkpoint(checkpoint_path), map_location)
        device = next((value.device for value in checkpoint["state_dict"].values()), "cpu")
        return cls._built(checkpoint, device, **kwargs)

    @classmethod
    def restored(cls, checkpoint: dict[str, Any], device: torch.device | str = "cpu", **changes: Any) -> Self:
        """Return the tuned model that a checkpoint holds; the rest is as in :meth:`load`."""
        return cls._built(checkpoint, device, **changes).eval()

    @classmethod
    def _built(cls, checkpoint: dict[str, Any], device: torch.device | str, **changes: Any) -> Self:
        file = checkpoint.get("file")
        options = read_options(cls, checkpoint.get("hyper_parameters"), file, "hyper_parameters", changes)
        with named(file, cls):
            module = cls(**{**options, **changes}).to(device)
            module.pin_base(checkpoint)
            module.configure_model()
            module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=False)
        return module.to(device)

    @property
    def root_device(self) -> torch.device:
        """Where the network is going to be: a quantized one is put together there, for it should not be moved."""
        return self.device if (trainer := attached_trainer(self)) is None else trainer.strategy.root_device

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop the frozen weights; add the base's identity, and the class for those who find only the file."""
        if state := checkpoint["state_dict"]:  # of sharded weights only the first process has it
            checkpoint["state_dict"] = {name: state[name] for name in trainable_parameters(self)}
        checkpoint |= {"base": self.base, "format": FORMAT}
        if self.lr is not None:
            checkpoint["lr"] = self.lr
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare base, names and shapes before anything is loaded.

        Raises:
            InputError: The checkpoint belongs to another base, or trained other parameters.
        """
        self.lr = checkpoint.get("lr", self.lr)
        self.refuse_other_base(checkpoint)
        own, stored = trainable_parameters(self), checkpoint["state_dict"]
        wrong = {
            "missing": own.keys() - stored.keys(),
            "unexpected": stored.keys() - own.keys(),
            "of another shape": {name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape},
        }
        if any(wrong.values()):
            listing = "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in wrong.items() if names)
            raise InputError(
                f"the checkpoint does not fit the model: {listing}",
                file=self._file_of(checkpoint),
                fix="use the options that the checkpoint was trained with",
            )

    def refuse_other_base(self, checkpoint: dict[str, Any]) -> None:
        """Compare the base model of a checkpoint with that of this module, by name and by contents.

        Raises:
            InputError: They differ.
        """
        stored, commit = checkpoint.get("base"), commit_trained_on(checkpoint)
        before = stored.get("fingerprint", {}) if isinstance(stored, dict) else {}
        unsaid = {"fingerprint", "revision"} if commit else {"fingerprint"}  # the commit says what the revision was
        if _without(stored, unsaid) != _without(self.base, unsaid):
            raise InputError(
                f"the checkpoint was trained on another base than {self.base_options}",
                file=self._file_of(checkpoint),
                field="base",
                got=stored,
            )
        if before != self.fingerprint:
            raise InputError(
                "the base model is not the one that the checkpoint was trained on: "
                + differing_files(before, self.fingerprint),
                file=self._file_of(checkpoint),
                field="base",
                fix=("put the former one back under its name" if commit is None else f"load its revision {commit}")
                + ", or train again",
            )

    def _file_of(self, checkpoint: Mapping[str, Any]) -> str | Path | None:
        trainer = attached_trainer(self)
        return checkpoint.get("file", trainer and trainer.ckpt_path)


def commit_trained_on(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the commit on the hub of the base model that a checkpoint was trained on; None if it was not there."""
    base = checkpoint.get("base")
    fingerprint = base.get("fingerprint") if isinstance(base, dict) else None
    return fingerprint.get("commit") if isinstance(fingerprint, dict) else None


def _without(base: Any, names: set[str]) -> Any:
    return {key: value for key, value in base.items() if key not in names} if isinstance(base, dict) else base


def _first(names: Iterable[str], limit: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", …" if len(ordered) > limit else "")
