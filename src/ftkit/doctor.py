"""Examine the first batch of a training: every check of :mod:`ftkit.training.checks`, save and reload, memory."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

from ftkit.baselines.module import Baseline
from ftkit.errors import InputError
from ftkit.lightning_cli import FtkitCLI
from ftkit.lightning_errors import explain_refusals
from ftkit.results.duplicates import duplicates_line
from ftkit.run_config import config_arguments
from ftkit.training.checkpoint import AtomicCheckpointIO, trainable_parameters
from ftkit.training.checks import CHECKS, Finding, images_counted
from ftkit.training.peak_memory import peak_memory_mb, reset_peak_memory
from ftkit.training.probe import Probe, deterministic


def examine(configs: list[Path]) -> list[Finding]:
    """Run the checks on the first batch of a training, in a folder that is removed again.

    Raises:
        FtkitError: A config, the data or the model cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="ftkit-doctor-") as folder:
        arguments = [*config_arguments(configs), "--trainer.default_root_dir", folder, "--trainer.logger", "false"]
        arguments += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
        cli = FtkitCLI([*arguments, "--trainer.num_sanity_val_steps", "0"], run=False)
        if isinstance(cli.model, Baseline):
            problem, got = "is fitted without gradients, and a batch says nothing of it", type(cli.model).__name__
            raise InputError(problem, field="model", got=got, fix="fit it: it takes seconds")
        examination = _Examination(Path(folder))
        cli.trainer.callbacks = [examination]  # type: ignore[attr-defined]
        try:
            with explain_refusals():
                cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        except examination.Over:
            return examination.findings
        cli.after_fit()  # there was nothing to train on
    raise AssertionError("training never started")


class _Examination(L.Callback):
    """Examine the first batch once everything is set up, and end the training there."""

    class Over(Exception):
        """Raised to end the training when the checks are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.findings: list[Finding] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batch = next(iter(trainer.train_dataloader))  # type: ignore[arg-type]
        subject = Probe(pl_module, trainer.strategy.batch_to_device(batch))
        if duplicates := getattr(trainer.datamodule, "report", {}).get("duplicates"):  # type: ignore[attr-defined]
            print(f"notice: {duplicates_line(duplicates)}: ftkit data audit shows them", file=sys.stderr)
        self.findings = [Finding("access", True, "weights, tokenizer and data are at hand")]
        reset_peak_memory()
        with deterministic(pl_module), trainer.precision_plugin.forward_context():
            for check in CHECKS:
                self.findings.append(check(subject))
                if check is images_counted and self.findings[-1].passed is False:
                    raise self.Over  # the network cannot run, or not on what it should
            self.findings.append(reload_equals(subject, self.folder / "doctor.ckpt"))
        self.findings.append(memory(subject, peak_memory_mb()))
        raise self.Over


def reload_equals(subject: Probe, file: Path) -> Finding:
    """Check that a saved and reloaded state gives the same outputs; before loading, trainable parameters are zeroed."""
    storage, expected = AtomicCheckpointIO(), subject.outputs(subject.batch)
    content: dict[str, Any] = {"state_dict": subject.module.state_dict()}
    subject.module.on_save_checkpoint(content)
    storage.save_checkpoint(content, file)
    with torch.no_grad():
        for parameter in trainable_parameters(subject.module).values():
            parameter.zero_()
    loaded = storage.load_checkpoint(file)
    subject.module.on_load_checkpoint(loaded)
    subject.module.load_state_dict(loaded["state_dict"], strict=subject.module.strict_loading)
    equal = torch.equal(subject.outputs(subject.batch), expected)
    size = f"{len(loaded['state_dict'])} tensors, {file.stat().st_size / 1e6:.1f} MB"
    seen = f"outputs {'equal' if equal else 'differ'}; {size}"
    return Finding("save and reload", equal, seen)


def memory(subject: Probe, peak: float) -> Finding:
    """Report the memory that the training needs at least, and what these few examples took."""
    weights = sum(p.numel() * p.element_size() for p in subject.module.parameters()) / 1e6
    learn = sum(p.numel() * p.element_size() for p in trainable_parameters(subject.module).values()) / 1e6
    seen = (
        f"weights {weights:,.0f} MB, gradients and AdamW {3 * learn:,.0f} MB, activations on top; "
        f"{peak:,.0f} MB at most with {subject.size} examples"
    )
    return Finding("memory", True, seen)
