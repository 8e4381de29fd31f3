"""``ftkit fit|validate|test|predict``: LightningCLI with ftkit's run folder, safe checkpoints and readable errors.

The same class runs one cell of an ablation, so a row gives the same files alone and in a sweep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from ftkit.classifier import module, spam  # noqa: F401  makes their classes known by their short names
from ftkit.errors import EnvironmentFault, ExitCode, InputError
from ftkit.parsing import ErrorMixin
from ftkit.storage import atomic_write
from ftkit.training.callbacks import FiniteGuard, RunRecorder
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.environment import code_sha256

DEFAULT_FOLDER = "runs/single"
SUBCOMMANDS = ("fit", "validate", "test", "predict")


class Parser(ErrorMixin, LightningArgumentParser):
    """LightningCLI's parser with ftkit's errors; options cannot be abbreviated, since a misspelt one could be meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class RunConfig(SaveConfigCallback):
    """Writes the resolved ``config.yaml`` into the run folder; a ``test`` leaves that of its ``fit``."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file, whole or not at all."""
        target = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not target.exists():
            with atomic_write(target) as file:
                file.write(self.parser.dump(self.config, skip_none=False))


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

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer: curves as CSV unless a logger is named, and checkpoints written whole."""
        chosen = self._get(self.config_init, "trainer")
        if 0 in (chosen.max_epochs, chosen.max_steps):
            raise InputError(
                "nothing would be trained", field="trainer.max_epochs", got=0, fix="train for at least 1 epoch"
            )
        folder = chosen.default_root_dir
        training = self.subcommand in (None, "fit")
        if chosen.logger in (None, True):
            kwargs["logger"] = CSVLogger(folder, name="", version="") if training else False
        plugins = chosen.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise EnvironmentFault(str(error), field="trainer", fix="for a CPU: --trainer.accelerator cpu") from error

    def after_fit(self) -> None:
        """Report a termination as such: Lightning stops at a safe point and returns as if all were done."""
        if self.trainer.received_sigterm:
            raise SystemExit(ExitCode.TERMINATED)

    after_validate = after_test = after_predict = after_fit


class CellEngine:
    """Runs the cells of an ablation; see :class:`ftkit.ablation.runner.Engine`.

    Args:
        on_step: Called with the steps taken and the steps to take while a cell trains.
    """

    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        """What would be run: the resolved configuration without its output folder, the code, the data and the seed."""
        cli = self._build(configs, seed, Path(DEFAULT_FOLDER))
        config = json.loads(cli.parser.dump(cli.config, format="json", skip_none=False))
        del config["trainer"]["default_root_dir"]
        return {"config": config, "code": code_sha256(), "data": cli.datamodule.data_sha256, "seed": seed}

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Train and test one cell in ``directory``."""
        cli = self._build(configs, seed, directory)
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
