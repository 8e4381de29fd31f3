"""Hold a plan against what ``benchmarks/gpu_check.py`` measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.ablation.setting import Setting
from ftkit.errors import InputError


@dataclass(frozen=True)
class Measured:
    """Hold what a check of a device measured.

    Args:
        device: The name of the device.
        rows: ``minutes``, ``training`` (minutes of it without the test) and ``peak_gb`` by row.
        setting: The options that were laid over all rows.
    """

    device: str
    rows: Mapping[str, Mapping[str, float]]
    setting: Setting

    @classmethod
    def read(cls, file: Path) -> "Measured":
        """Read the file that the check wrote.

        Raises:
            InputError: It is no such file, no row was measured, or the check was the small one, of other shapes.
        """
        try:
            check = json.loads(file.read_bytes())
            found = cls.of(check["parts"]["prepare"]["figures"]["device"], check["parts"]["rows"]["figures"])
            small = check["small"]
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=file, field="against") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem, fix = "has no measured rows", "give what benchmarks/gpu_check.sh wrote"
            raise InputError(problem, file=file, field="parts.rows.figures", fix=fix) from error
        if small:
            fix = "run benchmarks/gpu_check.sh without --small"
            raise InputError("was measured with small shapes", file=file, field="small", got=True, fix=fix)
        return found

    @classmethod
    def of(cls, device: str, figures: Mapping[str, Any]) -> "Measured":
        """Take the figures of the check's part ``rows``, measured on a device of this name."""
        rows = {row["row"]: {name: float(row[name]) for name in _FIGURES} for row in figures["rows"]}
        return cls(device, rows, tuple(figures["setting"].items()))

    def beside(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a planned row with what was measured: ratios are planned / measured.

        ``share_of_peak`` is that of the device's peak speed which its products reached over the whole run.
        """
        measured = self.rows.get(row["row"])
        if measured is None or "minutes" not in row:
            return dict(row)
        return {
            **row,
            "measured_minutes": measured["minutes"],
            "minutes_ratio": row["minutes"] / measured["minutes"],
            "measured_peak_gb": measured["peak_gb"],
            "peak_ratio": row["measured_as_gb"] / measured["peak_gb"],
            "positions_per_second": row["positions"] / measured["training"] / 60,
            "share_of_peak": row["at_peak_minutes"] / measured["minutes"],
        }


_FIGURES = ("minutes", "training", "peak_gb")
