"""Estimators of scikit-learn as variants: what is fitted, chosen, kept, refused and written."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from ftkit import BaselineClassifier, TextClassificationDataModule
from ftkit.baselines.estimator_state import packed, unpacked
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions

WORDS = {"ham": ["mum", "home", "dinner", "later"], "spam": ["win", "cash", "free", "claim"], "ad": ["shop", "sale"]}
SVM = {"class_path": "sklearn.svm.LinearSVC"}


def written(path: Path, classes: tuple[str, ...] = ("ham", "spam"), each: int = 20) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for n in range(each):
            for name in classes:
                words = WORDS[name]
                odd = WORDS["ham"][0] if n % 7 == 0 else words[0]
                writer.writerow([f"{words[n % len(words)]} {words[(n // 2) % len(words)]} {odd} now {n % 3}", name])
    return path


@pytest.fixture
def configured(tmp_path: Path) -> Any:
    def make(model: Any = None, data: Any = None, **trainer: Any) -> Path:
        source = written(tmp_path / "texts.csv")
        splits = {"fractions": [0.6, 0.2], "evaluate_splits": ["train", "val", "test"], "batch_size": 4}
        quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "max_epochs": 3}
        tree = {
            "seed_everything": 123,
            "model": {"class_path": "ftkit.BaselineClassifier", "init_args": model or {}},
            "data": {
                "class_path": "ftkit.TextClassificationDataModule",
                "init_args": {"train": str(source), **splits, **(data or {})},
            },
            "trainer": {**quiet, **trainer},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return make


def run(config: Path, folder: Path, *names: str, expected: int = 0, more: tuple[str, ...] = ()) -> None:
    for name in names:
        assert main([name, "--config", str(config), "--trainer.default_root_dir", str(folder), *more]) == expected


def splits_of(config: Path) -> dict[str, tuple[list[str], list[int]]]:
    data = TextClassificationDataModule(**yaml.safe_load(config.read_text())["data"]["init_args"])
    _, splits = data.examples()
    return {name: ([one.text for one in rows], [one.label for one in rows]) for name, rows in splits.items()}


def test_fit_and_test_leave_what_scikit_learn_finds_by_itself(configured: Any, tmp_path: Path) -> None:
    config = configured(
        {"estimator": {"class_path": "sklearn.linear_model.LogisticRegression", "init_args": {"C": 3.0}}}
    )
    run(config, tmp_path / "run", "fit", "test")
    splits = splits_of(config)
    alone = make_pipeline(TfidfVectorizer(), LogisticRegression(C=3.0)).fit(*splits["train"])
    for name, (texts, labels) in splits.items():
        found = read_predictions(tmp_path / "run" / f"predictions-{name}.tsv")
        assert found.predictions == [("ham", "spam")[code] for code in alone.predict(texts)]
        assert found.labels == [("ham", "spam")[code] for code in labels]
        assert found.score_names == ("probability:spam",)
        np.testing.assert_allclose(found.scores, alone.predict_proba(texts)[:, 1], atol=1e-6)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["baseline"] is True
    assert result["steps"] == 1  # of three epochs of many batches
    assert (result["seed"], result["parameters"]["trainable"]) == (123, 0)
    assert result["checkpoint_mb"] > 0
    assert set(result["splits"]) == {"train", "val", "test"}
    assert result["data"]["sizes"] == {name: len(texts) for name, (texts, _) in splits.items()}
    assert result["data"]["positive"]["train"] == sum(splits["train"][1])
    assert "truncated" not in result["data"]  # there are no tokens
    assert "scikit-learn" in result["versions"]


def test_the_setting_is_chosen_on_validation(configured: Any, tmp_path: Path) -> None:
    values = [24, 1, 3]  # with 24 of 24 neighbors all answers are the same
    near = {"class_path": "sklearn.neighbors.KNeighborsClassifier", "init_args": {"metric": "cosine"}}
    config = configured({"search": {"estimator__n_neighbors": values}, "estimator": near})
    run(config, tmp_path / "run", "fit", "test")
    splits = splits_of(config)
    right = []
    for value in values:
        alone = make_pipeline(TfidfVectorizer(), KNeighborsClassifier(value, metric="cosine")).fit(*splits["train"])
        right.append(float(alone.score(*splits["val"])))
    assert len(set(right)) > 1
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [one["val_accuracy"] for one in result["chosen"]["tried"]] == right
    assert result["chosen"]["settings"] == {"estimator__n_neighbors": values[right.index(max(right))]}
    assert result["splits"]["val"]["accuracy"] == max(right)


def test_a_checkpoint_brings_the_fitted_model_back(configured: Any, tmp_path: Path) -> None:
    run(configured({"features": {"class_path": "sklearn.feature_extraction.text.CountVectorizer"}}),
        tmp_path / "run", "fit", "test")  # fmt: skip
    model = BaselineClassifier.load(tmp_path / "run")
    found = read_predictions(tmp_path / "run/predictions-val.tsv")
    texts = splits_of(tmp_path / "config.yaml")["val"][0]
    prediction, probability = model.predict({"text": texts})
    assert model.class_names == ("ham", "spam")
    assert [model.class_names[code] for code in prediction] == found.predictions
    np.testing.assert_allclose(probability[:, 1], found.scores, atol=1e-6)


def test_a_finished_run_is_resumed_without_fitting_again(
    configured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured()
    run(config, tmp_path / "run", "fit")
    monkeypatch.setattr(BaselineClassifier, "fit", lambda *given: pytest.fail("was fitted again"))
    run(config, tmp_path / "run", "fit", more=("--resume",))
    run(config, tmp_path / "run", "test")


def test_options_of_gradients_in_the_base_do_no_harm(configured: Any, tmp_path: Path) -> None:
    trainer = {"accumulate_grad_batches": 4, "gradient_clip_val": 1.0, "precision": "bf16-mixed"}
    run(configured(**trainer), tmp_path / "run", "fit", "test", more=())
    run(configured(**trainer), tmp_path / "best", "fit", more=("--model_selection", "best", "--monitor", "val/loss"))
    assert (tmp_path / "best/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize("estimator", ["sklearn.svm.LinearSVC", "sklearn.naive_bayes.MultinomialNB"])
def test_three_classes(estimator: str, configured: Any, tmp_path: Path) -> None:
    config = configured(
        {"estimator": {"class_path": estimator}}, {"train": str(written(tmp_path / "3.csv", (*WORDS,)))}
    )
    run(config, tmp_path / "run", "fit", "test")
    found = read_predictions(tmp_path / "run/predictions-test.tsv")
    assert set(found.labels) == set(WORDS)
    assert (found.scores is None) == estimator.endswith("LinearSVC")  # distances from a plane are no probabilities
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        (figures,) = [row for row in csv.DictReader(file) if row.get("val/macro_f1")]
    assert float(figures["val/macro_f1"]) > 0.5


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({"search": {"C": [1]}}, {}, "search: no such setting (got 'C')"),
        ({"search": {"estimator__C": []}}, {}, "search.estimator__C: needs a list of values"),
        ({"search": {"estimator__C": [1]}}, {"fractions": [0.7, 0.0]}, "needs validation data to choose on"),
        ({"estimator": SVM | {"init_args": {"C": -1}}}, {}, "scikit-learn refuses it"),
        ({"estimator": {"class_path": "sklearn.svm.LinearSVM"}}, {}, "LinearSV"),
        ({"estimator": {"class_path": "sklearn.linear_model.Ridge"}}, {}, "tells no classes apart (got 'Ridge')"),
        ({"estimator": {"class_path": "sklearn.cluster.KMeans"}}, {}, "tells no classes apart (got 'KMeans')"),
        ({}, {"sampling": "balanced"}, "data.sampling: is of epochs, and a baseline has none"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    model: Any, data: Any, message: str, configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(model, data), tmp_path / "run", "fit", expected=2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_other_classes_than_those_it_was_fitted_on_are_refused(
    configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(), tmp_path / "run", "fit")
    other = configured(data={"train": str(written(tmp_path / "other.csv", ("ham", "ad")))})
    run(other, tmp_path / "run", "test", expected=2)
    assert "was trained on the classes ham, spam" in capsys.readouterr().err


def trained_in_python(model: BaselineClassifier, source: Path) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    trainer = L.Trainer(accelerator="cpu", **quiet)  # type: ignore[arg-type]
    trainer.fit(model, TextClassificationDataModule(str(source), batch_size=4))
    return trainer


def test_another_fit_of_the_same_model_fits_the_new_texts(tmp_path: Path) -> None:
    model = BaselineClassifier(search={"estimator__C": [1.0, 10.0]})
    trained_in_python(model, written(tmp_path / "two.csv"))
    trained_in_python(model, written(tmp_path / "other.csv", ("spam", "ham", "ad")))
    assert model.class_names == ("ad", "ham", "spam")
    alone = BaselineClassifier(search={"estimator__C": [1.0, 10.0]})
    trained_in_python(alone, tmp_path / "other.csv")
    texts = {"text": ["shop sale", "win cash", "mum home"]}
    assert model.predict(texts)[0].tolist() == alone.predict(texts)[0].tolist() == [0, 2, 1]
    torch.testing.assert_close(model.predict(texts)[1], alone.predict(texts)[1])


class Counted(TfidfVectorizer):
    """Features that say how often they were fitted."""

    fits: ClassVar[list[str]] = []

    def fit_transform(self, raw_documents: Any, y: Any = None) -> Any:
        self.fits.append(self.analyzer)
        return super().fit_transform(raw_documents, y)


def test_features_that_candidates_share_are_computed_once(tmp_path: Path) -> None:
    search = {"estimator__C": [0.1, 1.0, 10.0], "features__analyzer": ["word", "char"]}
    model = BaselineClassifier(features=Counted(), search=search)
    trained_in_python(model, written(tmp_path / "texts.csv"))
    assert sorted(Counted.fits) == ["char", "word"]
    assert len(model.found["tried"]) == 6
    assert model.pipeline.memory is None


def test_what_was_never_fitted_answers_nothing(
    configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(), tmp_path / "run", "test", expected=2, more=("--untrained",))
    assert "was never fitted" in capsys.readouterr().err
    assert not (tmp_path / "run/predictions-test.tsv").exists()


def test_a_baseline_is_neither_served_nor_pushed(
    configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(), tmp_path / "run", "fit", "test")
    assert main(["push", str(tmp_path / "run"), "me/model", "--dry_run", str(tmp_path / "out")]) == 2
    assert "is a baseline, which is neither served nor pushed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["serve", str(tmp_path / "run")]) == 2
    assert "is a baseline, which is neither served nor pushed" in capsys.readouterr().err


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/ftkit-should-not-be-there",)


@pytest.mark.parametrize("held", [Evil(), len, np.load, make_pipeline])
def test_code_in_an_estimator_is_refused_when_written_and_when_read(held: Any) -> None:
    estimator = LogisticRegression(C=held)
    with pytest.raises(InputError, match="cannot be kept in a checkpoint that runs no code"):
        packed(estimator)
    buffer = io.BytesIO()
    torch.save(estimator, buffer)
    with pytest.raises(InputError, match="cannot be kept in a checkpoint that runs no code"):
        unpacked(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    assert not Path("/tmp/ftkit-should-not-be-there").exists()
    with pytest.raises(InputError, match="cannot be read"):
        unpacked(packed(LogisticRegression())[:300])


def test_random_states_follow_the_seed() -> None:
    assert BaselineClassifier(estimator=LinearSVC(), seed=7).pipeline["estimator"].random_state == 7
    assert BaselineClassifier(estimator=LinearSVC(random_state=5), seed=7).pipeline["estimator"].random_state == 5


def test_the_doctor_has_nothing_to_examine(configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(configured())]) == 2
    assert "is fitted without gradients" in capsys.readouterr().err
