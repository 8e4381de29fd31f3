"""Answers of a language model: scores equal the model's own, whatever the length of words and prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit import PromptClassifier
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
TEXTS = ["win cash now, claim it", "hi", "call me later when you are home, will you"]


def by_hand(model: PromptClassifier, text: str, word: str) -> float:
    """The log-probability of a word behind a prompt, token by token, from the logits of transformers."""
    tokenizer, net = model.tokenizer, model.net
    assert net is not None
    known = tokenizer(model.before + model.prompt.replace("{text}", text))["input_ids"]
    total = 0.0
    for token in tokenizer(word)["input_ids"]:
        logits = net(torch.tensor([known])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        known = [*known, token]
    return total


@pytest.mark.parametrize("words", [[" a", " b"], [" ham", " spam"], [" no", " yes!"], ["x", "xy"]])
def test_scores_are_those_of_the_model(words: list[str]) -> None:
    model = PromptClassifier("demo", words=words, prompt="Text: {text}\nKind:", seed=1)
    model.configure_model()
    with torch.no_grad():
        found = model.scores(TEXTS)
        expected = [[by_hand(model, text, word) for word in words] for text in TEXTS]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)
    prediction, probability = model.predict({"text": TEXTS})
    assert prediction.tolist() == [row.index(max(row)) for row in expected]
    torch.testing.assert_close(probability.sum(-1), torch.ones(3, dtype=torch.float64))


def test_what_a_tokenizer_puts_before_a_text_stands_before_the_prompt() -> None:
    model = PromptClassifier("demo", words=[" a", " b"], prompt="Text: {text}\nKind:", seed=1)
    model.configure_model()
    tokenizer, token = model.tokenizer, model.tokenizer.eos_token
    first = [(token, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{token} $A", special_tokens=first)
    assert model.start == [tokenizer.eos_token_id]
    (word,) = tokenizer(" a", add_special_tokens=False)["input_ids"]
    known = tokenizer("Text: hi\nKind:")["input_ids"]
    assert known[0] == tokenizer.eos_token_id
    assert model.net is not None
    with torch.no_grad():
        expected = model.net(torch.tensor([known])).logits[0, -1].double().log_softmax(-1)[word]
        found = model.scores(["hi"])[0, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def asked_with_shots(**net: Any) -> PromptClassifier:
    """Ask a model with shots before the question: the demo model, or a random one of another family."""
    model = PromptClassifier("demo", words=[" ham", " spam"], prompt="Text: {text}\nKind:", seed=1)
    if net:
        torch.manual_seed(0)
        config = AutoConfig.for_model(**net, **SMALL, vocab_size=len(model.tokenizer))
        model.net = AutoModelForCausalLM.from_config(config).eval()
    model.configure_model()
    model.before = "Text: free cash\nKind: spam\n\nText: see you\nKind: ham\n\n" * 3
    return model


def positions(model: PromptClassifier) -> list[int]:
    """Collect how many positions each forward pass runs over."""
    assert model.net is not None
    seen: list[int] = []
    embeddings: Any = model.net.get_input_embeddings()
    embeddings.register_forward_hook(lambda layer, given, made: seen.append(given[0].numel()))
    return seen


@pytest.mark.parametrize(
    "net", [{}, {"model_type": "llama"}, {"model_type": "opt", "word_embed_proj_dim": 32, "ffn_dim": 48}]
)
def test_shots_run_once_and_scores_stay_the_same(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = asked_with_shots(**net)
    seen = positions(model)
    with torch.no_grad():
        found = torch.cat([model.scores(TEXTS[:2]), model.scores(TEXTS[2:]), model.scores([""])])
        assert len(seen) == 1 + 3 * 2  # the shots, and two stems of three batches
        with monkeypatch.context() as patched:
            patched.setattr(model, "_shared", lambda prompts: (0, {}))
            expected = model.scores([*TEXTS, ""])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        model.before = "Text: other shots\nKind: ham\n\n"
        assert float((model.scores(TEXTS) - found[:3]).abs().max()) > 1e-3
        expected = torch.tensor([[by_hand(model, TEXTS[0], word) for word in model.words]], dtype=torch.float64)
        torch.testing.assert_close(model.scores(TEXTS[:1]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("net", [{"model_type": "mistral", "sliding_window": 8}, {"model_type": "openai-gpt"}])
def test_a_family_that_keeps_not_every_position_reads_all_of_a_prompt(net: Any) -> None:
    model = asked_with_shots(**net)
    seen = positions(model)
    with torch.no_grad():
        found = model.scores(TEXTS)
    assert min(seen) > len(TEXTS) * len(model.tokenizer(model.before)["input_ids"])
    for text, scores in zip(TEXTS, found.tolist(), strict=True):
        with torch.no_grad():
            assert scores == pytest.approx([by_hand(model, text, word) for word in model.words], abs=1e-4)


def test_a_prompt_that_is_cut_is_told() -> None:
    model = PromptClassifier("demo", words=[" a", " b"], seed=1)
    model.configure_model()
    with pytest.warns(UserWarning, match="lose their beginning"), torch.no_grad():
        found = model.scores(["0 1 2 3 4 5 6 7 8 9 " * 60])
    assert found.isfinite().all()


@pytest.fixture
def row(messages_file: Path, tmp_path: Path) -> Any:
    def make(**model: Any) -> list[str]:
        tree = {
            "model": {"class_path": "ftkit.PromptClassifier", "init_args": {"base_model": "demo", **model}},
            "data": {
                "class_path": "ftkit.SpamDataModule",
                "init_args": {"source": str(messages_file), "split": "balanced", "evaluate_splits": ["val", "test"]},
            },
            "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
        }
        path = tmp_path / "row.yaml"
        path.write_text(yaml.safe_dump(tree))
        return ["--config", str(path), "--trainer.default_root_dir", str(tmp_path / "run")]

    return make


def test_shots_are_drawn_from_train_and_kept_in_the_checkpoint(row: Any, tmp_path: Path) -> None:
    given = row(shots=2, prompt="{text} =>")
    assert main(["fit", *given]) == 0
    assert main(["test", *given]) == 0
    model = PromptClassifier.load(tmp_path / "run")
    lines = model.before.strip().split("\n\n")
    assert len(lines) == 4
    assert sorted(line.rpartition(" => ")[2] for line in lines) == ["ham", "ham", "spam", "spam"]
    data = yaml.safe_load((tmp_path / "row.yaml").read_text())["data"]["init_args"]["source"]
    read = [line.split("\t") for line in Path(data).read_text().splitlines()]
    assert all([*line.rpartition(" => ")[::-2]] in read for line in lines)
    found = read_predictions(tmp_path / "run/predictions-test.tsv")
    assert found.score_names == ("probability:spam",)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["baseline"], result["parameters"]["trainable"], result["base"]["source"]) == (True, 0, "demo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "What is it?"}, "prompt: must have {text} once"),
        ({"shots": -1}, "shots"),
        ({"words": [" spam"]}, "words: needs 2 different words"),
        ({"words": [" spam", " spam"]}, "words: needs 2 different words"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: Any, message: str, row: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *row(**options)]) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_without_text_is_refused_in_python() -> None:
    with pytest.raises(InputError, match=r"must have \{text\} once"):
        PromptClassifier("demo", prompt="{text} {text}")
