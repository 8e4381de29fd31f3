"""Log a run to Weights & Biases, beside the local files.

The local files are the source of truth: whatever goes wrong here is said once, and the run goes on without it.
"""

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import yaml  # type: ignore[import-untyped]
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ftkit.results.predictions import read_predictions
from ftkit.run_folder import CONFIG_FILE, RESULT_FILE, predictions_file
from ftkit.training.run_names import run_names
from ftkit.wandb_settings import mode, start_run

MAX_TABLE_ROWS = 10_000  # of predictions; all of them are in the local file


class WandbRun(L.Callback):
    """Log the run to Weights & Biases: config once, curves, figures and the table of test predictions.

    Without ``WANDB_API_KEY`` the run is kept offline in its folder; ``wandb sync RUN/wandb/offline-run-*`` uploads it.
    The runs of an ablation are grouped under the name of its output folder; the job type of each is its variant.

    Args:
        project: The project on Weights & Biases.
        group: The group of the run; the name of the ablation's output folder if not given.
        name: The run's name; that of its folder if not given.
        offline: Keep the run on this machine; if not given, when there is no ``WANDB_API_KEY``.
        tags: Words to find the run by.
    """

    def __init__(
        self,
        project: str = "ftkit",
        group: str | None = None,
        name: str | None = None,
        offline: bool | None = None,
        tags: list[str] | None = None,
    ) -> None:
        self.project, self.group, self.name, self.offline, self.tags = project, group, name, offline, tags
        self._sink: _Sink | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the run; a ``test`` after a ``fit`` of the same trainer goes on with its run."""
        if self._sink is None and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(trainer.default_root_dir)
            names = run_names(folder)
            self._sink = _Sink(
                folder,
                name=self.name or names["name"],
                project=self.project,
                group=self.group or names["group"] or None,
                job_type=names["variant"] if names["group"] else None,
                tags=self.tags,
                mode=mode(self.offline),
            )
            trainer.loggers = [*trainer.loggers, self._sink]  # last: the first one decides where checkpoints go

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Add the results and end the run after a ``test``; after a ``fit`` a ``test`` may follow."""
        if self._sink is not None and stage != "fit":
            self._sink.finish_with_results()
            self._forget(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the run as failed."""
        if self._sink is not None:
            self._sink.finish(exit_code=1)
            self._forget(trainer)

    def _forget(self, trainer: L.Trainer) -> None:
        """Let the next run of the trainer, or of a sweep, start its own."""
        trainer.loggers = [logger for logger in trainer.loggers if logger is not self._sink]
        self._sink = None


class _Sink(Logger):
    """Lightning's WandbLogger, switched off by its first failure."""

    def __init__(self, folder: Path, **init: Any) -> None:
        super().__init__()
        self._folder = folder
        self._logger: WandbLogger | None = None
        self._configured = self._broken = False
        self._attempt(lambda: self._start(init))

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(lambda: self._run.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Log the resolved configuration, or without one the hyperparameters; once."""
        if not self._configured:
            self._configured = True
            file = self._folder / CONFIG_FILE
            self._attempt(
                lambda: self._run.log_hyperparams(yaml.safe_load(file.read_text("utf-8")) if file.exists() else params)
            )

    def finish_with_results(self) -> None:
        """Add figures and predictions, and end the run."""
        self._attempt(self._log_results)
        self.finish()

    def finish(self, exit_code: int = 0) -> None:
        """End the run."""
        self._attempt(lambda: self._run.experiment.finish(exit_code=exit_code))

    def _start(self, init: Mapping[str, Any]) -> None:
        run = start_run(dir=self._folder, **init)
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self._logger = WandbLogger(experiment=run)

    @property
    def _run(self) -> WandbLogger:
        assert self._logger is not None
        return self._logger

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Do something unless something failed before; a failure never reaches the run."""
        if self._broken:
            return
        try:
            action()
        except Exception as error:
            self._broken = True
            rank_zero_warn(
                f"Weights & Biases failed ({type(error).__name__}: {error}); the run goes on without it, and "
                f"everything is in {self._folder}"
            )

    def _log_results(self) -> None:
        import wandb

        run = self._run.experiment
        file = self._folder / RESULT_FILE
        result = json.loads(file.read_text("utf-8")) if file.exists() else {}
        figures = {f"final/{split}/accuracy": found["accuracy"] for split, found in result.get("splits", {}).items()}
        figures |= {f"final/seconds/{part}": seconds for part, seconds in result.get("seconds", {}).items()}
        figures["final/peak_memory_mb"] = result.get("peak_memory_mb")
        figures["final/trainable_parameters"] = result.get("parameters", {}).get("trainable")
        run.summary.update(figures)
        file = self._folder / predictions_file("test")
        if file.exists():
            found = read_predictions(file)
            columns: dict[str, list[Any]] = {"id": found.ids, "label": found.labels, "prediction": found.predictions}
            if found.scores is not None:
                scores = found.scores.reshape(len(found), -1).T.tolist()
                columns |= dict(zip(found.score_names, scores, strict=True))
            rows = [list(row) for row in zip(*columns.values(), strict=True)][:MAX_TABLE_ROWS]
            run.log({"predictions/test": wandb.Table(columns=list(columns), data=rows)})
