"""Add a run that was made elsewhere to the output folder of an ablation: its answers, and its costs as stated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.ablation.folder import label_parts
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.run_answers import over_seeds, read_run_answers
from ftkit.ablation.sweep import EXTERNAL, Sweep, add_row, read_sweep
from ftkit.config_files import read_config
from ftkit.errors import EnvironmentFault, InputError
from ftkit.lock import exclusive
from ftkit.results.predictions import Predictions, read_predictions, write_predictions
from ftkit.results.preferences import TIED, WON, half_points
from ftkit.run_folder import FORMAT, RESULT_FILE, predictions_file
from ftkit.storage import atomic_write, key_of, sha256_of

_NUMBERS = ("seconds", "peak_memory_mb", "trainable_parameters", "checkpoint_mb")
_TEXTS = ("device", "machine", "base_model", "made_with")


def add_external_run(
    directory: Path, row: str, predictions: Path, costs: Path | None = None, seed: int | None = None, question: str = ""
) -> Path:
    """Add a run that was made elsewhere, as a row of the table.

    Args:
        directory: The output folder of ``ftkit ablation run``.
        row: Number and name of the row, such as ``20_trainer``: no row of the ablation's own.
        predictions: Its prediction file over the test examples of the ablation, in any format that is read.
        costs: A YAML file with what it cost, as far as that is known: ``seconds``, ``peak_memory_mb``,
            ``trainable_parameters``, ``checkpoint_mb``, and in words ``device``, ``machine``, ``base_model`` and
            ``made_with``.
        seed: Runs of the same seed are compared; the first one that is done if not given.
        question: What the row asks.

    Returns:
        The run folder. One that was added before under this row and seed is replaced.

    Raises:
        InputError: A file cannot be used, the row is the ablation's own, or the examples or their labels are not those
            of the ablation. Nothing is changed.
        EnvironmentFault: The folder is taken or cannot be written.
    """
    number, _ = label_parts(row)
    stated = {} if costs is None else _read_costs(costs)
    sweep = read_sweep(directory)
    with exclusive(directory):
        seed = next((run.seed for one in sweep.rows for run in one.done), 123) if seed is None else seed
        found = read_predictions(predictions)
        identity = {EXTERNAL: {"predictions": predictions.name, "sha256": sha256_of(predictions), "costs": stated}}
        final = directory / row / f"seed-{seed}"
        partial = final.with_name(f".{final.name}.partial")
        try:
            _write_run(partial, found, stated, predictions, seed)
            _refuse_other_examples(sweep, partial, predictions)
            add_row(directory, row, question)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        except OSError as error:
            raise EnvironmentFault(f"cannot be written: {error.strerror}", file=final) from error
        finally:
            if partial.exists():
                shutil.rmtree(partial)
        result = sha256_of(final / RESULT_FILE)
        entry = Entry(f"{row}/{final.name}", number, seed, "done", key_of(identity), identity, result)
        Ledger(directory).append(entry)
    return final


def _read_costs(path: Path) -> dict[str, Any]:
    """Return the stated costs.

    Raises:
        InputError: The file cannot be read, or a field is unknown or of another kind.
    """
    costs = read_config(path)
    for name, value in costs.items():
        if name not in (*_NUMBERS, *_TEXTS):
            raise InputError("is no cost", file=path, field=str(name), fix=f"use {', '.join((*_NUMBERS, *_TEXTS))}")
        if name in _TEXTS and not isinstance(value, str):
            raise InputError("is not a text", file=path, field=name, got=value)
        if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise InputError("is not a number from 0 on", file=path, field=name, got=value)
    return costs


def _write_run(folder: Path, found: Predictions, stated: Mapping[str, Any], source: Path, seed: int) -> None:
    """Write prediction file and ``result.json`` as a run of ftkit's leaves them."""
    if None in found.labels:
        raise InputError("an example has no label", file=source, field=found.ids[found.labels.index(None)])
    points = half_points(found.labels, found.predictions, found.scores, found.score_name)
    counts = {"n": len(points), "correct": int((points == WON).sum())}
    if ties := int((points == TIED).sum()):
        counts["ties"] = ties
    names = found.score_names[0] if len(found.score_names) == 1 else found.score_names
    columns = (found.ids, found.labels, found.predictions, found.scores, names or None, found.extra)
    write_predictions(folder / predictions_file("test"), *columns)
    device, machine = stated.get("device", "unknown"), stated.get("machine")
    result = {
        "format": FORMAT,
        EXTERNAL: {"predictions": source.name, **stated},
        "splits": {"test": counts},
        "seconds": {"stated": stated.get("seconds")},
        "peak_memory_mb": stated.get("peak_memory_mb"),
        "parameters": {"trainable": stated.get("trainable_parameters")},
        "checkpoint_mb": stated.get("checkpoint_mb"),
        "device": device,
        "hardware": {"cpu" if device == "cpu" else "gpu": machine},
        "base": {"model": stated["base_model"]} if "base_model" in stated else {},
        "data": {"source": source.name},
        "versions": {"made elsewhere": stated.get("made_with", source.name)},
        "seed": seed,
    }
    with atomic_write(folder / RESULT_FILE) as file:
        json.dump(result, file, indent=1)


def _refuse_other_examples(sweep: Sweep, folder: Path, source: Path) -> None:
    """Compare examples and labels with those of the first run that has some.

    Raises:
        InputError: They are others, so the rows could not be compared example by example.
    """
    other = next((run.answers for row in sweep.rows for run in row.done if run.answers is not None), None)
    if other is None:
        return
    ours, theirs = (over_seeds([answers]) for answers in (read_run_answers(folder / other.path.name, None), other))
    assert ours is not None  # it is one run
    assert theirs is not None
    if not np.array_equal(ours.identity, theirs.identity):
        shared = len(np.intersect1d(ours.identity, theirs.identity))
        raise InputError(
            f"its {len(ours.identity):,} examples are not the {len(theirs.identity):,} of {other.path}",
            file=source,
            field="id",
            got=f"{shared:,} in common",
            fix="give the ids of the ablation's test examples",
        )
    if wrong := int((ours.target != theirs.target).sum()):
        raise InputError(f"{wrong:,} labels are not those of {other.path}", file=source, field="label")
