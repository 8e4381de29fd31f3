"""Make the runs of an ablation: each is a training and a test through LightningCLI."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden

from ftkit.ablation.optuna_study import Pruning
from ftkit.config_files import read_config
from ftkit.errors import FtkitError, InputError
from ftkit.library_output import quiet_lightning
from ftkit.lightning_cli import FtkitCLI
from ftkit.lightning_errors import exit_on_termination, explain_refusals
from ftkit.run_config import config_arguments, without_folder
from ftkit.run_folder import CONFIG_FILE, RESULT_FILE, RUNS, is_trained, read_result
from ftkit.training.checkpoint import find_checkpoint, steps_of
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.environment import code_sha256, data_sha256
from ftkit.training.pruning import PruneUnpromising
from ftkit.training.resume import resumable
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
        """Train and test one run in ``directory``, where it goes on from what an interrupted attempt left."""
        if _holds_what_is_tested(directory):
            self.test(configs, seed, directory)
            return
        with self._trained(configs, seed, directory) as cli:
            best = find_checkpoint(directory) if cli.config.model_selection == "best" else None
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_test()

    def fit(self, configs: Sequence[Path], seed: int, directory: Path, pruning: Pruning | None = None) -> None:
        """Train one run in ``directory``, and validate the checkpoint that a test would take.

        Raises:
            Pruned: ``pruning`` stopped it early.
        """
        if is_trained(directory):
            self._evaluate("validate", configs, seed, directory)
            return
        with self._trained(configs, seed, directory, pruning) as cli:
            best = find_checkpoint(directory)
            cli.trainer.validate(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_validate()

    def test(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Test what :meth:`fit` left in ``directory``."""
        self._evaluate("test", configs, seed, directory)

    def _evaluate(
        self, command: Literal["validate", "test"], configs: Sequence[Path], seed: int, directory: Path
    ) -> None:
        cli = self._build(configs, seed, directory)
        _end_curves(cli.trainer)
        with exit_on_termination(), explain_refusals():
            evaluate, best = getattr(cli.trainer, command), find_checkpoint(directory)
            evaluate(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
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
            before_those_that_save = len(callbacks) - len(cli.trainer.checkpoint_callbacks)
            callbacks.insert(before_those_that_save, PruneUnpromising(pruning.trial(), pruning.monitor))
        with exit_on_termination(), explain_refusals():
            _fit(cli, _checkpoint_to_go_on_from(directory))
            _end_curves(cli.trainer)
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


def _holds_what_is_tested(directory: Path) -> bool:
    """Return whether a training is finished, and the checkpoint holds the weights that are tested after it."""
    if not is_trained(directory):
        return False
    if read_config(directory / CONFIG_FILE)["model_selection"] == "best":
        return True
    return steps_of(find_checkpoint(directory)) == read_result(directory / RESULT_FILE)["steps"]


def _checkpoint_to_go_on_from(directory: Path) -> Path | None:
    """Return the checkpoint of an interrupted attempt; what it left without one to go on from is removed."""
    checkpoint, _ = resumable(directory)
    if checkpoint is None:
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return checkpoint


def _fit(cli: FtkitCLI, checkpoint: Path | None) -> None:
    """Train; a process that is told to end first saves what the next attempt goes on from.

    Raises:
        SystemExit: It was told to end.
    """
    cli.trainer.callbacks.insert(0, cli.safe_stop)  # type: ignore[attr-defined]
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    except Exception as error:
        if cli.safe_stop.received is not None:  # a library made an error of its own of it, or nothing could be saved
            if isinstance(error, FtkitError):
                print(f"error: {error}", file=sys.stderr)
            raise SystemExit(128 + cli.safe_stop.received) from error
        raise
    cli.after_fit()


def _end_curves(trainer: L.Trainer) -> None:
    """Let an evaluation add nothing to the curves, which are those of the training."""
    trainer.loggers = [logger for logger in trainer.loggers if not isinstance(logger, CurvesLogger)]


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
