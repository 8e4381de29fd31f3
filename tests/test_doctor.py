"""`ftkit doctor` passes what is sound, and each of its checks fails where its invariant is broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from ftkit import doctor as doctoring
from ftkit.cli import main
from ftkit.doctor import examine
from ftkit.models.losses import IGNORE_INDEX
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.checks import FIXES, Finding
from ftkit.training.probe import Probe

Doctor = Callable[..., dict[str, Any]]


@pytest.fixture
def doctor(tiny_config: Path, tmp_path: Path) -> Doctor:
    """Examines the tiny classifier with some options changed: findings by name."""

    def run(**options: Any) -> dict[str, Any]:
        layer = tmp_path / "layer.yaml"
        layer.write_text(yaml.safe_dump({"model": {"init_args": options}}))
        return {finding.name: finding for finding in examine([tiny_config, layer])}

    return run


@pytest.fixture
def language_config(tmp_path: Path) -> Path:
    """The demo's small GPT-2 with adapters on sums."""
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}
    init_args = {"base_model": "demo", "adapter": {"class_path": "peft.LoraConfig"}, "optimizer": optimizer}
    tree = {
        "model": {"class_path": "ftkit.CausalLMSFT", "init_args": init_args},
        "data": {
            "class_path": "ftkit.ArithmeticDataModule",
            "init_args": {"train_size": 40, "val_size": 8, "test_size": 12, "batch_size": 8},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
    }
    path = tmp_path / "language.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"trainable": "lora", "lora_rank": 2, "pooling": "last_real", "dropout": 0.3},
        {"causal_mask": False},
        {"trainable": "all", "pooling": "mean_real", "mask_padding": True},
    ],
    ids=str,
)
def test_a_sound_classifier_passes(options: dict[str, Any], doctor: Doctor) -> None:
    found = doctor(**options)
    assert len(found) == 12
    assert [finding.name for finding in found.values() if finding.passed is False] == []
    applied = {"batch = single", "causality", "gradients", "accumulation", "frozen", "save and reload", "memory"}
    assert all(found[name].passed for name in applied)
    assert (found["padding"].passed is True) == (options != {"causal_mask": False})
    assert all(finding.seen for finding in found.values())


def test_a_sound_language_model_passes(language_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(language_config)]) == 0
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert "ok      end token" in said
    assert "n/a     images          the batch has none" in said


def test_a_failed_check_ends_with_4_and_bad_input_with_2(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctoring, "CHECKS", (lambda subject: Finding("padding", False, "seen"),))
    assert main(["doctor", str(tiny_config)]) == 4
    said = capsys.readouterr()
    assert "FAILED  padding         seen; fix: mask the padding in attention, and pool no padding" in said.out
    assert "1 of 4 checks failed: padding" in said.err
    (tmp_path / "wrong.yaml").write_text("model:\n  init_args:\n    poling: last\n")
    assert main(["doctor", str(tiny_config), str(tmp_path / "wrong.yaml")]) == 2
    assert "did you mean pooling?" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path)]) == 2
    assert f"{tmp_path}: a folder is no config file; fix: name files in it: base.yaml" in capsys.readouterr().err


def test_each_check_has_a_fix(doctor: Doctor) -> None:
    always_pass = {"access", "memory"}
    assert doctor().keys() - FIXES.keys() == always_pass


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": "linear", "warmup": 0.05},
        {"scheduler": "cosine", "warmup": 100},
        {"scheduler": {"class_path": "torch.optim.lr_scheduler.ConstantLR", "init_args": {"factor": 0.0}}},
        {"scheduler": {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"start_factor": 1e-30}}},
    ],
    ids=str,
)
def test_a_schedule_that_begins_at_a_rate_of_0_is_sound(options: dict[str, Any], doctor: Doctor) -> None:
    assert doctor(**options)["frozen"].passed is True


def broken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Break the invariant that a check is about."""
    from ftkit.classifier import text_classifier
    from ftkit.classifier.text_classifier import TextClassifier
    from ftkit.models.network import SequenceClassifier

    forward, loss, save = TextClassifier.forward, text_classifier.class_loss, AtomicCheckpointIO.save_checkpoint

    def neighbours(self: Any, batch: Any) -> Any:
        logits = forward(self, batch)
        return logits + 0.1 * logits.mean(0)

    def reads_pads(self: Any, batch: Any) -> Any:
        return forward(self, batch) + 0.1 * batch["input_ids"].shape[1]

    def summed(logits: Any, label: Any, *rest: Any) -> Any:
        return loss(logits, label, *rest) * len(label)

    def detached(self: Any, batch: Any) -> Any:
        return forward(self, batch).detach() + sum(p.sum() * 0 for p in self.parameters() if p.requires_grad)

    def decays(self: Any) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)

    def forgets(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value * 0.5 for key, value in state.items()}
        save(self, checkpoint, path)

    planted: dict[str, tuple[Any, str, Any]] = {
        "batch = single": (TextClassifier, "forward", neighbours),
        "padding": (TextClassifier, "forward", reads_pads),
        "causality": (SequenceClassifier, "run", lambda self, hidden, *rest: hidden + hidden.mean(1, keepdim=True)),
        "gradients": (TextClassifier, "forward", detached),
        "accumulation": (text_classifier, "class_loss", summed),
        "frozen": (TextClassifier, "configure_optimizers", decays),
        "save and reload": (AtomicCheckpointIO, "save_checkpoint", forgets),
    }
    monkeypatch.setattr(*planted[name])
    if name == "frozen":  # weights that get a zero gradient are decayed all the same

        class Zero(torch.optim.AdamW):
            def step(self, closure: Any = None) -> Any:
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                return super().step(closure)

        monkeypatch.setattr(TextClassifier, "configure_optimizers", lambda self: Zero(self.parameters(), lr=0.1))


@pytest.mark.parametrize(
    "name", ["batch = single", "padding", "causality", "gradients", "accumulation", "frozen", "save and reload"]
)
def test_each_check_finds_its_fault(name: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, name)
    assert doctor(pooling="last_real")[name].passed is False


def test_unlearnable_batches_are_found(doctor: Doctor, language_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftkit.training.generative import GenerativeModule

    real = Probe.__init__

    def unsupervised(self: Any, module: GenerativeModule, batch: Any, rows: int = 4) -> None:
        real(self, module, batch, rows)
        labels = self.inputs["labels"]
        labels[0] = IGNORE_INDEX
        last = (labels[1] != IGNORE_INDEX).nonzero()[-2:]
        labels[1, last] = 5  # some other token in place of the end

    monkeypatch.setattr(Probe, "__init__", unsupervised)
    found = {finding.name: finding for finding in examine([language_config])}
    assert (found["supervised"].passed, found["end token"].passed) == (False, False)
