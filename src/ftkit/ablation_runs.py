"""Run an ablation: each run is a training and a test through LightningCLI."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden

from ftkit.ablation.executor import Engine, one_by_one
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ray_executor import on_ray
from ftkit.ablation.runner import ERROR_FILE, Event, Summary, run
from ftkit.ablation.search import SEARCH_FILE, Search
from ftkit.ablation.tuning import tune
from ftkit.config_files import read_config
from ftkit.errors import EnvironmentFault, ExitCode, InputError, TrainingFailed
from ftkit.library_output import quiet_lightning
from ftkit.lightning_cli import FtkitCLI
from ftkit.lightning_errors import exit_on_termination, explain_refusals
from ftkit.report.sweep_progress import SweepProgress
from ftkit.run_config import config_arguments, without_folder
from ftkit.run_folder import RESULT_FILE, RUNS
from ftkit.training.checkpoint import TrainedStateModule, find_checkpoint
from ftkit.training.environment import code_sha256, data_sha256
from ftkit.training.recorder import read_result


class Ablation:
    """An ablation folder that is run from Python, as ``ftkit ablation run`` does.

    Args:
        folder: A folder with ``base.yaml`` and ``rows/``.
        overlays: Config files laid between the base and each row, such as ``demo.yaml``.
        rows: The rows to run, such as ``1-5,10``; all of them if not given.
        out: Where the results go, for :func:`ftkit.read_results`; ``runs/FOLDER`` if not given.

    Raises:
        InputError: A file is missing, misnamed or not YAML, or there is no such row.

    Example:
        >>> study = Ablation("configs/ch06", overlays=["configs/ch06/demo.yaml"], rows="1-3")  # doctest: +SKIP
        >>> study.run(seeds=[123, 124]).done  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        overlays: Sequence[str | Path] = (),
        rows: str | None = None,
        out: str | Path | None = None,
    ) -> None:
        self.folder, self.overlays, self.rows = AblationFolder.load(folder), [Path(path) for path in overlays], rows
        self.folder.select(rows)
        for path in self.overlays:
            read_config(path)
        self.out = RUNS / Path(folder).resolve().name if out is None else Path(out)

    def run(
        self,
        seeds: Sequence[int] | None = None,
        force: bool = False,
        executor: Literal["here", "ray"] = "here",
        engine: Engine | None = None,
        progress: SweepProgress | None = None,
        search: str | Path | Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
    ) -> Summary:
        """Make the runs that are not done yet; killed at any time, the next call goes on.

        Args:
            seeds: The seeds to run each row with; if not given, the ``seed_everything`` of base and overlays, or 123.
            force: Run the rows again even if they are done.
            executor: Make the runs one after the other in this process, or spread them by Ray.
            engine: Trains and tests a run; LightningCLI if not given.
            progress: Shows the progress; a new one on standard error if not given.
            search: Settings that are tried for each row, the best chosen on validation: a file, or what would stand in
                it; ``search.yaml`` in the folder, if there is one, if not given.
            settings: More of them, such as ``trainer.max_epochs=3,5``.

        Returns:
            What became of each run.

        Raises:
            InputError: A config is wrong; nothing was run.
            TrainingFailed: A row failed; the others were run. The message names the failed ones.
            EnvironmentFault: The output folder is taken or cannot be written, or no row could be run at all.
        """
        own = self.folder.folder / SEARCH_FILE
        given = search if search is not None else own if own.exists() else {} if settings else None
        sought = None if given is None else Search.read(given, settings)
        with progress or SweepProgress() as shown, _Interruption(shown) as watched:
            summary = run(
                self.folder,
                engine or LightningEngine(watched.step),
                self.out,
                self.rows,
                self.overlays,
                seeds,
                force,
                watched,
                one_by_one if executor == "here" else on_ray,
                None if sought is None else partial(tune, sought),
            )
        _refuse_failures(summary)
        return summary


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
        return {"config": config, "base": base, "code": code_sha256(), "data": data, "seed": seed}

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Train and test one run in ``directory``."""
        with self._trained(configs, seed, directory) as cli:
            best = find_checkpoint(directory) if cli.config.model_selection == "best" else None
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_test()

    def fit(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Train one run in ``directory``, and validate the checkpoint that a test would take."""
        with self._trained(configs, seed, directory) as cli:
            best = find_checkpoint(directory)
            cli.trainer.validate(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_validate()

    def test(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Test what :meth:`fit` left in ``directory``."""
        cli = self._build(configs, seed, directory)
        with exit_on_termination(), explain_refusals():
            best = find_checkpoint(directory)
            cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False)
            cli.after_test()

    @contextmanager
    def _trained(self, configs: Sequence[Path], seed: int, directory: Path) -> Iterator[FtkitCLI]:
        cli = self._build(configs, seed, directory)
        if not isinstance(cli.model, TrainedStateModule):
            self._rehearse(configs, seed)
            cli = self._build(configs, seed, directory)  # as if nothing had been drawn
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


def _refuse_failures(summary: Summary) -> None:
    if summary.exit_code == ExitCode.DONE:
        return
    bad = summary.failed or summary.skipped
    reasons = "".join(f"\n  {one}: {reason}" for one, reason in bad.items())
    total = len(summary.done) + len(summary.reused) + len(summary.skipped) + len(summary.failed)
    runs = f"{total} run{'s' if total > 1 else ''}"
    if summary.failed:
        where = f"{ERROR_FILE} in the folder of each in {summary.directory} says where"
        raise TrainingFailed(f"{len(bad)} of {runs} failed; {where}:{reasons}")
    raise EnvironmentFault(f"nothing could be run of {runs}:{reasons}")


def _refuse_untested(cli: FtkitCLI) -> None:
    """Refuse what cannot be tested at all, before any row is run."""
    for field, part, hook in (("model", cli.model, "test_step"), ("data", cli.datamodule, "test_dataloader")):
        if not is_overridden(hook, part):
            raise InputError(f"has no {hook}, and rows are compared on test", field=field, got=type(part).__name__)


class _Interruption:
    """Stop a sweep on Ctrl-C, also where Python drops the exception, as it does in destructors.

    Args:
        progress: Takes events and steps; a Ctrl-C that was dropped is raised at the next step or run.
    """

    def __init__(self, progress: SweepProgress) -> None:
        self._progress, self._received = progress, False

    def __enter__(self) -> _Interruption:
        self._listens = threading.current_thread() is threading.main_thread()
        self._before = signal.signal(signal.SIGINT, self._receive) if self._listens else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._before)

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._check()
        self._progress(event)

    def step(self, completed: int, total: int) -> None:
        self._check()
        self._progress.step(completed, total)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        raise KeyboardInterrupt

    def _check(self) -> None:
        if self._received:
            raise KeyboardInterrupt


def _unseen(completed: int, total: int) -> None:
    """Ignore the steps, which nobody watches."""


class _StepReporter(L.Callback):
    def __init__(self, on_step: Callable[[int, int], None]) -> None:
        self.on_step = on_step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.on_step(trainer.global_step, int(trainer.estimated_stepping_batches))
