"""A search over settings: the same tries for every row of an ablation, and the choice on validation alone."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml  # type: ignore[import-untyped]

from ftkit.ablation.result import Result
from ftkit.ablation.setting import Setting
from ftkit.config_files import read_config
from ftkit.errors import EnvironmentFault, InputError
from ftkit.results.metrics import Mode, mode_of

SEARCH_FILE = "search.yaml"  # in an ablation folder
Sampler = Literal["grid", "random", "tpe"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+", re.IGNORECASE)
_DRAWS = 100  # for each try that is wanted, until enough of them differ


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
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    @property
    def whole(self) -> bool:
        """Return whether it has whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Values = Sequence[Any] | Range


@dataclass(frozen=True)
class Search:
    """The settings to try for every row, and how one is chosen."""

    settings: Mapping[str, Values]  # values by full option path, such as model.init_args.optimizer.init_args.lr
    # What a row has of its own, by its number: other values, or None for an option that it does not try.
    rows: Mapping[int, Mapping[str, Values | None]] = field(default_factory=dict)
    tries: int | None = None  # how many settings are tried for each row; a grid has as many as it has
    # grid tries every combination; random draws; tpe is Optuna's, each try after those before.
    sampler: Sampler = "grid"
    # The metric of validation that decides, averaged over the seeds: val/accuracy or what validation logs.
    monitor: str = "val/accuracy"
    mode: Mode = "max"  # whether its lowest (min) or highest value is the best
    seed: int = 0  # seed of the sampler
    untuned: bool = True  # also run each row as its file says, to be shown beside
    file: Path | None = None  # where it is from

    @classmethod
    def read(cls, given: str | Path | Mapping[str, Any], options: Sequence[str] = ()) -> Search:
        """Read a search.

        Args:
            given: A YAML file, or its content: the arguments of this class; a range is ``{low, high, log}``.
            options: More settings, such as ``trainer.max_epochs=3,5``, in place of those of the same name.

        Raises:
            InputError: Something is missing, unknown, or no value of its kind; file and key are named.
        """
        file = None if isinstance(given, Mapping) else Path(given)
        content: dict[str, Any] = dict(given) if isinstance(given, Mapping) else read_config(Path(given))
        known = [one.name for one in fields(cls) if one.name != "file"]
        if unknown := sorted(map(str, content.keys() - set(known))):
            raise InputError("no such key", file=file, field=unknown[0], fix=f"use {', '.join(known)}")
        settings = {**_mapping(content.get("settings"), file, "settings"), **dict(map(_option, options))}
        rows = _mapping(content.get("rows"), file, "rows")
        return cls(
            **{
                **content,
                "settings": {path: _values(values, file, path) for path, values in settings.items()},
                "rows": {number: _of_row(number, own, file) for number, own in rows.items()},
                "sampler": content.get("sampler", _sampler(content, settings, rows)),
                "mode": content.get("mode", mode_of(str(content.get("monitor", "val/accuracy")))),
            },
            file=file,
        )

    def __post_init__(self) -> None:
        on_validation = isinstance(self.monitor, str) and not self.monitor.startswith("test")
        for name, is_right, fix in (
            ("tries", _is_count(self.tries), "write a whole number from 1 on"),
            ("sampler", self.sampler in get_args(Sampler), f"use {', '.join(get_args(Sampler))}"),
            ("monitor", on_validation, "name a metric of validation, such as val/loss"),
            ("mode", self.mode in get_args(Mode), "use min or max"),
            ("seed", _is_count(self.seed, least=0), "write a whole number"),
            ("untuned", isinstance(self.untuned, bool), "write true or false"),
        ):
            if not is_right:
                raise InputError("cannot be used", file=self.file, field=name, got=getattr(self, name), fix=fix)
        if not self.settings and not self.rows:
            raise InputError("there is nothing to try", file=self.file, field="settings", fix="write OPTION: [A, B]")
        if self.sampler != "grid" and self.tries is None:
            fix = "say how many settings are tried for each row"
            raise InputError(f"{self.sampler} needs a number of tries", file=self.file, field="tries", fix=fix)

    def space(self, row: int) -> dict[str, Values]:
        """Return the values that a row tries, by option.

        Raises:
            InputError: It has a range, which is no grid, or its grid has more settings than tries.
        """
        merged = {**self.settings, **self.rows.get(row, {})}
        space = {path: values for path, values in merged.items() if values is not None}
        if self.sampler == "grid":
            for path, values in space.items():
                if isinstance(values, Range):
                    fix = "list the values, or use `sampler: random` with a number of tries"
                    raise InputError("a range is no grid", file=self.file, field=path, fix=fix)
            size = math.prod(len(values) for values in space.values() if not isinstance(values, Range))
            if self.tries is not None and size > self.tries:
                problem, fix = f"the grid of row {row} has {size} settings", "leave tries out, or use `sampler: random`"
                raise InputError(problem, file=self.file, field="tries", got=self.tries, fix=fix)
        return space

    def propose(self, row: int, values: Sequence[float | None]) -> list[Setting]:
        """Return the settings of a row to try next; none once it has had its tries, or if there is nothing to try.

        Args:
            row: The number of the row.
            values: What the tries before came to, in their order; None for a try that failed.

        Raises:
            EnvironmentFault: Optuna is not installed.
        """
        space = self.space(row)
        if self.sampler == "tpe" and space:
            return self._ask(space, values)
        if values or not space:
            return []
        return list(self._grid(space) if self.sampler == "grid" else self._draw(space))

    def _grid(self, space: Mapping[str, Any]) -> Iterator[Setting]:
        for combination in itertools.product(*space.values()):
            yield tuple(zip(space, combination, strict=True))

    def _draw(self, space: Mapping[str, Values]) -> list[Setting]:
        """Draw settings that differ; an option is drawn alike in all rows that try the same values of it."""
        tries = self.tries or 1
        drawn: dict[Setting, None] = {}
        for place in range(_DRAWS * tries):
            if len(drawn) < tries:
                drawn[tuple((path, self._drawn(path, values, place)) for path, values in space.items())] = None
        return list(drawn)

    def _drawn(self, path: str, values: Values, place: int) -> Any:
        share = np.random.default_rng([self.seed, place, zlib.crc32(path.encode())]).random()
        return values.at(share) if isinstance(values, Range) else values[int(share * len(values))]

    def _ask(self, space: Mapping[str, Values], values: Sequence[float | None]) -> list[Setting]:
        """Ask Optuna for the next try; it is asked for all the former ones again, so that a resumed search goes on."""
        try:
            import optuna
        except ImportError:
            problem, fix = "Optuna is not installed", "pip install 'ftkit[search]', or use `sampler: random`"
            raise EnvironmentFault(problem, field="sampler", got=self.sampler, fix=fix) from None
        if len(values) >= (self.tries or 1):
            return []
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = "minimize" if self.mode == "min" else "maximize"
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.seed), direction=direction)
        kinds = {path: _distribution(one) for path, one in space.items()}
        for value in values:
            failed = optuna.trial.TrialState.FAIL if value is None else None
            study.tell(study.ask(kinds), value, state=failed)
        found = study.ask(kinds).params
        return [tuple((path, found[path]) for path in space)]

    def value(self, result: Result) -> float | None:
        """Return what decides of a run; None if it was no finite number.

        Raises:
            InputError: Validation did not log it.
        """
        logged = (result.raw.get("metrics") or {}).get("val") or {}
        if self.monitor == "val/accuracy" and "val" in result.splits:
            return result.splits["val"].accuracy
        if self.monitor not in logged:
            problem, fix = "validation does not log it", f"it logs {', '.join(sorted(logged)) or 'nothing'}"
            raise InputError(problem, file=self.file, field="monitor", got=self.monitor, fix=fix)
        return None if logged[self.monitor] is None else float(logged[self.monitor])

    def best(self, values: Mapping[Setting, float | None]) -> Setting | None:
        """Return the setting with the best value, the first of equal ones; None if none has a value."""
        sign = -1 if self.mode == "min" else 1
        known = {setting: sign * value for setting, value in values.items() if value is not None}
        return max(known, key=known.__getitem__, default=None)


def _is_count(value: Any, least: int = 1) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


def _mapping(value: Any, file: Path | None, name: str) -> dict[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InputError("not a mapping", file=file, field=name, got=value, fix=f"write {name}: and indented lines")
    return dict(value or {})


def _sampler(content: Mapping[str, Any], settings: Mapping[str, Any], rows: Mapping[int, Any]) -> Sampler:
    """Return ``random`` where a number of tries is given, or a range, else ``grid``."""
    own = [values for one in rows.values() if isinstance(one, Mapping) for values in one.values()]
    ranges = any(isinstance(values, Mapping | Range) for values in (*settings.values(), *own))
    return "random" if ranges or content.get("tries") else "grid"


def _of_row(number: Any, own: Any, file: Path | None) -> dict[str, Values | None]:
    if not _is_count(number, least=0):
        raise InputError("not the number of a row", file=file, field="rows", got=number, fix="write such as 5:")
    given = _mapping(own, file, f"rows.{number}").items()
    return {path: None if one is None else _values(one, file, f"rows.{number}.{path}") for path, one in given}


def _option(text: str) -> tuple[str, list[Any]]:
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        raise InputError("not an option with values", field="set", got=text, fix="write OPTION=A,B,C")
    try:
        return path, [yaml.safe_load(value) for value in values.split(",")]
    except yaml.YAMLError:
        raise InputError("not values", field="set", got=text, fix="write OPTION=A,B,C") from None


def _values(given: Any, file: Path | None, path: str) -> Values:
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


def _distribution(values: Values) -> Any:
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(values)
    if values.whole:
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)
