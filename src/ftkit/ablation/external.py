"""Add a run that was made elsewhere to the output folder of an ablation: its answers, and its costs as stated."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.ablation.description import add_row
from ftkit.ablation.folder import label_parts
from ftkit.ablation.identity import EXTERNAL
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.run_answers import over_seeds, read_run_answers
from ftkit.ablation.sweep import Sweep, read_sweep
from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.lock import exclusive
from ftkit.results.predictions import Predictions, read_predictions, write_predictions
from ftkit.results.preferences import TIED, WON, half_points
from ftkit.run_folder import FORMAT, RESULT_FILE, predictions_file
from ftkit.storage import key_of, new_folder, sha256_of

_NUMBERS = ("seconds", "peak_memory_mb", "trainable_parameters", "checkpoint_mb")
_TEXTS = ("device", "machine", "base_model", "made_with")


def add_external_run(
    directory: Path, row: str, predictions: Path, costs: Path | None = None, seed: int | None = None, question: str = ""
) -> Path:
    """Add a run that was made elsewhere; the arguments are those of :func:`ftkit.commands.ablation.ablation_add`.

    Returns:
        The run folder; a run that was added before under this row and seed is replaced.

    Raises:
        InputError: A file cannot be used, the row is the ablation's own, or the examples or their labels are not those
            of the ablation. Nothing is changed.
        EnvironmentFault: The folder is taken or cannot be written.
    """
    number, _ = label_parts(row)
    stated = {} if costs is None else _read_costs(costs)
    sweep, found = read_sweep(directory), read_predictions(predictions)
    _refuse_other_examples(sweep, found, predictions)
    seed = next((run.seed for run in sweep.done), 123) if seed is None else seed
    folder = directory / row / f"seed-{seed}"
    identity = {EXTERNAL: {"predictions": predictions.name, "sha256": sha256_of(predictions), "costs": stated}}
    with exclusive(directory), new_folder(folder, replace=True) as new:
        columns = (found.ids, found.labels, found.predictions, found.scores, found.score_names, found.extra)
        write_predictions(new / predictions_file("test"), *columns)
        result = json.dumps({**_result(found, stated, predictions.name), "seed": seed}, indent=1)
        (new / RESULT_FILE).write_text(result, encoding="utf-8")
        done = sha256_of(new / RESULT_FILE)
        add_row(directory, row, question)
        entry = Entry(f"{row}/{folder.name}", number, seed, "done", key_of(identity), identity, done)
        Ledger(directory).append(entry)  # killed before the folders change places, the run is unfinished
    return folder


def _read_costs(path: Path) -> dict[str, Any]:
    costs = read_config(path)
    for name, value in costs.items():
        if name not in (*_NUMBERS, *_TEXTS):
            raise InputError("is no cost", file=path, field=str(name), fix=f"use {', '.join((*_NUMBERS, *_TEXTS))}")
        if name in _TEXTS and not isinstance(value, str):
            raise InputError("is not a text", file=path, field=name, got=value)
        if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise InputError("is not a number from 0 on", file=path, field=name, got=value)
    return costs


def _result(found: Predictions, stated: dict[str, Any], source: str) -> dict[str, Any]:
    """Return what a run of ftkit's leaves as ``result.json``."""
    points = half_points(found)
    counts = {"n": len(points), "correct": int((points == WON).sum())}
    ties, device = int((points == TIED).sum()), stated.get("device", "unknown")
    return {
        "format": FORMAT,
        "splits": {"test": counts | ({"ties": ties} if ties else {})},
        "seconds": {"stated": stated.get("seconds")},
        "peak_memory_mb": stated.get("peak_memory_mb"),
        "parameters": {"trainable": stated.get("trainable_parameters")},
        "checkpoint_mb": stated.get("checkpoint_mb"),
        "device": device,
        "hardware": {"cpu" if device == "cpu" else "gpu": stated.get("machine")},
        "base": {"model": stated.get("base_model")},
        "data": {"source": source},
        "versions": {"made elsewhere": stated.get("made_with", source)},
    }


def _refuse_other_examples(sweep: Sweep, found: Predictions, source: Path) -> None:
    """Compare examples and labels with those of the first run that has some: rows are compared example by example."""
    if None in found.labels:
        raise InputError("an example has no label", file=source, field=found.ids[found.labels.index(None)])
    theirs = next((run.answers for run in sweep.done if run.answers is not None), None)
    ours = read_run_answers(source, None)
    if theirs is not None and over_seeds([ours, theirs]) is None:
        problem = f"its {len(ours):,} examples or their labels are not the {len(theirs):,} of {theirs.path}"
        got = f"{len(np.intersect1d(ours.identity, theirs.identity)):,} ids in common"
        raise InputError(problem, file=source, got=got, fix="give the ids and labels of the ablation's test examples")
