"""`ftkit predict` of texts without labels."""

import csv
import json
from pathlib import Path

import pytest

from ftkit.cli import main
from ftkit.errors import ExitCode
from ftkit.results.predictions import read_predictions

WORDS = {"good": "a fine and warm story", "bad": "a dull and loud story"}
MODELS = {"ftkit.TextClassifier": ["--model.base_model", "demo"], "ftkit.BaselineClassifier": []}


def table(path: Path, head: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 20 reviews, in the current folder."""
    monkeypatch.chdir(tmp_path)
    reviews = [[f"{text} {number}", label] for number in range(10) for label, text in WORDS.items()]
    return table(tmp_path / "train.csv", ["Review", "Stars"], reviews)


@pytest.mark.parametrize("model", MODELS)
def test_texts_without_labels_are_classified(model: str, train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "TextClassificationDataModule", "--data.train", str(train), "--data.batch_size", "2"]
    data += ["--data.columns", "{text: Review, label: Stars}"]
    options = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", "run"]
    assert main(["fit", "--model", model, *MODELS[model], *data, *options]) == 0
    predict = ["predict", "--config", "run/config.yaml"]
    assert main(predict) == 0
    kept = {name: Path("run", name).read_bytes() for name in ("result.json", "predictions-test.tsv")}
    new = table(train.with_name("new.csv"), ["Review", "place"], [["a warm story", "x"], ["a loud story", "y"]])
    capsys.readouterr()
    assert main([*predict, "--data.predict", str(new)]) == 0
    assert "run folder: run (predictions-predict.tsv)" in (said := capsys.readouterr().out)
    assert "accuracy" not in said
    found = read_predictions("run/predictions-predict.tsv")
    assert (found.ids, found.labels) == (["r00001", "r00002"], [None, None])
    assert set(found.predictions) <= WORDS.keys()
    assert Path("run/predictions-test.tsv").read_bytes() == kept["predictions-test.tsv"]
    assert json.loads(Path("run/result.json").read_text()) == json.loads(kept["result.json"])
    assert main(["evaluate", "run/predictions-predict.tsv"]) == ExitCode.INPUT
    capsys.readouterr()
    assert main([*predict, "--data.test", str(new)]) == ExitCode.INPUT
    assert "the columns are Review, place; texts without labels are for `ftkit predict" in capsys.readouterr().err
