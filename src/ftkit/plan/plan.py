"""Plan the rows of an ablation, or a single config, on a device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.lightning_cli import FtkitCLI
from ftkit.plan.classifier import plan_classifier
from ftkit.plan.device import Device
from ftkit.plan.published import plan_published
from ftkit.plan.steps import Costs, seconds
from ftkit.run_config import config_arguments

Procedure = Literal["ftkit", "published"]


def plan_rows(
    configs: Mapping[str, list[Path]], device: Device, procedure: Procedure = "ftkit"
) -> list[dict[str, Any]]:
    """Plan each row.

    What rows share, cached outputs of frozen layers, counts in the first row that computes it.

    Args:
        configs: The config files of each row, from :func:`ftkit.ablation.folder.row_configs`.
        device: The device.
        procedure: ftkit's own, or that of the published GPT-2 table.

    Returns:
        For each row ``row``, ``trainable``, ``frozen``, ``tflops``, ``moved_gb``, ``minutes``, ``shared_minutes`` (what
        of them other rows share), ``peak_gb`` and its parts, ``fits`` and ``largest_batch``; or ``row`` and the reason,
        ``not_planned``.

    Raises:
        InputError: A config cannot be used.
    """
    known: set[str] = set()
    return [{"row": name, **_planned(files, device, procedure, known)} for name, files in configs.items()]


def _planned(configs: list[Path], device: Device, procedure: Procedure, known: set[str]) -> dict[str, Any]:
    arguments = [*config_arguments(configs), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    cli = FtkitCLI([*arguments, *quiet, "--trainer.enable_model_summary", "false"], run=False)
    model, data = cli.model, cli.datamodule
    if not isinstance(model, TextClassifier):
        return {"not_planned": f"only trainings of text classifiers are, and this is {type(model).__name__}"}
    if procedure == "published" and not isinstance(model, GPT2Classifier):
        raise InputError("the published procedure trains GPT-2", field="procedure", got=type(model).__name__)
    data.prepare_data()
    padding = model.reads_padding, model.sees_padding
    data.prepare(model.load_tokenizer(), model.context_length, *padding, encoder=model.encoder)
    plan: Any = plan_published if procedure == "published" else plan_classifier
    try:
        return as_figures(plan(model, data, cli.trainer), device, known)
    except InputError as error:  # such as an adapter that peft refuses for this model
        return {"not_planned": str(error)}


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
        "tflops": costs.flops / 1e12,
        "moved_gb": costs.moved / 1e9,
        "minutes": (costs.seconds(device) + shared) / 60,
        "shared_minutes": shared / 60,
        "peak_gb": total,
        "weights_gb": memory.weights / 1e9,
        "gradients_gb": memory.gradients / 1e9,
        "optimizer_gb": memory.optimizer / 1e9,
        "activations_gb": memory.activations / 1e9,
        "fits": total <= device.memory_gb,
        "largest_batch": costs.largest_batch(device),
    }
