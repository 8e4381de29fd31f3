"""Write the ``config.yaml`` of a run, and hand config files to a command."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback

from ftkit.ablation.identity import flatten
from ftkit.checkpoint_options import EVALUATION_OPTIONS, RESUME_OPTIONS
from ftkit.run_folder import CONFIG_FILE, ORDER_FILE, RUNS
from ftkit.storage import atomic_write, disk_faults, unlinked
from ftkit.training.curves_logger import CurvesLogger


class RunConfig(SaveConfigCallback):
    """Write the resolved ``config.yaml`` into the run folder; a ``test`` leaves that of its ``fit``.

    That a training begins is noted for :func:`ftkit.run_folder.newest_run`, and its settings go to the trackers.

    The folder's own path is left out: folders are moved, and a second run should choose its own.
    """

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file, whole or not at all."""
        folder = Path(trainer.default_root_dir)
        target = folder / CONFIG_FILE
        if stage == "fit" and folder.absolute().parent == RUNS.absolute():
            order = RUNS / ORDER_FILE
            with disk_faults(order), open(order, "a", encoding="utf-8", opener=unlinked) as file:
                file.write(f"{folder.name}\n")
        if stage == "fit" or not target.exists():
            with atomic_write(target) as file:
                file.write(self.parser.dump(without_folder(self.config), skip_unset=False))
        if stage == "fit":
            for tracker in [logger for logger in trainer.loggers if not isinstance(logger, CurvesLogger)]:
                tracker.log_hyperparams(self._settings())

    def _settings(self) -> dict[str, Any]:
        """Return what was chosen, by option as on the command line, such as ``model.optimizer.lr``."""
        config = flatten(json.loads(self.parser.dump(without_folder(self.config), format="json", skip_unset=False)))
        named = {re.sub(r"\.(init_args|class_path)\b", "", name): value for name, value in config.items()}
        unlogged = "trainer.logger"  # holds keys to trackers, and says nothing of a run
        return {name: value for name, value in named.items() if value is not None and not name.startswith(unlogged)}


def config_arguments(configs: Iterable[Path]) -> list[str]:
    """Return config files, in their order, as command-line arguments."""
    return [word for config in configs for word in ("--config", str(config))]


def without_folder(config: Namespace) -> Namespace:
    """Return a copy of a configuration without its output folder and without options of resuming."""
    copy = config.clone()
    copy.trainer.default_root_dir = None
    if copy.get("resume"):
        copy.ckpt_path = None  # the one that was found
    for name in (*RESUME_OPTIONS, *EVALUATION_OPTIONS):
        copy.pop(name, None)
    return copy
