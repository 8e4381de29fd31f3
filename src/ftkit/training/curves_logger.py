"""Write the learning curves of a run to ``metrics.csv``, each row at once; a resumed run appends to the file."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from ftkit.errors import InputError
from ftkit.run_folder import CURVES_FILE
from ftkit.storage import atomic_write, disk_faults, unlinked


class CurvesLogger(Logger):
    """Write what is logged to ``metrics.csv`` in the run folder, and the hyperparameters to ``hparams.yaml``.

    A training starts the file anew unless :meth:`go_on` is called.
    """

    name = version = ""  # the run folder itself is the place of checkpoints

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.file = Path(folder) / CURVES_FILE
        self.rows = 0  # that this run has written or kept
        self._columns: list[str] = []

    @property
    def save_dir(self) -> str:
        """Return the run folder."""
        return str(self.file.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row."""
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        row["step"] = self.rows if step is None else step
        if new := row.keys() - set(self._columns):
            self._rewrite(self._read()[: self.rows] if self.rows else [], new)
        with disk_faults(self.file), open(self.file, "a", encoding="utf-8", newline="", opener=unlinked) as lines:
            csv.DictWriter(lines, self._columns).writerow(row)
        self.rows += 1

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write the hyperparameters."""
        with TemporaryDirectory() as folder:  # Lightning would follow a link, and leave half a file on a full disk
            save_hparams_to_yaml(written := Path(folder) / "hparams.yaml", params)
            with atomic_write(self.file.with_name(written.name), "wb") as file:
                file.write(written.read_bytes())

    @rank_zero_only
    def go_on(self, rows: int, to_come: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Continue the file from a checkpoint; what is written later than its ``rows`` comes again.

        Args:
            rows: How many rows there were when it was saved.
            to_come: Steps and values that were about to be written.
        """
        if self.file.exists():
            kept = self._read()[:rows]
            self._rewrite(kept, kept[0] if kept else ())
        for step, metrics in to_come:
            self.log_metrics(metrics, step)

    def _rewrite(self, rows: list[dict[str, str]], columns: Iterable[str]) -> None:
        """Write the file anew, with more columns."""
        self._columns = sorted({*self._columns, *columns})
        self.rows = len(rows)
        with atomic_write(self.file) as lines:
            writer = csv.DictWriter(lines, self._columns)
            writer.writeheader()
            writer.writerows(rows)

    def _read(self) -> list[dict[str, str]]:
        """Return the rows of the file, without half a line that a killed run may have left."""
        try:
            text = self.file.read_bytes().decode().rpartition("\n")[0]
            rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._damaged(None, str(error)) from error
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values() or "step" not in row:
                raise self._damaged(number, "a row does not fit the columns")
        return rows

    def _damaged(self, line: int | None, problem: str) -> InputError:
        fix = "move it away: the run goes on without the curves so far"
        return InputError(f"is damaged: {problem}", file=self.file, line=line, fix=fix)
