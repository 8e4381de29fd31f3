"""``ftkit fit|validate|test|predict``: LightningCLI with ftkit's run folder, safe checkpoints and readable errors.

The same class runs one cell of an ablation, so a row gives the same files alone and in a sweep.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ftkit.classifier import module, spam  # noqa: F401  makes their classes known by their short names
from ftkit.errors import EnvironmentFault, ExitCode, FtkitError, InputError
from ftkit.parsing import ErrorMixin
from ftkit.storage import atomic_write, make_folder
from ftkit.training.checkpoint import AtomicCheckpointIO, TrainedStateModule, find_checkpoint, read_checkpoint
from ftkit.training.environment import code_sha256
from ftkit.training.guards import FiniteGuard
from ftkit.training.recorder import RunRecorder

DEFAULT_FOLDER = "runs/single"
SUBCOMMANDS = ("fit", "validate", "test", "predict")
LIGHTNINGS_OWN_CHECKPOINTS = ("best", "last", "hpc", "registry")  # words that it takes for a path


class Parser(ErrorMixin, LightningArgumentParser):
    """LightningCLI's parser with ftkit's errors."""


class RunConfig(SaveConfigCallback):
    """Writes the resolved ``config.yaml`` into the run folder; a ``test`` leaves that of its ``fit``.

    The folder's own path is left out: folders are moved, and a second run should choose its own.
    """

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file, whole or not at all."""
        target = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not target.exists():
            with atomic_write(target) as file:
                file.write(self.parser.dump(without_folder(self.config), skip_none=False))


class FtkitCLI(LightningCLI):
    """LightningCLI over any module and data module.

    Args:
        args: The command line without the program's name.
        run: Run the subcommand; otherwise only build ``trainer``, ``model`` and ``datamodule``.
        callbacks: Callbacks besides those of every run.
    """

    def __init__(self, args: Sequence[str], run: bool = True, callbacks: Sequence[L.Callback] = ()) -> None:
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={
                "default_root_dir": DEFAULT_FOLDER,
                "callbacks": [RunRecorder(), FiniteGuard(), *callbacks],
            },
            parser_class=Parser,
            seed_everything_default=123,
            auto_configure_optimizers=False,
            args=list(args),
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What the command line offers, with the arguments that LightningCLI fills in."""
        return {name: arguments for name, arguments in LightningCLI.subcommands().items() if name in SUBCOMMANDS}

    def _parse_ckpt_path(self) -> None:
        """Read the checkpoint safely, and refuse a wrong one, before Lightning takes hyperparameters from it."""
        chosen = self.config.get(self.config.get("subcommand") or "")
        path = chosen and chosen.get("ckpt_path")
        if path and path not in LIGHTNINGS_OWN_CHECKPOINTS:
            trained = read_checkpoint(path).get("hyper_parameters", {}).get("_class_path")
            if trained not in (None, chosen.model.class_path):
                raise InputError("is a checkpoint of another class", file=path, field="model.class_path", got=trained)
            chosen.ckpt_path = str(find_checkpoint(path))
        super()._parse_ckpt_path()

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses, jsonargparse would report as a type that does not match.

        Raises:
            FtkitError: What the constructor raised.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause and not isinstance(cause, FtkitError):
                cause = cause.__cause__
            raise cause or error from None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer: curves as CSV beside whatever logger is named, and checkpoints written whole."""
        chosen = self._get(self.config_init, "trainer")
        if 0 in (chosen.max_epochs, chosen.max_steps):
            raise InputError(
                "nothing would be trained", field="trainer.max_epochs", got=0, fix="train for at least 1 epoch"
            )
        if chosen.accumulate_grad_batches < 1:
            raise InputError(
                "must be at least 1", field="trainer.accumulate_grad_batches", got=chosen.accumulate_grad_batches
            )
        folder = chosen.default_root_dir
        training = self.subcommand in (None, "fit")
        if chosen.logger is not False:
            others = [] if chosen.logger in (None, True) else chosen.logger
            others = others if isinstance(others, list) else [others]
            # First, for the first logger decides where checkpoints go; always, for reports read the curves.
            curves = [CSVLogger(folder, name="", version="")] if training else []
            kwargs["logger"] = [*curves, *others]
        plugins = chosen.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            if "No supported" in str(error) or "not available" in str(error):
                raise EnvironmentFault(
                    str(error), field="trainer.accelerator", fix="for a CPU: --trainer.accelerator cpu"
                ) from error
            raise InputError(str(error), field="trainer") from error

    def _run_subcommand(self, subcommand: str) -> None:
        with termination_told():
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Find out that the run folder cannot be written before the weights are loaded."""
        make_folder(self.config_init[self.subcommand].trainer.default_root_dir)

    def before_test(self) -> None:
        """Take the weights that ``fit`` left in the run folder unless a checkpoint is named.

        Raises:
            InputError: There are none; Lightning would evaluate the model untrained.
        """
        chosen = self.config_init[self.subcommand]
        if chosen.ckpt_path is None and isinstance(self.model, TrainedStateModule):
            chosen.ckpt_path = str(find_checkpoint(chosen.trainer.default_root_dir))
        make_folder(chosen.trainer.default_root_dir)

    before_validate = before_predict = before_test

    def after_fit(self) -> None:
        """Report a termination that came too late for Lightning to stop at, see :func:`termination_told`."""
        if self.trainer.received_sigterm:
            raise SystemExit(ExitCode.TERMINATED)

    after_validate = after_test = after_predict = after_fit


@contextmanager
def termination_told() -> Iterator[None]:
    """Give a termination its exit code: Lightning stops at a safe point and exits as if all were done.

    Raises:
        SystemExit: The process was told to end by SIGTERM.
    """
    try:
        yield
    except SIGTERMException as stop:
        raise SystemExit(ExitCode.TERMINATED) from stop


def without_folder(config: Namespace) -> Namespace:
    """A copy of a configuration that does not say where its output goes."""
    copy = config.clone()
    copy.trainer.default_root_dir = None
    return copy


class CellEngine:
    """Runs the cells of an ablation; see :class:`ftkit.ablation.runner.Engine`.

    Args:
        on_step: Called with the steps taken and the steps to take while a cell trains.
    """

    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step
        for name in ("lightning.pytorch", "lightning.fabric"):  # the sweep tells what happens, a line a cell
            logging.getLogger(name).setLevel(logging.WARNING)

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        """What would be run: the resolved configuration without its output folder, the code, the data and the seed."""
        cli = self._build(configs, seed, Path(DEFAULT_FOLDER))
        config = json.loads(cli.parser.dump(without_folder(cli.config), format="json", skip_none=False))
        return {"config": config, "code": code_sha256(), "data": cli.datamodule.data_sha256, "seed": seed}

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Train and test one cell in ``directory``."""
        cli = self._build(configs, seed, directory)
        with termination_told():
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
            cli.after_fit()
            cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
            cli.after_test()

    def _build(self, configs: Sequence[Path], seed: int, directory: Path) -> FtkitCLI:
        arguments = [part for config in configs for part in ("--config", str(config))]
        arguments += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(directory)]
        # The sweep has its own bars.
        arguments += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        return FtkitCLI(arguments, run=False, callbacks=[_StepReporter(self.on_step)])


class _StepReporter(L.Callback):
    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.on_step(trainer.global_step, int(trainer.estimated_stepping_batches))
