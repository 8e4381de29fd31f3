"""Read peft's method comparison: its experiments as rows of an ablation, its results as published figures.

An experiment is a folder ``experiments/METHOD/NAME`` with ``adapter_config.json``, or none where all weights are
trained, and perhaps ``training_params.json``: what differs from ``default_training_params.json``. A result is a file in
``results``.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ftkit.errors import InputError
from ftkit.storage import new_folder

_METHOD, _TRAINING, _DEFAULTS = "adapter_config.json", "training_params.json", "default_training_params.json"
_SAID_BY_US = ("peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "inference_mode")
_AS_OPTIONS = ("optimizer_kwargs", "batch_size", "max_steps")
_NOT_COMPARED = ("seed", "batch_size_eval", "eval_steps", "compile", "use_gc", "attn_implementation")  # speed, memory
_OPTIMIZER = "AdamW"
_WARMUP = 0.1  # of the steps, in peft's utils.py
_SOURCE = """\
# peft, {folder}: one seed, no predictions were kept, so no interval and no paired test is possible.
# Settings were chosen by test accuracy, and package versions differ.
"""


def import_experiments(folder: Path, out: Path) -> str:
    """Write a new ablation folder of the experiments of a task of peft's ``method_comparison``.

    The user's own data are still to be named in it. Returned is what was written, and which experiments were left out.

    Raises:
        InputError: There are no experiments, or one cannot be read.
    """
    found = {path for name in (_METHOD, _TRAINING) for path in (folder / "experiments").glob(f"*/*/{name}")}
    experiments = sorted({path.parent for path in found})
    if not experiments:
        raise InputError("holds no experiments/METHOD/NAME", file=folder, fix="name a task of peft's method_comparison")
    if out.exists():
        raise InputError("is there already", file=out, field="out", fix="name a new folder")
    defaults = _read(folder / _DEFAULTS) if (folder / _DEFAULTS).is_file() else {}
    results, figures, left_out = _results(folder / "results"), [], []
    with new_folder(out) as new:
        (new / "rows").mkdir()
        number = 0
        for experiment in experiments:
            name = experiment.relative_to(folder / "experiments").as_posix()
            try:
                row = _row(experiment, defaults)
            except InputError as error:
                left_out.append(str(error))
                continue
            number += 1
            label = f"{number:02}_{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}"
            text = yaml.safe_dump(row, sort_keys=False, default_flow_style=None, width=10_000)
            text = f"# How good is peft's {name}?\n{text}"
            (new / "rows" / f"{label}.yaml").write_text(text, encoding="utf-8")
            if name in results:
                figures.append([number, *results[name]])
        (new / "base.yaml").write_text(_base(defaults), encoding="utf-8")
        if figures:
            (new / "published.csv").write_text(_published(folder.name, figures), encoding="utf-8")
    said = f"{number} rows and {len(figures)} published figures in {out}, which have no interval: one seed each"
    next_step = f"next: name your data in {out / 'base.yaml'}"
    return "\n".join([said, *(f"left out: {reason}" for reason in left_out), next_step])


def _row(experiment: Path, defaults: dict[str, Any]) -> dict[str, Any]:
    file = experiment / _TRAINING
    own, standard = _read(file) if file.is_file() else {}, {"optimizer_type": _OPTIMIZER, **defaults}
    changed = {name: value for name, value in own.items() if value != standard.get(name)}
    if other := sorted(changed.keys() - {*_AS_OPTIONS, *_NOT_COMPARED}):
        raise InputError("the row would be trained otherwise", file=file, field=other[0], got=changed[other[0]])
    row: dict[str, Any] = {"model": {"init_args": {"adapter": _adapter(experiment / _METHOD)}}}
    if "optimizer_kwargs" in changed:
        options = _of_adamw(defaults.get("optimizer_kwargs", {})) | changed["optimizer_kwargs"]
        row["model"]["init_args"]["optimizer"] = {"init_args": options}
    if "batch_size" in changed:
        row["data"] = {"init_args": {"batch_size": changed["batch_size"]}}
    if "max_steps" in changed:
        row["trainer"] = {"max_steps": changed["max_steps"]}
    return row


def _of_adamw(options: Iterable[str]) -> dict[str, Any]:
    """Return the optimizer's own values of some options: what an experiment leaves out is not as in the others."""
    from torch.optim import AdamW

    known = signature(AdamW).parameters
    return {name: known[name].default for name in options if name in known}


def _adapter(file: Path) -> dict[str, Any] | None:
    """Return the method as an option; None where all weights are trained."""
    if not file.is_file():
        return None
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    written = _read(file)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(written.get("peft_type"))
    if kind is None:
        raise InputError("the installed peft has no such method", file=file, got=written.get("peft_type"))
    standard = {one.name: one.default for one in fields(kind)}
    given = {name: value for name, value in written.items() if name not in _SAID_BY_US and value not in (None, {}, [])}
    if unknown := sorted(given.keys() - standard.keys()):
        raise InputError("the installed peft does not take it", file=file, field=unknown[0], got=given[unknown[0]])
    options = {name: value for name, value in given.items() if value != standard[name]}
    return {"class_path": f"peft.{kind.__name__}", **({"init_args": options} if options else {})}


def _base(defaults: dict[str, Any]) -> str:
    model = {"base_model": defaults.get("model_id", "demo"), "dtype": defaults.get("dtype", "auto")}
    optimizer = {"class_path": f"torch.optim.{_OPTIMIZER}", "init_args": defaults.get("optimizer_kwargs", {"lr": 1e-4})}
    data = {
        **dict.fromkeys(("train", "val", "test"), "NAME-YOUR-OWN.jsonl"),
        "batch_size": defaults.get("batch_size", 4),
    }
    tree = {
        "seed_everything": defaults.get("seed", 0),
        "model": {
            "class_path": "ftkit.CausalLMSFT",
            "init_args": {**model, "optimizer": optimizer, "scheduler": "cosine", "warmup": _WARMUP},
        },
        "data": {"class_path": "ftkit.TextDataModule", "init_args": data},
        "trainer": {
            "max_steps": defaults.get("max_steps", 5000),
            "gradient_clip_val": defaults.get("grad_norm_clip", 1.0),
        },
    }
    return yaml.safe_dump(tree, sort_keys=False)


def _results(folder: Path) -> dict[str, list[float]]:
    """Return validation and test accuracy in percent and minutes, by the name of the experiment."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        result = _read(file)
        try:
            name, trained = result["run_info"]["experiment_name"], result["train_info"]
            last = {key: step[key] for step in trained["metrics"] for key in step if key.endswith("accuracy")}
            if trained["status"] == "success" and "test accuracy" in last:
                share = [100 * last.get(f"{split} accuracy", float("nan")) for split in ("valid", "test")]
                found[name] = [*share, trained["train_time"] / 60]
        except (KeyError, TypeError) as error:
            raise InputError(f"is no result of peft's: {error}", file=file) from error
    return found


def _published(task: str, figures: list[list[float]]) -> str:
    lines = ["row,val,test,minutes"]
    for number, *values in figures:
        lines.append(",".join([str(number), *("" if math.isnan(value) else f"{value:.2f}" for value in values)]))
    return _SOURCE.format(folder=task) + "\n".join(lines) + "\n"


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error
    if not isinstance(read, dict):
        raise InputError("is no JSON object", file=file)
    return read
