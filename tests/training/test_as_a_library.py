"""Lightning's own calls with ftkit's modules, without the command line: ``test`` and ``load_from_checkpoint``."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig

import ftkit
from ftkit.errors import InputError
from ftkit.training.recorder import RunRecorder
from ftkit.training.trained_state import TrainedStateModule

Case = tuple[Callable[[], Any], Callable[[], L.LightningDataModule]]
WORDS = {"negative": "bad", "neutral": "plain", "positive": "good"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def trainer_in(folder: Path, **options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(default_root_dir=folder, accelerator="cpu", devices=1, **{"max_epochs": 1, **quiet, **options})


@pytest.fixture(params=["two classes", "three classes", "adapters", "sft", "vlm sft", "vlm dpo", "yes or no"])
def case(
    request: pytest.FixtureRequest,
    gpt2_folder: Path,
    idefics3_folder: Path,
    messages_file: Path,
    vlm_examples: Callable[[str], Path],
    tmp_path: Path,
) -> Case:
    """How a module and its data are made."""
    sheet = tmp_path / "three.csv"
    lines = [f"{label},{WORDS[label]} {number}" for number in range(8) for label in WORDS]
    sheet.write_text("\n".join(["label,text", *lines]), encoding="utf-8")
    asked = vlm_examples("messages").with_name("asked.jsonl")  # beside the pictures
    rows = [json.loads(line) for line in vlm_examples("messages").read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        row["messages"][-1]["content"] = ("yes", "no")[number % 2]
    asked.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def classifier(**options: Any) -> Any:
        return ftkit.TextClassifier(str(gpt2_folder), seed=1, **options)

    def vlm(kind: Any, **options: Any) -> Any:
        return lambda: kind(base_model=str(idefics3_folder), seed=1, **options)

    def pictures(file: Path) -> Callable[[], L.LightningDataModule]:
        return lambda: ftkit.VLMDataModule(*[str(file)] * 3, batch_size=4, seed=1)

    def sums() -> L.LightningDataModule:
        return ftkit.ArithmeticDataModule(train_size=16, val_size=4, test_size=8)

    def sentiment() -> L.LightningDataModule:
        return ftkit.TextClassificationDataModule(str(sheet), batch_size=4)

    cases: dict[str, Case] = {
        "two classes": (classifier, lambda: ftkit.SpamDataModule(str(messages_file), split="balanced")),
        "three classes": (classifier, sentiment),
        "adapters": (lambda: classifier(adapter=LoraConfig(lora_dropout=0.5)), sentiment),
        "sft": (lambda: ftkit.CausalLMSFT(str(gpt2_folder), seed=1, max_new_tokens=3), sums),
        "vlm sft": (vlm(ftkit.VLMSFT, max_new_tokens=3), pictures(vlm_examples("messages"))),
        "vlm dpo": (vlm(ftkit.VLMDPO), pictures(vlm_examples("preference"))),
        "yes or no": (vlm(ftkit.VLMYesNo, max_new_tokens=3), pictures(asked)),
    }
    return cases[request.param]


def figures_of(trainer: L.Trainer, module: Any, data: L.LightningDataModule, **options: Any) -> dict[str, float]:
    (figures,) = trainer.test(module, datamodule=data, verbose=False, **options)
    return dict(figures)


def test_a_checkpoint_is_tested_and_loaded_as_lightning_does(case: Case, tmp_path: Path) -> None:
    make, data = case
    torch.manual_seed(2)
    trainer = trainer_in(tmp_path / "fit")
    trainer.fit(module := make(), datamodule=data())
    checkpoint = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    expected = figures_of(trainer, module, data(), ckpt_path="best")
    accuracy = "test/rewards/accuracies" if isinstance(module, ftkit.VLMDPO) else "test/accuracy"
    assert {"test/loss", accuracy} <= expected.keys()

    assert figures_of(trainer_in(tmp_path / "fresh"), make(), data(), ckpt_path=checkpoint) == expected
    untrained = figures_of(trainer_in(tmp_path / "untrained"), make(), data())
    assert untrained["test/loss"] != expected["test/loss"]

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found keys")  # of Lightning's own: every frozen weight by name
        loaded = type(module).load_from_checkpoint(checkpoint)
    assert figures_of(trainer_in(tmp_path / "loaded"), loaded, data()) == expected
    further = trainer_in(tmp_path / "further", callbacks=[RunRecorder()])
    further.fit(loaded, datamodule=data())  # it goes on training
    now = figures_of(further, loaded, data())
    assert now["test/loss"] != expected["test/loss"]
    recorded = json.loads((tmp_path / "further" / "result.json").read_text())
    assert recorded["splits"]["test"]["accuracy"] == pytest.approx(now[accuracy])


def trained(folder: Path, base: Path, **options: Any) -> tuple[TrainedStateModule, str]:
    sheet = folder / "sheet.csv"
    folder.mkdir(exist_ok=True)
    lines = [f"{label},{word} {number}" for number in range(8) for label, word in WORDS.items()]
    sheet.write_text("\n".join(["label,text", *lines]), encoding="utf-8")
    module = ftkit.TextClassifier(str(base), seed=1, **options)
    trainer = trainer_in(folder)
    trainer.fit(module, datamodule=ftkit.TextClassificationDataModule(str(sheet), batch_size=4))
    return module, trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]


def test_a_loaded_module_is_in_training_mode_and_classifies(gpt2_folder: Path, tmp_path: Path) -> None:
    module, checkpoint = trained(tmp_path / "run", gpt2_folder)
    loaded = ftkit.TextClassifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True, strict=True)
    assert loaded.training
    assert not ftkit.TextClassifier.load(checkpoint).training
    assert loaded.class_names == ("negative", "neutral", "positive")
    assert loaded.classify(["bad 1", "good 2"]) == module.classify(["bad 1", "good 2"])  # type: ignore[operator]
    folder = ftkit.TextClassifier.load_from_checkpoint(tmp_path / "run")  # its checkpoints/*.ckpt
    assert torch.equal(folder.net.head.weight, loaded.net.head.weight)  # type: ignore[union-attr]


def test_arguments_are_changed_and_what_does_not_fit_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    _, checkpoint = trained(tmp_path / "run", gpt2_folder)
    assert ftkit.TextClassifier.load_from_checkpoint(checkpoint, cache_frozen=False).cache_frozen is False
    with pytest.raises(InputError, match="the checkpoint does not fit the model"):
        ftkit.TextClassifier.load_from_checkpoint(checkpoint, trainable="all", strict=False)
    with pytest.raises(InputError, match="hparams_file: is not taken"):
        ftkit.TextClassifier.load_from_checkpoint(checkpoint, hparams_file="hparams.yaml")
    with pytest.raises(InputError, match="no such checkpoint"):
        ftkit.TextClassifier.load_from_checkpoint(tmp_path / "none.ckpt")


def test_test_figures_are_those_of_the_test_split_alone(gpt2_folder: Path, messages_file: Path, tmp_path: Path) -> None:
    splits = ["val", "test", "train"]
    data = ftkit.SpamDataModule(str(messages_file), split="balanced", evaluate_splits=splits)
    trainer = trainer_in(tmp_path, callbacks=[RunRecorder()])
    trainer.fit(module := ftkit.TextClassifier(str(gpt2_folder), seed=1), datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["test"].keys() == {"test/loss", "test/accuracy"}
    assert result["metrics"]["test"]["test/accuracy"] == pytest.approx(result["splits"]["test"]["accuracy"])
    assert len({split["accuracy"] for split in result["splits"].values()}) > 1  # another split would show
