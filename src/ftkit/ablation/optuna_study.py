"""Optuna in a search: its sampler asks for settings, and its pruners tell which trainings are worth no more steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ftkit.ablation.search_space import Range, Values
from ftkit.ablation.setting import Setting
from ftkit.errors import EnvironmentFault, InputError
from ftkit.results.metrics import Mode

_FIX = "write such as pruner: {class_path: optuna.pruners.MedianPruner, init_args: {n_startup_trials: 4}}"


def ask(
    space: Mapping[str, Values], values: Sequence[float | None], tries: int, mode: Mode, seed: int
) -> list[Setting]:
    """Return the setting that Optuna's TPE tries next, none after the last of ``tries``.

    It is asked for all the former ones again, so that a resumed search goes on.

    Raises:
        EnvironmentFault: Optuna is not installed.
    """
    optuna = _import_optuna("sampler", "tpe", "use `sampler: random`")
    if len(values) >= tries:
        return []
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), direction=_direction(mode))
    kinds = {path: _distribution(one) for path, one in space.items()}
    for value in values:
        failed = optuna.trial.TrialState.FAIL if value is None else None
        study.tell(study.ask(kinds), value, state=failed)
    found = study.ask(kinds).params
    return [
        tuple((path, one.short(found[path]) if isinstance(one, Range) else found[path]) for path, one in space.items())
    ]


@dataclass(frozen=True)
class Pruning:
    """Hold what decides whether a training is stopped early: a pruner, and the trainings to compare it with.

    A pruner counts validations, from 1, so that trainings with batches of different sizes can be compared.
    """

    pruner: Mapping[str, Any]  # its class_path and init_args
    monitor: str  # the metric of validation that it reads
    mode: Mode  # whether its lowest (min) or highest value is the best
    # Of each earlier training, in their order: whether it ran to its end, and what its validations came to.
    earlier: Sequence[tuple[bool, Sequence[float | None]]]

    def trial(self) -> Any:
        """Return an ``optuna.Trial`` that knows the earlier ones, for ``report`` and ``should_prune``.

        Raises:
            EnvironmentFault: Optuna is not installed.
        """
        pruner = new_pruner(self.pruner)
        optuna = _import_optuna("pruner", self.pruner, "leave it out")
        # Hyperband draws by the study's name.
        study = optuna.create_study(study_name="search", pruner=pruner, direction=_direction(self.mode))
        for ended, values in self.earlier:
            trial = study.ask()
            for number, value in enumerate(values, start=1):
                trial.report(math.nan if value is None else value, number)
                trial.should_prune()  # successive halving notes what it was asked
            if ended:
                study.tell(trial, 0.0)  # a pruner reads what was reported
            else:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return study.ask()


def new_pruner(given: Mapping[str, Any], file: Path | None = None) -> Any:
    """Return the ``optuna.pruners.BasePruner`` that a search names.

    Raises:
        InputError: It is none, or does not take its arguments.
        EnvironmentFault: Optuna is not installed.
    """
    optuna = _import_optuna("pruner", given, "leave it out")
    try:
        pruner = _instance(given)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"cannot be made: {type(error).__name__}: {error}"
        raise InputError(problem, file=file, field="pruner", got=dict(given), fix=_FIX) from None
    if not isinstance(pruner, optuna.pruners.BasePruner):
        raise InputError("is not an Optuna pruner", file=file, field="pruner", got=dict(given), fix=_FIX)
    return pruner


def _instance(given: Any) -> Any:
    """Return what ``class_path`` and ``init_args`` name, which may hold others; any other value is itself."""
    if not isinstance(given, Mapping):
        return given
    arguments = {name: _instance(value) for name, value in given.get("init_args", {}).items()}
    return resolve_name(given["class_path"])(**arguments)


def _import_optuna(field: str, got: Any, otherwise: str) -> Any:
    try:
        import optuna
    except ImportError:
        fix = f"pip install 'ftkit[search]', or {otherwise}"
        raise EnvironmentFault("Optuna is not installed", field=field, got=got, fix=fix) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _direction(mode: Mode) -> str:
    return "minimize" if mode == "min" else "maximize"


def _distribution(values: Values) -> Any:
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(values)
    if values.whole:
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)
