"""Make the runs of an ablation: each is a training and a test through LightningCLI."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden

from ftkit.ablation.optuna_study import Pruning
from ftkit.errors import InputError
from ftkit.library_output import quiet_lightning
from ftkit.lightning_cli import FtkitCLI
from ftkit.lightning_errors import exit_on_termination, explain_refusals
from ftkit.run_config import config_arguments, without_folder
from ftkit.run_folder import RESULT_FILE, RUNS, read_result
from ftkit.training.checkpoint import find_checkpoint
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.environment import code_sha256, data_sha256
from ftkit.training.pruning import PruneUnpromising
from ftkit.training.trained_state import TrainedStateModule


class LightningEngine:
    """Makes the runs of an ablation; see :class:`ftkit.ablation.runner.Engine`.

    Args:
        on_step: Called with the steps taken and the steps to take while a run trains.
    """

    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step
        quiet_lightning()  # the sweep reports one line per run

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without what shows the progress here."""
        return LightningEngine, (_unseen,)

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        """Return what would be run: resolved configuration without its output folder, base, code, data and seed."""
        cli = self._build(configs, seed, RUNS)
        splits = getattr(cli.datamodule, "evaluate_splits", None)
        if splits is not None and "test" not in splits:
            problem = "the rows of an ablation are compared on test"
            raise InputError(problem, field="data.evaluate_splits", got=list(splits), fix="add test")
        _refuse_untested(cli)
        config = json.loads(cli.parser.dump(without_folder(cli.config), format="json", skip_unset=False))
        base = cli.model.base if isinstance(cli.model, TrainedStateModule) else None
        data = data_sha256(cli.datamodule)
        callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
        measured = [known for one in callbacks if (known := data_sha256(one))]
        found = {"config": config, "base": base, "code": code_sha256(), "data": data, "seed": seed}
        others = {"measured_data": measured, "adapter": getattr(cli.model, "started_from", None)}
        return found | {name: known for name, known in others.items() if known}

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Train and test one run in ``directory``."""
        with self._trained(configs, seed, directory) as cli:
            best = find_checkpoint(directory) if cli.config.model_selection == "best" else None
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_test()

    def fit(self, configs: Sequence[Path], seed: int, directory: Path, pruning: Pruning | None = None) -> None:
        """Train one run in ``directory``, and validate the checkpoint that a test would take.

        Raises:
            Pruned: ``pruning`` stopped it early.
        """
        with self._trained(configs, seed, directory, pruning) as cli:
            best = find_checkpoint(directory)
            cli.trainer.validate(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_validate()

    def test(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Test what :meth:`fit` left in ``directory``."""
        cli = self._build(configs, seed, directory)
        # The curves are those of the training.
        cli.trainer.loggers = [logger for logger in cli.trainer.loggers if not isinstance(logger, CurvesLogger)]
        with exit_on_termination(), explain_refusals():
            best = find_checkpoint(directory)
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_test()

    @contextmanager
    def _trained(
        self, configs: Sequence[Path], seed: int, directory: Path, pruning: Pruning | None = None
    ) -> Iterator[FtkitCLI]:
        cli = self._build(configs, seed, directory)
        if not isinstance(cli.model, TrainedStateModule):
            self._rehearse(configs, seed)
            cli = self._build(configs, seed, directory)  # as if nothing had been drawn
        if pruning is not None:
            callbacks: list[L.Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
            callbacks.append(PruneUnpromising(pruning.trial(), pruning.monitor))
        with exit_on_termination(), explain_refusals():
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
            cli.after_fit()
            yield cli

    def _rehearse(self, configs: Sequence[Path], seed: int) -> None:
        """Test a module of one's own on a batch, before it is trained for a test that says nothing.

        Raises:
            InputError: There would be neither predictions nor metrics.
        """
        with TemporaryDirectory(prefix="ftkit-rehearsal-") as folder, explain_refusals():
            cli = self._build(configs, seed, Path(folder), "--trainer.fast_dev_run", "true")
            cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
            result = read_result(Path(folder) / RESULT_FILE)
        if not result.get("splits") and not result["metrics"]["test"]:
            problem = "the test leaves nothing to compare: test_step logs no metric and returns no predictions"
            fix = "log figures with self.log, or return id, label and prediction to be compared example by example"
            raise InputError(problem, field="model", got=type(cli.model).__name__, fix=fix)

    def _build(self, configs: Sequence[Path], seed: int, directory: Path, *more: str) -> FtkitCLI:
        arguments = [*config_arguments(configs), "--seed_everything", str(seed)]
        arguments += ["--trainer.default_root_dir", str(directory)]
        # The sweep has its own bars.
        arguments += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        return FtkitCLI([*arguments, *more], run=False, callbacks=[_StepReporter(self.on_step)])


def _refuse_untested(cli: FtkitCLI) -> None:
    """Refuse what cannot be tested at all, before any row is run."""
    for field, part, hook in (("model", cli.model, "test_step"), ("data", cli.datamodule, "test_dataloader")):
        if not is_overridden(hook, part):
            raise InputError(f"has no {hook}, and rows are compared on test", field=field, got=type(part).__name__)


def _unseen(completed: int, total: int) -> None:
    """Ignore the steps, which nobody watches."""


class _StepReporter(L.Callback):
    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.on_step(trainer.global_step, int(trainer.estimated_stepping_batches))
