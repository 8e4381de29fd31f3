"""The values that a search tries of one option: a list or a range."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import InputError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, both included; whole ones if both are. ``log`` draws them log-uniformly."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """Return the number at a share of the range, from 0 to 1, to three digits.

        Example:
            >>> Range(1e-5, 1e-3, log=True).at(0.5), Range(4, 64).at(0.5)
            (0.0001, 34)
        """
        low, high = (math.log(end) if self.log else end for end in (self.low, self.high))
        value = low + share * (high - low)
        value = math.exp(value) if self.log else value
        return self.short(round(value) if self.whole else value)

    def short(self, value: float) -> float:
        """Return a number of the range to three digits, as tables and folders show it; whole ones have all digits."""
        if self.whole:
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    @property
    def whole(self) -> bool:
        """Return whether it has whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Values = Sequence[Any] | Range


def read_values(given: Any, file: Path | None, path: str) -> Values:
    """Read a list of values or a range.

    Raises:
        InputError: It is neither, or a value is no number, text, or truth value.
    """
    if path.rpartition(".")[2] == "seed_everything":
        raise InputError("is no setting", file=file, field=path, fix="give --seeds: all settings get the same")
    if isinstance(given, Range):
        return given
    if isinstance(given, Mapping):
        return _range({name: _scalar(value) for name, value in given.items()}, file, path)
    if not isinstance(given, list | tuple) or not given:
        raise InputError("no list of values", file=file, field=path, got=given, fix="write [A, B] or {low: A, high: B}")
    values = [_scalar(value) for value in given]
    for value in values:
        if not isinstance(value, bool | int | float | str | None) or value != value:
            raise InputError("not a number, text or truth value", file=file, field=path, got=value)
    if len({json.dumps(value) for value in values}) < len(values):
        raise InputError("a value stands twice", file=file, field=path, got=values, fix="leave one out")
    return values


def _range(given: Mapping[str, Any], file: Path | None, path: str) -> Range:
    low, high, log = given.get("low"), given.get("high"), given.get("log", False)
    fix = "write {low: 1e-5, high: 1e-2, log: true}"
    if given.keys() - {"low", "high", "log"} or any(type(end) not in (int, float) for end in (low, high)):
        raise InputError("not a range", file=file, field=path, got=dict(given), fix=fix)
    found = Range(low, high, log)  # type: ignore[arg-type]
    if not found.low < found.high < math.inf or (log and found.low <= 0) or not isinstance(log, bool):
        raise InputError("not a range of numbers from low to high", file=file, field=path, got=dict(given), fix=fix)
    return found


def _scalar(value: Any) -> Any:
    """Return the number that a text such as ``1e-4`` is, which YAML 1.1 takes for a text."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
