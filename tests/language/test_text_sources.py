"""Each source of training data, loaded by the data module for text and trained on; splits given and held out."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from source_files import OTHERS, RECORDS, SOURCES, frame, saved_splits

from chat_folders import build_chat_model
from ftkit.errors import InputError
from ftkit.language.data import TextDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.training.recorder import RunRecorder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    special = {"pad_token": "<pad>", "eos_token": "<|endoftext|>"}
    return str(build_chat_model(tmp_path_factory.mktemp("weights") / "model", None, special))


def fit(model: str, folder: Path, data: TextDataModule) -> L.Trainer:
    run = L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, default_root_dir=folder / "run",
        num_sanity_val_steps=0, limit_val_batches=0, callbacks=[RunRecorder()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    run.fit(CausalLMSFT(model, max_new_tokens=4), datamodule=data)
    return run


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_gives_the_same_examples_and_is_trained_on(name: str, model: str, tmp_path: Path) -> None:
    data = TextDataModule(**SOURCES[name](tmp_path), fractions=(1.0, 0.0), batch_size=4)
    found = [(example.prompt, example.completion, example.columns.get("note")) for example in data.examples("train")]
    assert found == [(one["prompt"], one["completion"], one["note"]) for one in RECORDS]
    assert [example.prompt for example in data.examples("val")] == [one["prompt"] for one in OTHERS if "Dict" in name]
    run = fit(model, tmp_path, data)
    assert run.global_step == 1
    assert torch.isfinite(run.logged_metrics["train/loss"])


def examples(n: int, prompts: int) -> list[dict[str, str]]:
    return [{"prompt": f"{number % prompts} =", "completion": f" {number}"} for number in range(n)]


def sizes(data: TextDataModule) -> tuple[int, int, int]:
    train, val, test = (data.examples(split) for split in ("train", "val", "test"))  # type: ignore[arg-type]
    prompts = [{one.prompt for one in part} for part in (train, val, test)]
    assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]
    return len(train), len(val), len(test)


def test_what_is_not_given_is_held_out_of_train(tmp_path: Path) -> None:
    source, other = examples(100, 50), [{"prompt": "other", "completion": " x"}]
    assert sizes(TextDataModule(source)) == (80, 10, 10)
    assert sizes(TextDataModule(source, fractions=(0.5, 0.3))) == (50, 30, 20)
    assert sizes(TextDataModule(source, fractions=(0.9, 0.1))) == (90, 10, 0)
    assert sizes(TextDataModule(source, fractions=(1.0, 0.0))) == (100, 0, 0)
    assert sizes(TextDataModule(source, test=other)) == (90, 10, 1)
    assert sizes(TextDataModule(source, test=other, fractions=(1.0, 0.0))) == (100, 0, 1)
    assert sizes(TextDataModule(source, other)) == (100, 1, 0)
    parts = [TextDataModule(source, split_seed=seed).examples("val") for seed in (123, 123, 4)]
    assert parts[0] == parts[1] != parts[2]
    with pytest.raises(InputError, match="fractions: must be two parts of at most 1 together"):
        TextDataModule(source, fractions=(0.0, 0.5))


def test_what_is_held_out_is_said_and_recorded(model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = {
        "No validation and no test data given: 10 and 10 of 100 train examples held out, split_seed 7": {},
        "No validation data given: 10 of 100 train examples held out, split_seed 7": {"test": examples(3, 3)},
    }
    for line, given in cases.items():
        caplog.clear()
        with caplog.at_level("INFO", logger="lightning.pytorch"):
            fit(model, tmp_path, TextDataModule(examples(100, 50), **given, split_seed=7))
        assert line in caplog.text
        assert json.loads((tmp_path / "run" / "result.json").read_text())["data"]["held_out"] == line
    caplog.clear()
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        fit(model, tmp_path, TextDataModule(RECORDS, OTHERS))
    assert "held out" not in caplog.text
    assert "held_out" not in json.loads((tmp_path / "run" / "result.json").read_text())["data"]


def test_splits_of_a_data_set_by_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list([{"prompt": name, "completion": "x"}]) for name in ("a", "dev", "test")}
    given = datasets.DatasetDict(parts)
    data = TextDataModule("a", dataset=given)
    assert [data.examples(split)[0].prompt for split in ("train", "val", "test")] == ["a", "dev", "test"]  # type: ignore[arg-type]
    data = TextDataModule("dev", "a", "a", dataset=given)
    assert [data.examples(split)[0].prompt for split in ("train", "val", "test")] == ["dev", "a", "a"]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"train: no such split \(got None\); fix: name one of a, dev, test"):
        TextDataModule(dataset=given).examples("train")
    with pytest.raises(InputError, match=r"splits: val: no such split \(got 'b'\); fix: name one of train, validation"):
        TextDataModule(val="b", dataset=saved_splits(tmp_path)).examples("train")
    with pytest.raises(InputError, match=r"dataset: has no splits \(got 'Dataset'\)"):
        TextDataModule(dataset=given["a"]).examples("train")
    with pytest.raises(InputError, match=r"train: is not given; fix: name a file"):
        TextDataModule().examples("train")


def test_columns_by_name_and_by_number(tmp_path: Path) -> None:
    columns = {"prompt": "Frage", "completion": "Antwort"}
    table = frame([{"Frage": "1+1?", "Antwort": "2", "prompt": "other"}])
    table.to_csv(tmp_path / "a.csv", sep=";", index=False)
    (tmp_path / "b.csv").write_text("1+1?;2;x\n2+2?;4;y\n")
    expected: Any = ("1+1?", "2")
    for given, named in (
        (table, columns),
        (tmp_path / "a.csv", columns),
        (tmp_path / "b.csv", {"prompt": 0, "completion": 1}),
    ):
        example = TextDataModule(given, columns=named).examples("train")[0]
        assert (example.prompt, example.completion) == expected
    assert example.columns == {"2": "x"}
    with pytest.raises(InputError, match=r"b\.csv:1: no header, and no columns of images"):
        TextDataModule(tmp_path / "b.csv").examples("train")
