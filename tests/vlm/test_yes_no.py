"""Yes or no about an image, as a number and as words."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from torchmetrics.classification import BinaryAUROC

from ftkit import BinaryEvaluator
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.yes_no import VLMYesNo, log_odds, telling_tokens


class Words:
    """A tokenizer with a token a letter, and whole words as it is told."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [1000 + self.words.index(text)] if text in self.words else [ord(letter) for letter in text]


def test_every_spelling_counts_but_what_begins_both_words() -> None:
    negative, positive = telling_tokens(Words("yes", " Yes"), "no", "yes")
    assert negative == sorted([ord("n"), ord("N")])  # " no" begins with the blank that begins " yes" as well
    assert positive == sorted([ord("Y"), 1000, 1001])
    with pytest.raises(InputError, match="begins both answers with the same token"):
        telling_tokens(Words(), "approved", "allowed")


def test_log_odds_are_of_sums_of_probabilities() -> None:
    probabilities = torch.tensor([[0.05, 0.1, 0.25, 0.6], [0.4, 0.1, 0.3, 0.2]])
    found = log_odds(probabilities.log().to(torch.float64) + 7, negative=[0, 1], positive=[2])
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([0.25 / 0.15, 0.3 / 0.5]).log())


def test_the_score_names_the_class_as_the_labels_do() -> None:
    module = VLMYesNo(base_model="x", positive="Yes.", negative="No")
    assert module.score_name == "log_odds:yes"  # predictions() writes normalized labels


def test_the_words_must_differ() -> None:
    with pytest.raises(InputError, match="positive"):
        VLMYesNo(base_model="x", positive="No.", negative="no")
    with pytest.raises(InputError, match="negative: is not a word"):
        VLMYesNo(base_model="x", negative=" .")


def test_words_that_cannot_be_told_apart_are_refused_before_the_training(
    approvals: Path, paligemma_folder: Path, tmp_path: Path
) -> None:
    approvals.write_text(approvals.read_text().replace('"no"', '"yesterday"'))
    module = VLMYesNo(base_model=str(paligemma_folder), positive="yes", negative="yesterday")
    with pytest.raises(InputError, match="begins both answers with the same token"):
        trainer(tmp_path, 1).fit(module, datamodule=data(approvals))
    assert module.net is None


@pytest.fixture
def approvals(tmp_path: Path) -> Path:
    """24 pictures, blue ones approved, and the question."""
    examples = []
    for number in range(24):
        approved = number % 2 == 0
        colour = (0, 0, 200 + number) if approved else (200 + number, 0, 0)
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{number}.png")
        answer = "yes" if approved else "no"
        examples.append({"id": f"a{number}", "prefix": "Approved?", "suffix": answer, "image": f"{number}.png"})
    path = tmp_path / "approvals.jsonl"
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")
    return path


def data(file: Path) -> VLMDataModule:
    return VLMDataModule(train=str(file), fractions=(0.5, 0.25), batch_size=6)


def trainer(folder: Path, epochs: int) -> L.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=[RunRecorder()],
        enable_checkpointing=False, limit_val_batches=0, **quiet,
    )  # fmt: skip


@pytest.mark.parametrize("family", ["idefics3", "paligemma", "paligemma2"])
def test_scores_are_those_of_the_first_answer_token(
    family: str, approvals: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    module = VLMYesNo(base_model=str(request.getfixturevalue(f"{family}_folder")), max_new_tokens=4)
    run, examples = trainer(tmp_path / "run", 1), data(approvals)
    run.test(module, datamodule=examples, verbose=False)
    found = read_predictions(tmp_path / "run" / "predictions-test.tsv")
    assert found.score_name == "log_odds:yes"
    assert found.scores is not None
    assert set(found.extra["stopped"]) <= {"yes", "no"}
    unfinished = [said.endswith("…") for said in found.predictions]
    assert unfinished == [stopped == "no" for stopped in found.extra["stopped"]]
    no, yes = module.first_tokens
    (loader,) = examples.test_dataloader()
    expected = {}
    for batch in loader:
        with torch.no_grad():
            probabilities = module.net(**batch["prompts"]).logits[:, -1].softmax(-1)
        odds = probabilities[:, yes].sum(-1) / probabilities[:, no].sum(-1)
        expected |= dict(zip(batch["id"], odds.log().tolist(), strict=True))
    assert dict(zip(found.ids, found.scores.tolist(), strict=True)) == pytest.approx(expected, abs=1e-4)


def test_scores_in_bfloat16_are_not_rounded_by_the_head(
    approvals: Path, paligemma2_folder: Path, tmp_path: Path
) -> None:
    module = VLMYesNo(base_model=str(paligemma2_folder), dtype="bfloat16", max_new_tokens=1)
    module.first_tokens = tuple([tokens[0]] for tokens in module.first_tokens)  # sums over spellings tie less often
    every = str(approvals)
    examples = VLMDataModule(every, every, every, batch_size=6)
    trainer(tmp_path, 1).test(module, datamodule=examples, verbose=False)
    scores = read_predictions(tmp_path / "predictions-test.tsv").scores
    (loader,) = examples.test_dataloader()
    with torch.no_grad():
        logits = torch.cat([module.net(**batch["prompts"]).logits[:, -1] for batch in loader])
    assert logits.dtype == torch.bfloat16
    rounded = log_odds(logits, *module.first_tokens)
    assert len(set(rounded.tolist())) < 20 < len(set(scores.tolist()))  # 24 pictures of other shades
    assert torch.tensor(scores.tolist()) == pytest.approx(rounded, abs=0.05)


def test_labels_are_never_refused_for_their_spelling(
    approvals: Path, paligemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels, answers and the name of the score are spelled by the rule that the evaluator has."""
    spellings = {"yes": ["Yes!", "yes.", "\uff39\uff25\uff33", "«yes»"], "no": ["No!", "**no**", "(NO)", "no"]}
    examples = [json.loads(line) for line in approvals.read_text(encoding="utf-8").splitlines()]
    for number, example in enumerate(examples):
        example["suffix"] = spellings[example["suffix"]][number // 2 % 4]
    approvals.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")
    module = VLMYesNo(base_model=str(paligemma_folder), positive="Yes!", negative="no.", max_new_tokens=2)
    whole = VLMDataModule(str(approvals), str(approvals), str(approvals), batch_size=12)
    trainer(tmp_path, 1).test(module, datamodule=whole, verbose=False)
    path = tmp_path / "predictions-test.tsv"
    assert read_predictions(path).labels == ["yes", "no"] * 12
    assert main(["evaluate", str(path), "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert (file["positive"], file["negative"], file["n"]) == ("yes", "no", 24)


def test_tuning_moves_the_scores_and_the_evaluator_reads_them(
    approvals: Path, paligemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    L.seed_everything(1)
    module = VLMYesNo(
        base_model=str(paligemma_folder), freeze_vision=False, max_new_tokens=4, seed=1,
        optimizer=lambda params: torch.optim.AdamW(params, lr=3e-3),
    )  # fmt: skip
    trainer(tmp_path / "before", 1).test(module, datamodule=data(approvals), verbose=False)
    trainer(tmp_path / "after", 12).fit(module, datamodule=data(approvals))
    trainer(tmp_path / "after", 12).test(module, datamodule=data(approvals), verbose=False)
    files = [str(tmp_path / run / "predictions-test.tsv") for run in ("before", "after")]
    assert main(["evaluate", *files, "--positive", "yes", "--json"]) == 0
    before, after = json.loads(capsys.readouterr().out)["files"]
    assert after["figures"]["auroc"] == 1.0
    assert after["counts"]["tp"] + after["counts"]["tn"] == 6
    assert before["counts"] != after["counts"]


def test_validation_logs_what_the_evaluator_finds_in_the_file(
    approvals: Path, paligemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"auroc": BinaryAUROC(), "all": BinaryEvaluator()}
    module = VLMYesNo(base_model=str(paligemma_folder), max_new_tokens=2, metrics=metrics)
    every = str(approvals)
    run = trainer(tmp_path, 1)
    run.limit_val_batches = 1.0
    (logged,) = run.validate(module, datamodule=VLMDataModule(every, every, every, batch_size=5), verbose=False)
    assert main(["evaluate", str(tmp_path / "predictions-val.tsv"), "--positive", "yes", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["counts"]["unparsed"] == logged["val/all_unparsed_positive"] + logged["val/all_unparsed_negative"]
    assert file["figures"]["accuracy"] == pytest.approx(logged["val/accuracy"])
    assert file["figures"]["auroc"] == pytest.approx(logged["val/auroc"], abs=1e-6)
    assert file["figures"]["auroc"] == pytest.approx(logged["val/all_auroc"], abs=1e-6)
