"""The example of use in every card runs as it stands, and computes what the run does."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ftkit import CausalLMSFT, TextClassifier
from ftkit.cli import main
from ftkit.commands.push import push
from ftkit.commands.serving_setup import load_served
from ftkit.errors import InputError
from ftkit.serving.limits import Limits

Run = Callable[..., Path]
QUIET = {
    "--trainer.max_steps": 2, "--trainer.limit_val_batches": 0, "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false", "--model.optimizer": "torch.optim.SGD", "--model.optimizer.lr": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 with a tokenizer that puts a token of its own before every text."""
    folder = Path(shutil.copytree(gpt2_folder, tmp_path_factory.mktemp("weights") / "gpt2-with-beginning"))
    tokens = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokens.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)])
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|endoftext|>").save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"] == [256, 64]
    return folder


@pytest.fixture(scope="module")
def fitted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``fitted(kind, **options)`` is a run of two large steps on the tiny GPT-2, each made once."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()
    three = folder / "three-classes.csv"
    three.write_text("text,label\n" + "".join(f"message {number},{'abc'[number % 3]}\n" for number in range(60)))

    def fit(kind: str, **options: Any) -> Path:
        key = str((kind, options))
        if key not in made:
            made[key] = folder / f"run-{len(made)}"
            data = {"TextClassifier": "TextClassificationDataModule", "CausalLMSFT": "ArithmeticDataModule"}[kind]
            given = {
                "--model": f"ftkit.{kind}", "--model.base_model": base, **QUIET,
                **{f"--model.{name}": value for name, value in options.items()},
                "--data": f"ftkit.{data}", "--trainer.default_root_dir": made[key],
            }  # fmt: skip
            given |= {"--data.train": three} if kind == "TextClassifier" else {"--data.train_size": 40}
            assert main(["fit", *(str(word) for pair in given.items() for word in pair)]) == 0
        return made[key]

    return fit


@pytest.fixture
def followed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Push a run and follow its card: return the names that the example leaves, and what it prints."""

    def follow(run: Path, form: Any = None) -> tuple[dict[str, Any], str]:
        monkeypatch.chdir(tmp_path)
        push(run, "me/it", dry_run=tmp_path / "me" / "it", format=form)
        (tmp_path / "model").symlink_to(tmp_path / "me" / "it")  # as `hf download` leaves it
        (tmp_path / base.name).symlink_to(base)
        card = (tmp_path / "me" / "it" / "README.md").read_text(encoding="utf-8")
        codes = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len(codes) == 1
        names: dict[str, Any] = {}
        capsys.readouterr()
        exec(codes[0], names)
        return names, capsys.readouterr().out.strip()

    return follow


def test_a_classifier_in_ftkits_own_form(fitted: Run, followed: Any) -> None:
    run = fitted("TextClassifier")
    _, said = followed(run)
    assert said == str(TextClassifier.load(run).classify(["a text to classify"]))


@pytest.mark.parametrize(
    ("form", "options"),
    [("transformers", {}), ("peft", {}), ("peft", {"base_model": "demo-small"})],
    ids=["transformers", "peft", "peft, a base that ftkit carries"],
)
def test_a_classifier_of_transformers_or_peft(
    form: str, options: dict[str, Any], fitted: Run, followed: Any, base: Path
) -> None:
    run = fitted("TextClassifier", pooling="last_real", adapter="peft.LoraConfig", **options)
    names, said = followed(run, form)
    expected = TextClassifier.load(run).classify(names["texts"])
    assert said == str([one["label"] for one in expected])
    found = names["probabilities"].max(-1).values.tolist()
    assert found == pytest.approx([one["probability"] for one in expected], abs=1e-5)
    if form == "peft":
        assert PeftConfig.from_pretrained("me/it").base_model_name_or_path == options.get("base_model", base.name)
    with pytest.raises(InputError, match=r"classifies in the form of transformers or peft, .* fix: serve the run"):
        load_served("me/it", None, None, None, Limits(), 1)


LANGUAGE: dict[str, dict[str, Any]] = {
    "all": {},
    "lora": {"adapter": "peft.LoraConfig"},
    "ia3": {"adapter": "peft.IA3Config"},
    "prompt": {"adapter": "peft.PromptTuningConfig", "adapter.num_virtual_tokens": 3},
    "prefix": {"adapter": "peft.PrefixTuningConfig", "adapter.num_virtual_tokens": 3},
}


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # by peft's own forward
@pytest.mark.parametrize(
    ("method", "form"),
    [("all", "transformers"), ("lora", "transformers"), *((method, "peft") for method in [*LANGUAGE][1:])],
)
def test_a_language_model(method: str, form: str, fitted: Run, followed: Any) -> None:
    run = fitted("CausalLMSFT", **LANGUAGE[method])
    names, said = followed(run, form)
    module = CausalLMSFT.load(run)
    with torch.no_grad():
        expected = module.net(**names["inputs"]).logits
        torch.testing.assert_close(names["model"](**names["inputs"]).logits, expected, atol=1e-5, rtol=1e-5)
        if form == "peft":
            own = AutoPeftModelForCausalLM.from_pretrained("me/it")
            torch.testing.assert_close(own(**names["inputs"]).logits, expected, atol=1e-5, rtol=1e-5)
    assert said == module.answer(["a question"])[0].removesuffix("…")


@pytest.mark.parametrize(
    ("options", "form", "message"),
    [
        ({}, "peft", r"format: the run has no adapter \(got 'peft'\); fix: use --format transformers"),
        ({}, "ftkit", "format: only a classifier has a form of ftkit's own"),
        (LANGUAGE["prompt"], "transformers", "adapter: virtual tokens cannot be merged into weights"),
    ],
    ids=["no adapter", "own", "virtual tokens"],
)
def test_what_a_language_model_cannot_be_is_refused_before_anything_is_written(
    options: dict[str, Any], form: Any, message: str, fitted: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        push(fitted("CausalLMSFT", **options), "me/it", dry_run=tmp_path / "out", format=form)
    assert not (tmp_path / "out").exists()
