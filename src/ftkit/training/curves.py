"""The curves of a run as ``metrics.csv``: every row is on the disk at once, and a resumed run goes on with the file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ftkit.run_folder import CURVES_FILE
from ftkit.storage import atomic_write, disk_faults


class CurvesLogger(CSVLogger):
    """Lightning's CSVLogger in the run folder itself, that can go on where a run stopped.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)

    @property
    def experiment(self) -> Any:
        """The writer of the file, on the first process."""
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return super().experiment  # Lightning's stand-in
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    def go_on(self) -> None:
        """Keep the file's rows that are before the first one to come; without this call the file starts anew."""
        self.experiment.keep = True


class _Writer(ExperimentWriter):
    NAME_METRICS_FILE = CURVES_FILE
    keep = False
    _begun = False

    def _check_log_dir_exists(self) -> None:
        """Lightning's removes the old file here, before it is known whether the run goes on."""

    def save(self) -> None:
        if self.metrics and not self._begun:
            self._begun = True
            self._begin(Path(self.metrics_file_path), int(self.metrics[0]["step"]))
        with disk_faults(self.metrics_file_path):
            super().save()

    def _begin(self, file: Path, step: int) -> None:
        """Remove the rows that come again: all of them, or in a resumed run those from its first step on."""
        if not self.keep:
            file.unlink(missing_ok=True)
        elif file.exists():
            whole = file.read_text(encoding="utf-8").rpartition("\n")[0]  # a killed run may leave half a line
            rows = list(csv.DictReader(io.StringIO(whole)))
            self.metrics_keys = list(rows[0]) if rows else []
            self._write(file, [row for row in rows if int(row["step"]) < step])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file = Path(self.metrics_file_path)
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        self._write(file, rows)

    def _write(self, file: Path, rows: list[dict[str, str]]) -> None:
        with atomic_write(file) as lines:
            writer = csv.DictWriter(lines, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
