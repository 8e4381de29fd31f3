"""What a tuned model forgets: the loss of a plain loop, nothing before training, the base's loss computed once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftkit import ArithmeticDataModule, CausalLMSFT, Forgetting
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.models.base_model import load_processor, locate
from ftkit.results.forgetting import read_losses
from ftkit.training.recorder import RunRecorder
from ftkit.training.text_losses import read_texts

SENTENCE = "see you at the station at five, and bring the tickets with you please "
TEXTS = ["win a free phone now", SENTENCE * 9, "ok", SENTENCE]
SIZE = 32
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def retained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "retained.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def sums(size: int = 40) -> ArithmeticDataModule:
    return ArithmeticDataModule(train_size=size, val_size=0, test_size=4, batch_size=4, seed=1)


def trained(
    folder: Path, callback: Forgetting, epochs: int = 0, precision: Any = None, **options: Any
) -> dict[str, float]:
    """The figures that ``test`` logs, after so many epochs."""
    adam = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)}
    module = CausalLMSFT(seed=1, max_new_tokens=2, **{"dtype": "float32", **adam, **options})
    given: dict[str, Any] = {"callbacks": [callback, RunRecorder()], "precision": precision, **QUIET}
    trainer = L.Trainer(default_root_dir=folder, max_epochs=epochs, **given)
    if epochs:
        trainer.fit(module, datamodule=sums())
    return trainer.test(module, datamodule=sums(), verbose=False)[0]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, retained: Path) -> tuple[Path, dict[str, float]]:
    """The folder of a run that was trained on sums, and its figures."""
    folder = tmp_path_factory.mktemp("learned")
    return folder, trained(folder, Forgetting(retained, max_length=SIZE), epochs=2)


def plain_loss(text: str) -> tuple[float, int]:
    """Summed loss and number of tokens, by the recipe of transformers' page on perplexity, with half windows."""
    tokenizer = AutoTokenizer.from_pretrained(Path(locate("demo")).parent / "tokenizer")
    net = AutoModelForCausalLM.from_pretrained(locate("demo"), dtype=torch.float32).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    total, scored, end_before = 0.0, 0, 0
    for begin in range(0, ids.shape[1], SIZE // 2):
        end = min(begin + SIZE, ids.shape[1])
        part = ids[:, begin:end]
        labels = part.clone()
        labels[:, : -(end - end_before)] = -100
        count = int((labels[:, 1:] != -100).sum())
        if count:
            with torch.no_grad():
                total += count * float(net(part, labels=labels).loss)
        scored, end_before = scored + count, end
        if end == ids.shape[1]:
            break
    return total, scored


def test_losses_are_those_of_a_plain_loop_and_no_token_is_scored_twice(learned: tuple[Path, Any]) -> None:
    folder, _ = learned
    tokens, before, _ = read_losses(folder / "losses-retained.tsv")
    expected = [plain_loss(text) for text in TEXTS]
    kept = [(loss, count) for loss, count in expected if count]
    assert max(count for _, count in kept) > 3 * SIZE
    assert tokens.tolist() == [count for _, count in kept]
    assert before / tokens == pytest.approx([loss / count for loss, count in kept], rel=1e-6)


def test_training_on_something_else_forgets_and_the_result_tells(learned: tuple[Path, Any], retained: Path) -> None:
    folder, logged = learned
    tokens, before, after = read_losses(folder / "losses-retained.tsv")
    assert logged["test/retained_forgetting"] == pytest.approx((after - before).sum() / tokens.sum())
    assert logged["test/retained_loss"] == pytest.approx(after.sum() / tokens.sum())
    assert logged["test/retained_forgetting"] > 0.1
    kept = json.loads((folder / "result.json").read_text())["metrics"]["test"]
    assert kept["test/retained_forgetting"] == logged["test/retained_forgetting"]


LORA = LoraConfig(target_modules=["c_attn", "c_fc"])


@pytest.mark.parametrize(
    ("dtype", "adapter", "precision"),
    [("float32", LORA, None), ("bfloat16", LORA, None), ("float32", None, "bf16-true")],
)
def test_an_untrained_model_forgets_exactly_nothing(
    dtype: str, adapter: LoraConfig | None, precision: Any, retained: Path, tmp_path: Path
) -> None:
    callback = Forgetting(retained, max_length=SIZE)
    logged = trained(tmp_path, callback, precision=precision, dtype=dtype, adapter=adapter)
    assert logged["test/retained_forgetting"] == 0.0
    _, before, after = read_losses(tmp_path / "losses-retained.tsv")
    assert np.array_equal(before, after)


def test_the_loss_of_the_base_is_computed_once_for_all_runs(
    learned: tuple[Path, Any], retained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    pretrained = CausalLMSFT.pretrained

    def counted(self: CausalLMSFT) -> Any:
        loaded.append(self.base_model)
        return pretrained(self)

    monkeypatch.setattr(CausalLMSFT, "pretrained", counted)
    trained(tmp_path / "same", Forgetting(retained, max_length=SIZE))
    assert len(loaded) == 1  # the model itself
    name = read_losses(learned[0] / "losses-retained.tsv")[1]
    assert np.array_equal(read_losses(tmp_path / "same/losses-retained.tsv")[1], name)
    trained(tmp_path / "other", Forgetting(retained, max_length=SIZE // 2))
    assert len(loaded) == 3


def test_of_examples_the_loss_is_that_of_the_answers(tmp_path: Path) -> None:
    examples = [{"prompt": "1 + 1 =", "completion": " 2"}, {"prompt": "The sky is", "completion": " blue, as ever"}]
    logged = trained(tmp_path, Forgetting(examples, "sums"))
    module = CausalLMSFT(dtype="float32", seed=1)
    module.configure_model()
    tokenizer = load_processor(AutoTokenizer, "demo")
    total = count = 0
    for one in examples:
        prompt, answer = (tokenizer(one[name]).input_ids for name in ("prompt", "completion"))
        ids = torch.tensor([[*prompt, *answer, tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        total += float(module.net.eval()(ids, labels=labels).loss.detach()) * (len(answer) + 1)
        count += len(answer) + 1
    assert logged["test/sums_loss"] == pytest.approx(total / count, rel=1e-6)
    assert read_losses(tmp_path / "losses-sums.tsv")[0].sum() == count


def test_sets_of_texts_that_would_overwrite_each_other_are_refused(retained: Path, tmp_path: Path) -> None:
    callbacks: Any = [Forgetting(retained), Forgetting(retained, max_length=SIZE)]
    with pytest.raises(InputError, match=r"callbacks.name: two have this name \(got 'retained'\)"):
        L.Trainer(default_root_dir=tmp_path, callbacks=callbacks, **QUIET).test(CausalLMSFT(), datamodule=sums())


def test_texts_of_a_plain_file_are_separated_by_blank_lines(text_file: Callable[..., Path]) -> None:
    path = text_file("one\nand on\n\n \ntwo\n", "a.txt")
    assert read_texts(path) == ["one\nand on\n", "two\n"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "\n \n", r"a\.txt: holds no text"),
        ("a.txt", b"caf\xe9", r"a\.txt:1: not UTF-8"),
        ("a.jsonl", "", r"a\.jsonl: contains no"),
        ("a.jsonl", '{"text": "ok"}\n{"text": "o', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"text": "ok"}\n{"text": " "}\n', r"a\.jsonl:2: text: is no text"),
        ("a.csv", "text,id\nok,1\n,2\n", r"a\.csv:3: text: is no text"),
        ("a.csv", "text,id\n", r"a\.csv: holds no text"),
        ("none.txt", None, r"none\.txt: cannot be read: No such file"),
    ],
)
def test_a_damaged_or_empty_file_is_refused(
    name: str, content: str | bytes | None, said: str, text_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / name if content is None else text_file(content, name)
    with pytest.raises(InputError, match=said):
        read_texts(path)


def test_a_run_with_a_damaged_file_or_another_task_is_refused_before_training(
    tiny_config: Path, text_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["fit", "--config", str(tiny_config), "--trainer.default_root_dir", str(out)]
    callback = ["--trainer.callbacks+", "ftkit.Forgetting", "--trainer.callbacks.text"]
    assert main([*command, *callback, str(text_file("ok\n", "a.txt"))]) == 2
    said = capsys.readouterr().err
    assert "error: trainer.callbacks: Forgetting is for language models (got 'GPT2Classifier')" in said
    language = ["--model", "CausalLMSFT", "--data", "ArithmeticDataModule", "--trainer.accelerator", "cpu"]
    command = ["fit", *language, "--trainer.default_root_dir", str(out), *callback]
    assert main([*command, str(text_file("\n", "b.txt"))]) == 2
    assert "b.txt: holds no text" in capsys.readouterr().err
    assert main([*command, str(text_file("ok\n", "a.txt")), "--trainer.callbacks.name", "a/b"]) == 2
    assert "name: must be letters, digits and underscores (got 'a/b')" in capsys.readouterr().err
    assert not list(out.glob("**/*.ckpt"))
