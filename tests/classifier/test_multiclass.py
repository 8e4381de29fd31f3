"""The classifier with three and ten classes, from the config file to what it leaves."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from sklearn.metrics import f1_score

from ftkit import GPT2Classifier, TextClassificationDataModule, read_predictions
from ftkit.classifier.loss import class_loss, summed_weight
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.export import read_export

CLASSES = ("bad", "fine", "good")
WORDS = {"bad": "awful sad no", "fine": "well so okay", "good": "great yes joy"}
OWN = [f"topic {letter}" for letter in "jihgfedcba"]


def table(classes: Any = CLASSES, each: int = 16) -> pd.DataFrame:
    """Texts of unequal length whose words tell the class; the first class comes more often than the others."""
    rows = [
        {"sentence": f"{WORDS.get(name, name)} {n}" * (1 + n % 3), "sentiment": name, "place": f"p{n % 2}"}
        for name in classes
        for n in range(each * (2 if name == classes[0] else 1))
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    table().to_csv(path, index=False)
    return path


@pytest.fixture
def configured(tiny_config: Path, reviews: Path, tmp_path: Path) -> Any:
    """Makes a config of the tiny classifier on the reviews, with some options changed."""

    def make(model: Any = None, data: Any = None, **trainer: Any) -> Path:
        tree = yaml.safe_load(tiny_config.read_text())
        tree["model"]["init_args"] |= model or {}
        options = {"train": str(reviews), "batch_size": 4, "fractions": [0.6, 0.2], "evaluate_splits": ["test"]}
        tree["data"] = {"class_path": "ftkit.TextClassificationDataModule", "init_args": {**options, **(data or {})}}
        tree["trainer"] |= trainer
        path = tmp_path / f"config{len(list(tmp_path.glob('config*')))}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return make


def run(config: Path, folder: Path, *names: str, expected: int = 0) -> None:
    for name in names:
        assert main([name, "--config", str(config), "--trainer.default_root_dir", str(folder)]) == expected


def last_validation(folder: Path) -> dict[str, float]:
    with (folder / "metrics.csv").open(newline="") as file:
        row = [row for row in csv.DictReader(file) if row["val/loss"]][-1]
    return {name: float(value) for name, value in row.items() if name.startswith("val/")}


def test_a_run_of_three_classes_leaves_what_one_of_two_does(
    configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = configured({"pooling": "last_real"}), tmp_path / "run"
    run(config, folder, "fit", "validate", "test")
    capsys.readouterr()
    logged, found = last_validation(folder), read_predictions(folder / "predictions-val.tsv")
    assert set(logged) == {"val/loss", "val/accuracy", "val/macro_f1"}
    assert logged["val/accuracy"] == pytest.approx(found.correct.mean())
    assert logged["val/macro_f1"] == pytest.approx(f1_score(found.labels, found.predictions, average="macro"))
    header = (folder / "predictions-test.tsv").read_text().splitlines()[0].split("\t")
    assert header == ["id", "label", "prediction", *(f"probability:{name}" for name in CLASSES), "place"]
    tested = read_predictions(folder / "predictions-test.tsv")
    assert tested.scores is not None
    assert [CLASSES[place] for place in tested.scores.argmax(1)] == tested.predictions
    assert {*tested.extra["place"]} == {"p0", "p1"}
    result = json.loads((folder / "result.json").read_text())
    assert result["splits"]["test"] == {
        "n": 13, "correct": int(tested.correct.sum()), "accuracy": pytest.approx(tested.correct.mean())
    }  # fmt: skip
    assert result["data"]["classes"]["test"] == {"bad": 6, "fine": 4, "good": 3}
    assert "of 64 train examples held out, split_seed 123" in result["data"]["held_out"]

    model = GPT2Classifier.load(folder)
    texts = list(WORDS.values())
    answers = model.classify(texts)
    assert {answer["label"] for answer in answers} <= set(CLASSES)
    assert all(1 / 3 <= answer["probability"] <= 1 for answer in answers)
    assert main(["push", str(folder), "me/reviews", "--dry_run", str(tmp_path / "repo")]) == 0
    assert read_export(tmp_path / "repo")["encoding"]["labels"] == list(CLASSES)
    assert "The classes are bad, fine, good." in (tmp_path / "repo" / "README.md").read_text()
    assert main(["data", "show", str(config)]) == 0
    assert "; label " in capsys.readouterr().out
    assert main(["doctor", str(config)]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_ten_classes_learn_and_two_keep_the_binary_files(configured: Any, tmp_path: Path) -> None:
    table(OWN, 8).to_parquet(tmp_path / "ten.parquet")
    options = {"train": str(tmp_path / "ten.parquet"), "columns": {"text": "sentence", "label": "sentiment"}}
    run(configured({"trainable": "all"}, options, max_epochs=12), tmp_path / "ten", "fit", "test")
    found = read_predictions(tmp_path / "ten" / "predictions-test.tsv")
    assert found.score_names == tuple(f"probability:topic {letter}" for letter in "abcdefghij")
    assert found.correct.mean() > 0.5
    table(["yes", "no"]).to_csv(tmp_path / "two.csv", index=False)
    run(configured(data={"train": str(tmp_path / "two.csv"), "labels": [False, True]}), tmp_path / "two", "fit", "test")
    header = (tmp_path / "two" / "predictions-test.tsv").read_text().splitlines()[0]
    assert header == "id\tlabel\tprediction\tprobability:yes\tplace"
    assert "val/f_measure" in last_validation(tmp_path / "two")


def test_the_head_has_one_output_a_class_with_torchs_default_weights(gpt2_folder: Path, reviews: Path) -> None:
    model = GPT2Classifier(size=None, base_model=str(gpt2_folder), seed=5)
    data = TextClassificationDataModule(reviews)
    data.prepare(model.load_tokenizer(), 64)
    model.encoding = data.encoding
    model.configure_model()
    torch.manual_seed(5)
    expected = torch.nn.Linear(32, 3)
    assert model.net is not None
    assert torch.equal(model.net.head.weight, expected.weight)
    assert torch.equal(model.net.head.bias, expected.bias)


def test_a_checkpoint_of_other_classes_is_refused_by_name(
    configured: Any, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(max_epochs=1), tmp_path / "run", "fit")
    frame = pd.read_csv(reviews)
    frame["sentiment"] = frame["sentiment"].replace("fine", "meh")
    frame.to_csv(tmp_path / "other.csv", index=False)
    frame[frame["sentiment"] != "meh"].to_csv(tmp_path / "two.csv", index=False)
    others = {"train": str(tmp_path / "other.csv")}, {"train": str(tmp_path / "two.csv")}, {"labels": CLASSES[::-1]}
    for other, got in zip(others, ("bad, good, meh", "bad, good", "good, fine, bad"), strict=True):
        run(configured(data={**other, **({"labels": list(other["labels"])} if "labels" in other else {})}),
            tmp_path / "run", "test", expected=2)  # fmt: skip
        said = capsys.readouterr().err
        assert f"last.ckpt: was trained on the classes bad, fine, good (got {got!r}); fix: use data of these" in said
    assert not (tmp_path / "run" / "predictions-test.tsv").exists()


def test_a_model_is_not_taken_to_data_of_other_classes(gpt2_folder: Path, reviews: Path) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    model = GPT2Classifier(size=None, base_model=str(gpt2_folder), seed=5)
    model.configure_model()  # for two classes, as nothing is known yet
    with pytest.raises(InputError, match=r"data: the model was built for 2 classes \(got 'bad, fine, good'\)"):
        L.Trainer(accelerator="cpu", max_steps=1, **quiet).fit(model, TextClassificationDataModule(reviews))
    model = GPT2Classifier(size=None, base_model=str(gpt2_folder), seed=5)
    L.Trainer(accelerator="cpu", max_steps=1, **quiet).fit(model, TextClassificationDataModule(reviews))
    other = TextClassificationDataModule(reviews, labels=["good", "fine", "bad"])
    with pytest.raises(InputError, match=r"data: was trained on the classes bad, fine, good \(got 'good, fine, bad'"):
        L.Trainer(accelerator="cpu", **quiet).test(model, other)


# The loss


def test_balanced_weights_are_those_of_the_train_split_and_stay(configured: Any, tmp_path: Path) -> None:
    config = configured({"class_weights": "balanced", "label_smoothing": 0.1}, max_epochs=1)
    run(config, tmp_path / "run", "fit")
    checkpoint = read_checkpoint(tmp_path / "run")
    counts = json.loads((tmp_path / "run" / "result.json").read_text())["data"]["classes"]["train"]
    n = sum(counts.values())
    assert checkpoint["class_weights"] == pytest.approx([n / (3 * counts[name]) for name in CLASSES])
    assert checkpoint["class_weights"][0] < 0.7 < 1.2 < checkpoint["class_weights"][1]
    assert checkpoint["hyper_parameters"]["class_weights"] == "balanced"
    assert GPT2Classifier.load(tmp_path / "run").class_weights.tolist() == checkpoint["class_weights"]


LOGITS = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5], [0.0, 0.0, 0.0], [1.0, -2.0, 0.3]])


@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 0.5]])
@pytest.mark.parametrize("ignored", [-100, 7])
def test_smoothing_and_weights_by_hand_and_in_parts(weights: Any, ignored: int) -> None:
    label, smoothing = torch.tensor([0, 2, 1, ignored]), 0.3
    told = (None if weights is None else torch.tensor(weights), ignored)
    each, weight = LOGITS.log_softmax(-1), torch.tensor(weights or [1.0, 1.0, 1.0])
    real = [place for place in range(4) if label[place] != ignored]
    target = sum((1 - smoothing) * -each[place, label[place]] * weight[label[place]] for place in real)
    spread = sum(-(each[place] * weight).sum() / 3 * smoothing for place in real)
    whole = class_loss(LOGITS, label, *told, smoothing)
    torch.testing.assert_close(whole, (target + spread) / weight[label[real]].sum())
    assert not torch.isclose(whole, class_loss(LOGITS, label, *told))
    # Parts, each with its divisor, make the whole: as processes that share a batch do.
    parts = [(class_loss(LOGITS[half], label[half], *told, smoothing), summed_weight(label[half], *told))
             for half in (slice(0, 2), slice(2, 4))]  # fmt: skip
    torch.testing.assert_close(sum(loss * divisor for loss, divisor in parts) / sum(d for _, d in parts), whole)


def test_logged_losses_and_accuracies_are_those_of_the_prediction_files(configured: Any, tmp_path: Path) -> None:
    weights, smoothing = [4.0, 1.0, 0.5], 0.3
    model = {"class_weights": weights, "label_smoothing": smoothing, "optimizer": {"init_args": {"lr": 1e-9}}}
    data = {"batch_size": 64, "drop_last": False, "evaluate_splits": ["train", "val", "test"]}  # one batch each
    run(configured(model, data, max_epochs=1), tmp_path / "run", "fit", "test")
    logged: dict[str, float] = {}
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            logged |= {name: float(value) for name, value in row.items() if value}
    logged |= json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test"]
    for split in ("train", "val", "test"):
        found = read_predictions(tmp_path / "run" / f"predictions-{split}.tsv")
        assert found.scores is not None
        label = torch.tensor([CLASSES.index(one) for one in found.labels])
        told = torch.tensor(found.scores).log(), label, torch.tensor(weights).double(), -100
        expected = class_loss(*told, smoothing if split == "train" else 0.0)
        assert logged[f"{split}/loss"] == pytest.approx(float(expected), rel=1e-3)
        if split != "train":
            assert logged[f"{split}/accuracy"] == pytest.approx(found.correct.mean())


def test_weighted_steps_are_not_joined(gpt2_folder: Path) -> None:
    def joined(**options: Any) -> bool:
        return GPT2Classifier(size=None, base_model=str(gpt2_folder), **options).steps_join

    assert joined()
    assert joined(label_smoothing=0.1)  # a mean all the same
    assert not joined(class_weights=[1.0, 2.0])
    assert not joined(class_weights="balanced")


def test_validation_compares_losses_without_smoothing(configured: Any, tmp_path: Path) -> None:
    for name, smoothing in (("plain", 0.0), ("smooth", 0.5)):
        config = configured({"label_smoothing": smoothing, "optimizer": {"init_args": {"lr": 1e-9}}}, max_epochs=1)
        run(config, tmp_path / name, "fit")
    losses = [last_validation(tmp_path / name)["val/loss"] for name in ("plain", "smooth")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    trained = [
        next(csv.DictReader((tmp_path / name / "metrics.csv").open()))["train/loss"] for name in ("plain", "smooth")
    ]
    assert trained[0] != trained[1]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights: takes one positive weight a class (got [1.0, 2.0]); fix: there"
                                        " are 3: bad, fine, good"),
        ({"class_weights": [1.0, 2.0, 0.0]}, "class_weights: takes one positive weight a class"),
        ({"label_smoothing": 1.0}, "label_smoothing: is a probability below 1 (got 1.0)"),
        ({"ignore_index": 2}, "ignore_index: is the label of a class (got 2)"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_three_classes_are_refused(
    model: Any, said: str, configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(model), tmp_path / "run", "fit", expected=2)
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("run/checkpoints/*"))


# Metrics


def metric(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"torchmetrics.classification.{name}", "init_args": options}


def test_metrics_get_the_probabilities_of_all_classes(configured: Any, tmp_path: Path) -> None:
    from torchmetrics.classification import MulticlassAUROC, MulticlassCalibrationError

    metrics = {
        "auroc": metric("MulticlassAUROC", num_classes=3),
        "ece": metric("MulticlassCalibrationError", num_classes=3),
    }
    config = configured({"metrics": metrics}, max_epochs=1)
    run(config, tmp_path / "run", "fit", "validate")
    found, logged = read_predictions(tmp_path / "run" / "predictions-val.tsv"), last_validation(tmp_path / "run")
    assert found.scores is not None
    told = torch.tensor(found.scores.tolist()), torch.tensor([CLASSES.index(label) for label in found.labels])
    assert logged["val/auroc"] == pytest.approx(float(MulticlassAUROC(3)(*told)), abs=1e-6)
    assert logged["val/ece"] == pytest.approx(float(MulticlassCalibrationError(3)(*told)), abs=1e-6)
    assert "val/macro_f1" not in logged


@pytest.mark.parametrize(
    ("chosen", "fix"),
    [
        (metric("MulticlassF1Score", num_classes=4), "use one called Multiclass..., and num_classes 3"),
        (metric("BinaryAUROC"), "use one called Multiclass..., and num_classes 3"),
        ({"class_path": "ftkit.BinaryEvaluator"}, "use one called Multiclass..., and num_classes 3"),
    ],
)
def test_a_metric_of_another_number_of_classes_is_refused_before_training(
    chosen: Any, fix: str, configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured({"metrics": {"own": chosen}}, num_sanity_val_steps=0), tmp_path / "run", "fit", expected=2)
    said = capsys.readouterr().err
    assert "error: metrics.own: does not take the probabilities of 3 classes (got " in said
    assert f"(got '{chosen['class_path'].rpartition('.')[2]}'); fix: {fix}" in said


def test_a_metric_of_three_classes_is_refused_with_two(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (layer := tmp_path / "layer.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"metrics": metric("MulticlassF1Score", num_classes=3)}}})
    )
    command = ["fit", "--config", str(tiny_config), "--config", str(layer), "--trainer.default_root_dir"]
    assert main([*command, str(tmp_path / "run")]) == 2
    assert "metrics.MulticlassF1Score: does not take the probabilities of 2 classes" in capsys.readouterr().err


# The same results by other ways


def predicted(folder: Path) -> dict[str, tuple[str | None, ...]]:
    found = read_predictions(folder / "predictions-test.tsv")
    assert found.scores is not None
    return dict(zip(found.ids, found.scores.round(4).tolist(), strict=True))


@pytest.mark.parametrize(
    ("model", "data", "trainer"),
    [
        ({"cache_frozen": False}, {}, {}),
        ({"pooling": "last_real"}, {"padding": "none", "batch_size": 1}, {"accumulate_grad_batches": 4}),
    ],
    ids=["without the cache", "joined steps"],
)
def test_short_cuts_change_nothing(model: Any, data: Any, trainer: Any, configured: Any, tmp_path: Path, cache: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    both = {"pooling": "last_real"}
    run(configured({**both, **model}, data, max_epochs=1, **trainer), tmp_path / "one", "fit", "test")
    if data:  # one by one
        monkeypatch.setattr(TextClassificationDataModule, "join_steps", lambda self, trainer: None)
    run(configured(both, data, max_epochs=1, **trainer), tmp_path / "other", "fit", "test")
    assert predicted(tmp_path / "one") == {
        name: pytest.approx(values, abs=1e-3) for name, values in predicted(tmp_path / "other").items()
    }


def test_balanced_sampling_is_resumed_in_mid_epoch(configured: Any, tmp_path: Path) -> None:
    config = configured(data={"sampling": "balanced"}, val_check_interval=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["fit", "--config", str(config), "--trainer.default_root_dir"]
    assert main([*command, str(whole)]) == 0
    stop = "--trainer.callbacks+", "stops.StopAfter", "--trainer.callbacks.step", "3"
    assert main([*command, str(broken), *stop]) == 128 + signal.SIGTERM
    assert main([*command, str(broken), "--resume", "true"]) == 0
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    plain = configured(data={"sampling": None}, val_check_interval=2)
    run(plain, tmp_path / "plain", "fit")
    assert (tmp_path / "plain" / "metrics.csv").read_text() != (whole / "metrics.csv").read_text()
