"""Plan the rows of an ablation, or a single config, on a device."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
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

Procedure = Literal["ftkit", "published"]


# What changes no shape and no operator: settings that differ in these alone share a plan.
_SAME_COST = {"lr", "weight_decay", "betas", "eps", "lora_alpha", "alpha", "label_smoothing", "beta", "seed", "warmup"}


def plan_rows(
    configs: Mapping[str, list[Path]],
    device: Device,
    procedure: Procedure = "ftkit",
    tries: Mapping[str, Sequence[Setting]] | None = None,
    seeds: int = 1,
) -> list[dict[str, Any]]:
    """Plan each row.

    What rows share, cached outputs of frozen layers, counts in the first row that computes it.

    Args:
        configs: The config files of each row, from :func:`ftkit.ablation.folder.row_configs`.
        device: The device.
        procedure: ftkit's own, or that of the published GPT-2 table.
        tries: The settings to run each row with; None runs it as its files say.
        seeds: How often each of them is run.

    Returns:
        For each row ``row``, ``trainable``, ``frozen``, ``tokens``, ``tflops``, ``moved_gb``, ``minutes``,
        ``at_peak_minutes`` (of its products at the device's peak), ``shared_minutes`` (what other rows share),
        ``peak_gb`` and its parts, ``measured_as_gb`` (the peak as a run measures it), ``fits`` and ``largest_batch``
        of one run; ``runs``, ``shapes`` (how many settings were planned) and ``total_minutes`` of all of them. Or
        ``row`` and the reason, ``not_planned``.

    Raises:
        InputError: A config cannot be used.
    """
    known: set[str] = set()
    return [
        {"row": name, **_runs(files, device, procedure, [()] if tries is None else tries[name], seeds, known)}
        for name, files in configs.items()
    ]


def _runs(
    configs: list[Path], device: Device, procedure: Procedure, tries: Sequence[Setting], seeds: int, known: set[str]
) -> dict[str, Any]:
    shapes = Counter(
        tuple((path, value) for path, value in setting if path.rpartition(".")[2] not in _SAME_COST)
        for setting in tries
    )
    found, total = [], 0.0
    for setting, times in shapes.items():
        one = _planned(configs, device, procedure, setting, known)
        if "not_planned" in one:
            return one
        total += one["shared_minutes"] + times * seeds * (one["minutes"] - one["shared_minutes"])
        found.append(one)
    largest = max(found, key=lambda one: one["peak_gb"])
    memory = {name: largest[name] for name in ("fits", "largest_batch")} if len(found) > 1 else {}
    runs = {"runs": shapes.total() * seeds, "shapes": len(shapes), "total_minutes": total}
    return {**found[0], **memory, **runs}


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
        return {"not_planned": f"only trainings of ftkit's own modules are, and this is {type(model).__name__}"}
    try:
        costs = (plan_published if procedure == "published" else plan)(model, data, cli.trainer)
        return as_figures(costs, device, known)
    except InputError as error:  # such as an adapter that peft refuses for this model
        return {"not_planned": str(error)}


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
        >>> rows = [{"row": "01_small", "fits": True}, {"row": "02_xl", "fits": False}, {"row": "20_words"}]
        >>> verdict({"device": "NVIDIA T4", "minutes": 13.8, "rows": rows})
        'about 14 minutes on NVIDIA T4; 02_xl does not fit; not planned: 20_words'
    """
    too_large = [row["row"] for row in plan["rows"] if row.get("fits") is False]
    unplanned = [row["row"] for row in plan["rows"] if "fits" not in row]
    fits = f"{', '.join(too_large)} do{'es' * (len(too_large) == 1)} not fit" if too_large else "every row fits"
    others = f"; not planned: {', '.join(unplanned)}" if unplanned else ""
    return f"about {plan['minutes']:.2g} minutes on {plan['device']}; {fits}{others}"


def as_figures(costs: Costs, device: Device, known: set[str]) -> dict[str, Any]:
    """Return the figures of :func:`plan_rows`.

    Args:
        costs: Of the row.
        device: The device.
        known: What earlier rows have computed; what this one computes is added.
    """
    shared = sum(seconds(steps, device) for name, steps in costs.shared.items() if name not in known)
    known.update(costs.shared)
    memory, total = costs.memory, costs.memory.total / 1e9 + device.reserved_gb
    return {
        "trainable": costs.trainable,
        "frozen": costs.frozen,
        "tokens": round(costs.tokens),
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
