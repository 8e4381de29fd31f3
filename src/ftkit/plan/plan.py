"""Plan the rows of an ablation, or a single config, on a device."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ftkit.ablation.setting import Setting
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.lightning_cli import FtkitCLI
from ftkit.plan.classifier import plan_classifier
from ftkit.plan.device import Device
from ftkit.plan.generative import plan_generative
from ftkit.plan.published import plan_published
from ftkit.plan.steps import Costs, seconds
from ftkit.run_config import config_arguments
from ftkit.training.generative import GenerativeModule
from ftkit.training.peak_memory import resident_memory_mb

Procedure = Literal["ftkit", "published"]
# What changes no shape and no operator: settings that differ in these alone share a plan.
_SAME_COST = {"lr", "weight_decay", "betas", "eps", "lora_alpha", "alpha", "label_smoothing", "beta", "seed", "warmup"}


def plan_rows(
    configs: Mapping[str, list[Path]],
    device: Device,
    procedure: Procedure = "ftkit",
    tries: Mapping[str, Sequence[Setting]] | None = None,
    left: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Plan each row.

    What rows share, cached outputs of frozen layers, counts in the first row that computes it.

    Args:
        configs: The config files of each row, from :func:`ftkit.ablation.folder.row_configs`.
        device: The device.
        procedure: ftkit's own, or that of the published GPT-2 table.
        tries: The settings to run each row with; None runs it as its files say.
        left: How many runs of each of them are to be made; None is one.

    Returns:
        For each row ``row``, ``trainable``, ``frozen``, ``positions``, ``tflops``, ``moved_gb``, ``minutes``,
        ``at_peak_minutes`` (of its products at the device's peak), ``shared_minutes`` (what other rows share),
        ``peak_gb`` and its parts, ``measured_as_gb`` (the peak as a run measures it), ``fits`` and ``largest_batch``
        of one run, with the setting that needs the most memory; ``runs``, ``shapes`` (how many settings were planned)
        and ``total_minutes`` of all of them. Or ``row`` and the reason, ``not_planned``.

    Raises:
        InputError: A config cannot be used.
    """
    known: set[str] = set()
    found = []
    for name, files in configs.items():
        settings = [()] if tries is None else tries[name]
        times = [1] * len(settings) if left is None else left[name]
        found.append({"row": name, **_runs(files, device, procedure, settings, times, known)})
    return found


def _runs(
    configs: list[Path],
    device: Device,
    procedure: Procedure,
    tries: Sequence[Setting],
    left: Sequence[int],
    known: set[str],
) -> dict[str, Any]:
    shapes = Counter[Setting]()
    for setting, times in zip(tries, left, strict=True):
        shapes[tuple(one for one in setting if one[0].rpartition(".")[2] not in _SAME_COST)] += times
    found, total, seen = [], 0.0, set(known)
    for setting, times in shapes.items():
        one = _planned(configs, device, procedure, setting, seen)
        if "not_planned" in one:
            return one
        total += (one["shared_minutes"] if times else 0) + times * (one["minutes"] - one["shared_minutes"])
        found.append(one)
    known.update(seen)  # not where a setting cannot be planned, whose row is not run
    runs = {"runs": shapes.total(), "shapes": len(shapes), "total_minutes": total}
    return {**max(found, key=lambda one: one["peak_gb"]), **runs}


def _planned(
    configs: list[Path], device: Device, procedure: Procedure, setting: Setting, known: set[str]
) -> dict[str, Any]:
    values = {path: value if isinstance(value, str) else json.dumps(value) for path, value in setting}
    chosen = [word for path, value in values.items() for word in (f"--{path}", value)]
    arguments = [*config_arguments(configs), *chosen, "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    cli = FtkitCLI([*arguments, *quiet, "--trainer.enable_model_summary", "false"], run=False)
    model, data = cli.model, cli.datamodule
    if procedure == "published" and not isinstance(model, GPT2Classifier):
        raise InputError("the published procedure trains GPT-2", field="procedure", got=type(model).__name__)
    kinds: Any = {TextClassifier: plan_classifier, GenerativeModule: plan_generative}
    plan = next((kinds[kind] for kind in kinds if isinstance(model, kind)), None)
    if plan is None:
        return {"not_planned": f"only text classifiers and generative modules are planned, not {type(model).__name__}"}
    try:
        costs = (plan_published if procedure == "published" else plan)(model, data, cli.trainer)
        return as_figures(costs, device if device.asynchronous else _with_data(device), known)
    except InputError as error:  # such as an adapter that peft refuses for this model
        return {"not_planned": str(error)}


def _with_data(device: Device) -> Device:
    """Return a CPU that reserves what this process holds: libraries, tokenizer and data, as in a run."""
    return replace(device, reserved_gb=max(device.reserved_gb, resident_memory_mb() / 1e3))


def summary(rows: Sequence[Mapping[str, Any]], device: Device, price: float | None = None) -> dict[str, Any]:
    """Return what rows come to together: ``device``, ``minutes``, ``price`` if an hour has one, and ``rows``."""
    minutes = sum(row.get("total_minutes", 0.0) for row in rows)
    priced = {} if price is None else {"price": minutes / 60 * price}
    return {"device": device.name, "minutes": minutes, **priced, "rows": rows}


def verdict(plan: Mapping[str, Any]) -> str:
    """Return a plan in a line.

    Args:
        plan: What :func:`summary` returned.

    Example:
        >>> rows = [{"row": "01", "runs": 4, "fits": True}, {"row": "02_xl", "runs": 2, "fits": False}, {"row": "20"}]
        >>> verdict({"device": "NVIDIA T4", "minutes": 13.8, "rows": rows})
        'about 14 minutes on NVIDIA T4 for 6 runs that are not finished; 02_xl does not fit; not planned: 20'
    """
    too_large = [row["row"] for row in plan["rows"] if row.get("fits") is False]
    unplanned = [row["row"] for row in plan["rows"] if "fits" not in row]
    fits = f"{', '.join(too_large)} do{'es' * (len(too_large) == 1)} not fit" if too_large else "every row fits"
    others = f"; not planned: {', '.join(unplanned)}" if unplanned else ""
    runs = sum(row.get("runs", 0) for row in plan["rows"])
    left = f"{runs:,} run{'s' * (runs != 1)} that {'is' if runs == 1 else 'are'} not finished"
    return f"about {plan['minutes']:.2g} minutes on {plan['device']} for {left}; {fits}{others}"


def as_figures(costs: Costs, device: Device, known: set[str]) -> dict[str, Any]:
    """Return the figures of :func:`plan_rows`.

    Args:
        costs: Of the row.
        device: The device.
        known: What earlier rows have computed; what this one computes is added.
    """
    costs = replace(costs, shared={name: steps for name, steps in costs.shared.items() if name not in known})
    known.update(costs.shared)
    shared = sum(seconds(steps, device) for steps in costs.shared.values())
    memory, total = costs.memory, costs.memory.total / 1e9 + device.reserved_gb
    return {
        "trainable": costs.trainable,
        "frozen": costs.frozen,
        "positions": round(costs.positions),
        "tflops": costs.products.total() / 1e12,
        "moved_gb": costs.moved / 1e9,
        "minutes": (costs.seconds(device) + shared) / 60,
        "at_peak_minutes": sum(n / device.peak(dtype) for dtype, n in costs.products.items()) / 60,
        "shared_minutes": shared / 60,
        "peak_gb": total,
        "measured_as_gb": total - device.reserved_gb if device.asynchronous else total,
        "weights_gb": memory.weights / 1e9,
        "gradients_gb": memory.gradients / 1e9,
        "optimizer_gb": memory.optimizer / 1e9,
        "activations_gb": memory.activations / 1e9,
        "fits": total <= device.memory_gb,
        "largest_batch": costs.largest_batch(device),
    }
