"""Checkpoints that hold what was trained: small, written whole, checked when they are read, and never run as code."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.models.base_files import BaseFiles, differing_files
from ftkit.run_folder import BEST_CHECKPOINT, CONFIG_FILE, FORMAT, refuse_other_format
from ftkit.storage import CHECKSUM_SUFFIX, atomic_write, verify_checksum
from ftkit.training.callback_checks import refuse_callbacks
from ftkit.training.lightning_internals import attached_trainer
from ftkit.training.optimizer import Interval, Scheduler, configured_optimizers
from ftkit.training.schedule import check_schedules

DEFAULT_EPOCHS = 3  # of the commands, where nothing says how long to train
INTERRUPTED = "interrupted.ckpt"  # what a training that was told to stop leaves, see SafeStop


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside the target and renamed, with a checksum that is verified on load.

    Lightning's own transaction builds its temporary file in the system's folder for them and moves it over the old
    checkpoint, so that a full disk can destroy the good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``: the old file stays until the new one is whole."""
        with atomic_write(path, "wb", checksum=True) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # its writer notices that it could not finish the file, and says only that
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None

    def load_checkpoint(
        self, path: Any, map_location: Any | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as data: tensors and plain values. Code in it is refused whatever ``weights_only`` says."""
        return _load(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint with its checksum."""
        super().remove_checkpoint(path)
        Path(f"{path}{CHECKSUM_SUFFIX}").unlink(missing_ok=True)


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
            parameters, self.optimizer, *schedule, lambda: self.trainer.estimated_stepping_batches
        )

    def configure_callbacks(self) -> list[L.Callback]:
        """Add none, and refuse those that cannot do their work; Lightning asks before anything is set up.

        Raises:
            InputError: There is one.
        """
        refuse_callbacks(self.trainer, self, ours=True)
        return []

    def on_fit_start(self) -> None:
        """Apply a learning rate that was found, and compare the schedule with the length of the training.

        Raises:
            InputError: The schedule could not be stepped on to the end of the training.
        """
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

        Args:
            checkpoint: The checkpoint; nothing of the base model is loaded yet.
        """
        if self.revision is None:
            self.revision = commit_trained_on(checkpoint)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu", **changes: Any) -> Self:
        """Load a tuned model from a checkpoint, or from the run folder that holds it.

        Args:
            path: A ``.ckpt`` file, or a folder with ``checkpoints/*.ckpt``.
            device: Where the model goes.
            **changes: Constructor arguments that differ from those of training, such as ``quantization``.

        Returns:
            The module in evaluation mode.

        Raises:
            InputError: There is no checkpoint, it is damaged, or it does not fit its base model.
            UnavailableError: The base model cannot be had.
        """
        return cls.restored(read_checkpoint(path), device, **changes)

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
        checkpoint = _load(find_checkpoint(checkpoint_path), map_location)
        device = next((value.device for value in checkpoint["state_dict"].values()), "cpu")
        return cls._built(checkpoint, device, **kwargs)

    @classmethod
    def restored(cls, checkpoint: dict[str, Any], device: torch.device | str = "cpu", **changes: Any) -> Self:
        """Return the tuned model that a checkpoint holds; the rest is as in :meth:`load`."""
        return cls._built(checkpoint, device, **changes).eval()

    @classmethod
    def _built(cls, checkpoint: dict[str, Any], device: torch.device | str, **changes: Any) -> Self:
        options = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
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

    def _file_of(self, checkpoint: dict[str, Any]) -> str | Path | None:
        trainer = attached_trainer(self)
        return checkpoint.get("file", trainer and trainer.ckpt_path)


def commit_trained_on(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the commit on the hub of the base model that a checkpoint was trained on; None if it was not there."""
    base = checkpoint.get("base")
    fingerprint = base.get("fingerprint") if isinstance(base, dict) else None
    return fingerprint.get("commit") if isinstance(fingerprint, dict) else None


def _without(base: Any, names: set[str]) -> Any:
    return {key: value for key, value in base.items() if key not in names} if isinstance(base, dict) else base


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a path means.

    Args:
        path: A ``.ckpt`` file, or a run folder: its ``checkpoints/last.ckpt``, or else its newest
            ``checkpoints/*.ckpt``; or ``checkpoints/best.ckpt`` if its ``config.yaml`` says ``model_selection: best``.
            That of a training that was interrupted is not meant.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    found = sorted((path / "checkpoints").glob("*.ckpt"), key=lambda ckpt: (ckpt.stem == "last", ckpt.stat().st_mtime))
    if [ckpt.name for ckpt in found] == [INTERRUPTED]:
        raise InputError("its training was interrupted", file=path, fix="finish it: the same fit with --resume true")
    config = path / CONFIG_FILE
    best = config.is_file() and read_config(config).get("model_selection") == "best"
    found = [ckpt for ckpt in found if (ckpt.name == BEST_CHECKPOINT if best else ckpt.name != INTERRUPTED)]
    if not found:
        named = BEST_CHECKPOINT if best else "*.ckpt"
        problem = f"holds no checkpoints/{named}" if path.is_dir() else "no such checkpoint"
        raise InputError(problem, file=path, fix="train first, or name the checkpoint itself")
    return found[-1]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU.

    Args:
        path: A ``.ckpt`` file or a run folder, see :func:`find_checkpoint`.

    Raises:
        InputError: There is none, it is damaged, or it holds more than tensors and plain values.
    """
    return _load(find_checkpoint(path), "cpu")


def _load(path: Path, map_location: Any) -> dict[str, Any]:
    """Return what a checkpoint holds, with the ``file`` that it came from."""
    if not path.is_file():
        raise InputError("no such checkpoint", file=path)
    verify_checksum(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "holds more than tensors and plain values (it is read with weights_only), or is damaged", file=path
        ) from error
    except (OSError, EOFError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"cannot be read as a checkpoint: {error}", file=path, fix=_newest_other(path)) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError("is not a Lightning checkpoint", file=path)
    if "base" in checkpoint:  # of a module of ftkit's
        refuse_other_format(checkpoint.get("format"), path)
    return {**checkpoint, "file": str(path)}


def _newest_other(path: Path) -> str:
    others = [file for file in path.parent.glob("*.ckpt") if file != path and file.stat().st_size]
    if not others:
        return "train again"
    return f"try {max(others, key=lambda file: file.stat().st_mtime)}"


def _first(names: Iterable[str], limit: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", …" if len(ordered) > limit else "")
