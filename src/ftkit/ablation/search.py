"""A search over settings: the same tries for every row of an ablation, and the choice on validation alone."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml  # type: ignore[import-untyped]

from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.optuna_study import ask
from ftkit.ablation.result import Result
from ftkit.ablation.search_space import Range, Values, read_values
from ftkit.ablation.setting import Setting
from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.results.metrics import Mode, mode_of

SEARCH_FILE = "search.yaml"  # in an ablation folder
Sampler = Literal["grid", "random", "tpe"]

_DRAWS = 100  # for each try that is wanted, until enough of them differ


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
    # Stops unpromising trainings early on validation: class_path and init_args of one of Optuna's; None stops none.
    pruner: Mapping[str, Any] | None = None
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
        rows, pruner = _mapping(content.get("rows"), file, "rows"), content.get("pruner")
        return cls(
            **{
                **content,
                "settings": {path: read_values(values, file, path) for path, values in settings.items()},
                "rows": {number: _of_row(number, own, file) for number, own in rows.items()},
                "sampler": content.get("sampler", _sampler(content, settings, rows)),
                "pruner": {"class_path": pruner} if isinstance(pruner, str) else pruner,
                "mode": content.get("mode", mode_of(str(content.get("monitor", "val/accuracy")))),
            },
            file=file,
        )

    @classmethod
    def find(
        cls, folder: AblationFolder, given: str | Path | Mapping[str, Any] | None = None, options: Sequence[str] = ()
    ) -> Search | None:
        """Read the search of an ablation: the one that is given, or else the folder's own; None if there is neither.

        Raises:
            InputError: See :meth:`read`; or it names a row that the folder does not have.
        """
        own = folder.folder / SEARCH_FILE
        given = given if given is not None else own if own.exists() else {} if options else None
        if given is None:
            return None
        search = cls.read(given, options)
        if unknown := search.rows.keys() - {row.number for row in folder.rows}:
            raise InputError("there is no such row", file=search.file, field="rows", got=min(unknown))
        return search

    def __post_init__(self) -> None:
        pruner = self.pruner is None or _names_class(self.pruner)
        on_validation = isinstance(self.monitor, str) and not self.monitor.startswith("test")
        for name, is_right, fix in (
            ("tries", _is_count(self.tries), "write a whole number from 1 on"),
            ("sampler", self.sampler in get_args(Sampler), f"use {', '.join(get_args(Sampler))}"),
            ("monitor", on_validation, "name a metric of validation, such as val/loss"),
            ("mode", self.mode in get_args(Mode), "use min or max"),
            ("seed", _is_count(self.seed, least=0), "write a whole number"),
            ("pruner", pruner, "write {class_path: optuna.pruners.MedianPruner}"),
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

        ``values`` is what the tries before came to, in their order; None for a try that failed.

        Raises:
            EnvironmentFault: Optuna is not installed.
        """
        space = self.space(row)
        if self.sampler == "tpe" and space:
            return ask(space, values, self.tries or 1, self.mode, self.seed)
        if values or not space:
            return []
        return list(self._grid(space) if self.sampler == "grid" else self._draw(space))

    def planned(self, row: int) -> list[Setting]:
        """Return as many settings as a row tries, whatever others come to: instead of the sampler tpe random draws."""
        drawn = replace(self, sampler="random") if self.sampler == "tpe" else self
        settings = drawn.propose(row, [])
        return [*settings, ()] if self.untuned or not settings else settings

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


def _names_class(given: Any) -> bool:
    """Return whether it names a class, with arguments or without."""
    if not isinstance(given, Mapping) or given.keys() - {"class_path", "init_args"}:
        return False
    return isinstance(given.get("class_path"), str) and isinstance(given.get("init_args", {}), Mapping)


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
    return {path: None if one is None else read_values(one, file, f"rows.{number}.{path}") for path, one in given}


def _option(text: str) -> tuple[str, list[Any]]:
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        raise InputError("not an option with values", field="set", got=text, fix="write OPTION=A,B,C")
    try:
        return path, [yaml.safe_load(value) for value in values.split(",")]
    except yaml.YAMLError:
        raise InputError("not values", field="set", got=text, fix="write OPTION=A,B,C") from None
