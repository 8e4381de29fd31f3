"""A tuned model that answers yes or no about images, and the decision of a frozen threshold."""

import base64
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from running_server import Running

from ftkit.commands.serving_setup import load_served
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions
from ftkit.results.threshold import Threshold
from ftkit.run_folder import CONFIG_FILE
from ftkit.serving.classifier import BatchClassifier
from ftkit.serving.jobs import Classification
from ftkit.serving.limits import Limits
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.yes_no import VLMYesNo
from vlm_folders import build_idefics3

image_module = pytest.importorskip("PIL.Image")


def uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of an epoch, and the folder of its data."""
    folder = tmp_path_factory.mktemp("approvals")
    base = build_idefics3(folder / "base")
    examples = []
    for number in range(8):
        image_module.new("RGB", (20, 16), (30 * number, 255 - 30 * number, 90)).save(folder / f"{number}.png")
        answer = "yes" if number % 2 else "no"
        examples.append({"id": f"a{number}", "prefix": "Approved?", "suffix": answer, "image": f"{number}.png"})
    data = folder / "approvals.jsonl"
    data.write_text("".join(f"{json.dumps(example)}\n" for example in examples))
    module = VLMYesNo(base_model=str(base), max_new_tokens=3)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=folder / "run", callbacks=[RunRecorder()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    every = VLMDataModule(str(data), str(data), str(data), batch_size=4)
    trainer.fit(module, datamodule=every)
    trainer.test(module, datamodule=every, verbose=False)
    trainer.save_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")
    return folder / "run", folder


def threshold(folder: Path, value: float, kind: str = "log_odds", positive: str = "yes", negative: str = "no") -> Path:
    path = folder / f"threshold-{kind}-{positive}.json"
    Threshold(value, kind, positive, negative, "accuracy", 0.9, 8, "val.tsv", "0" * 64).save(path)
    return path


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    running = []

    def starting(folder: Path, **options: Any) -> Running:
        limits = Limits(drain_seconds=5.0)
        running.append(Running(load_served(str(folder), None, None, None, limits, 4, **options), limits))
        return running[-1]

    yield starting
    for server in running:
        server.stop()


def test_images_are_classified_as_in_the_prediction_file(
    run: tuple[Path, Path], tmp_path: Path, serving: Callable[..., Running]
) -> None:
    folder, data = run
    found = read_predictions(folder / "predictions-test.tsv")
    assert found.scores is not None
    middle = float(sorted(found.scores)[4])
    server = serving(folder, threshold=threshold(tmp_path, middle - 1e-3))
    questions = [{"text": "Approved?", "image": uri(data / f"{name[1:]}.png")} for name in found.ids]
    reply = server.post("/v1/classify", {"input": questions})
    assert reply.status_code == 200, reply.text
    results = reply.json()["data"]
    assert [result["log_odds"] for result in results] == pytest.approx(found.scores.tolist(), abs=1e-4)
    assert [result["answer"] for result in results] == found.predictions
    for result in results:
        assert result["label"] == ("yes" if result["log_odds"] > 0 else "no")
        assert result["probability"] == pytest.approx(1 / (1 + math.exp(-abs(result["log_odds"]))))
        assert result["decision"] == ("yes" if result["log_odds"] >= middle - 1e-3 else "no")
    assert {result["decision"] for result in results} == {"yes", "no"}
    [alone] = server.post("/v1/classify", {"input": questions[0]}).json()["data"]
    assert alone["log_odds"] == pytest.approx(results[0]["log_odds"], abs=1e-4)


def test_images_are_prepared_by_the_options_of_training(
    run: tuple[Path, Path], tmp_path: Path, serving: Callable[..., Running]
) -> None:
    folder, data = run
    options = {"image_mean": [0.9, 0.1, 0.2]}
    module = VLMYesNo.load(folder)
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, callbacks=[RunRecorder()], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    file = str(data / "approvals.jsonl")
    trainer.test(module, datamodule=VLMDataModule(file, file, file, image_options=options), verbose=False)
    found, plain = (read_predictions(where / "predictions-test.tsv") for where in (tmp_path, folder))
    assert found.scores is not None
    assert plain.scores is not None
    assert abs(found.scores - plain.scores).max() > 1e-2  # or the options could be missing
    again = shutil.copytree(folder, tmp_path / "run")
    config = {"data": {"class_path": "ftkit.VLMDataModule", "init_args": {"image_options": options}}}
    (again / CONFIG_FILE).write_text(json.dumps(config))
    questions = [{"text": "Approved?", "image": uri(data / f"{name[1:]}.png")} for name in found.ids]
    results = serving(again).post("/v1/classify", {"input": questions}).json()["data"]
    assert [result["log_odds"] for result in results] == pytest.approx(found.scores.tolist(), abs=1e-4)


def test_a_question_longer_than_any_context_is_refused(run: tuple[Path, Path], serving: Callable[..., Running]) -> None:
    server = serving(run[0])
    most = server.served.characters
    assert most is not None
    question = {"text": "x" * (most + 1), "image": uri(run[1] / "1.png")}
    reply = server.post("/v1/classify", {"input": question})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(f"input.text: the prompt has {most + 1:,} characters")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Approved?", "input: this model reads objects with a text and an image"),
        ({"text": "a", "image": "http://localhost/a.png"}, "image: must be a data URI"),
        ({"text": "a", "image": "/etc/passwd"}, "image: must be a data URI"),
        ({"text": "a", "image": "data:image/png;base64,AAAA"}, "image"),
        ({"text": "a", "image": "data:image/png;base64,A A!"}, "damaged"),
        ({"text": "a"}, "input.image: Field required"),
        ([{"text": "a", "image": ""}], "input.0.image: String should have at least 1 character"),
    ],
)
def test_what_is_no_image_is_refused(
    run: tuple[Path, Path], serving: Callable[..., Running], given: Any, message: str
) -> None:
    server = serving(run[0])
    reply = server.post("/v1/classify", {"input": given})
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
    assert len(reply.text) < 1000
    question = {"text": "Approved?", "image": uri(run[1] / "1.png")}
    assert server.post("/v1/classify", {"input": question}).status_code == 200


class Fixed:
    """Has one score for all, and reads texts."""

    class_names = ("ham", "spam")

    def classify(self, items: Any, batch_size: int = 8) -> list[dict[str, Any]]:
        return [{"label": "spam", "probability": 0.8, "log_odds": math.log(4)} for _ in items]


@pytest.mark.parametrize(("kind", "value", "decision"), [
    ("probability", 0.79, "spam"), ("probability", 0.81, "ham"), ("log_odds", 1.38, "spam"), ("log_odds", 1.39, "ham"),
])  # fmt: skip
def test_the_threshold_decides_whatever_the_label(tmp_path: Path, kind: str, value: float, decision: str) -> None:
    frozen = Threshold.load(threshold(tmp_path, value, kind, "spam", "ham"))
    engine = BatchClassifier(Fixed(), 4, frozen)
    delivered: list[Any] = []
    engine.admit([Classification(delivered.append, item="a")])
    engine.step()
    assert delivered == [{"label": "spam", "probability": 0.8, "log_odds": math.log(4), "decision": decision}]


def test_a_threshold_of_other_classes_or_scores_is_refused(tmp_path: Path) -> None:
    for kind, positive, negative in (("probability", "ham", "spam"), ("margin", "spam", "ham")):
        frozen = Threshold(0.5, kind, positive, negative, "accuracy", 0.9, 8, "val.tsv", "0" * 64)
        with pytest.raises(InputError, match="threshold: is "):
            BatchClassifier(Fixed(), 4, frozen)


def test_a_threshold_is_read_and_refused_before_a_model_is_loaded(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was loaded")

    for name in ("load_run", "load_generator"):
        monkeypatch.setattr(f"ftkit.commands.serving_setup.{name}", never)
    (tmp_path / "torn.json").write_text("{")
    for model, file, message in (
        (str(run[0]), tmp_path / "torn.json", "not a threshold file"),
        ("demo", threshold(tmp_path, 0.5), "threshold: is for classifiers, which have scores"),
    ):
        with pytest.raises(InputError, match=message):
            load_served(model, None, None, None, Limits(), 4, threshold=file)


def test_a_classifier_of_texts_refuses_images(start: Any) -> None:
    server = start(BatchClassifier(Fixed(), 4), classifier=True)
    reply = server.post("/v1/classify", {"input": {"text": "a", "image": "data:image/png;base64,AAAA"}})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "input: this model reads texts"
    assert server.post("/v1/classify", {"input": ["a"]}).json()["data"][0]["log_odds"] == math.log(4)
