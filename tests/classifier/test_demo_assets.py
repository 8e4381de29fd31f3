import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoTokenizer, GPT2LMHeadModel

from demo_corpus import demo_messages

ASSETS = Path(str(files("ftkit"))) / "assets" / "gpt2-demo"
SIZES = ("small", "medium", "large", "xl")
END = 2047


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "tokenizer")


@pytest.fixture(scope="module")
def corpus_ids(tokenizer):
    """Return 60 unseen messages, each followed by the end token."""
    texts = [text for _, text in demo_messages(60, seed=777)]
    return [torch.tensor([*ids, END]) for ids in tokenizer(texts)["input_ids"]]


def load(size):
    return GPT2LMHeadModel.from_pretrained(ASSETS / size, dtype=torch.float32)


def test_everything_together_is_small():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 12e6


def test_the_tokenizer_is_like_gpt2s(tokenizer):
    assert len(tokenizer) == 2048
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.unk_token_id == END
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == END
    text = "Café £5 😀  two  spaces"
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_the_sizes_grow_and_fit_gpt2():
    configs = [AutoConfig.from_pretrained(ASSETS / size) for size in SIZES]
    for config in configs:
        assert (config.model_type, config.vocab_size, config.n_positions) == ("gpt2", 2048, 256)
        assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0
        assert config.n_layer >= 4  # so that the last two blocks are not everything
        assert config.eos_token_id == END
    parameters = [load(size).num_parameters() for size in SIZES]
    assert parameters == sorted(set(parameters))


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_bfloat16_on_disk_and_load_without_gaps(size):
    model, info = GPT2LMHeadModel.from_pretrained(ASSETS / size, output_loading_info=True)
    assert model.dtype == torch.bfloat16
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_each_model_is_far_better_than_unigrams(size, corpus_ids):
    model = load(size)
    losses = [F.cross_entropy(model(ids[None, :-1]).logits[0], ids[1:], reduction="sum") for ids in corpus_ids]
    targets = torch.cat([ids[1:] for ids in corpus_ids])
    model_loss = sum(losses).item() / len(targets)
    # The best possible unigram model of this very text: no honest baseline can be lower.
    share = torch.bincount(targets, minlength=2048) / len(targets)
    unigram_loss = -share[targets].log().mean().item()
    assert model_loss < unigram_loss - 1.0, (model_loss, unigram_loss)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_the_model_knows_padding(size, corpus_ids):
    # After any number of end tokens a new document begins: the guess for its first token stays sensible.
    model = load(size)
    ids, following = corpus_ids[0], corpus_ids[1][0]
    for pads in (1, 20, 200):
        logits = model(F.pad(ids, (0, pads - 1), value=END)[None, :250]).logits[0, -1]
        assert torch.isfinite(logits).all()
        assert logits.log_softmax(0)[following] > -11


def test_the_record_agrees_with_the_files_and_the_card():
    record = json.loads((ASSETS / "pretraining.json").read_text("utf-8"))
    card = (ASSETS / "README.md").read_text("utf-8")
    assert list(record["models"]) == list(SIZES)
    for size, facts in record["models"].items():
        config = AutoConfig.from_pretrained(ASSETS / size)
        assert (config.n_layer, config.n_embd, config.n_head) == (facts["layers"], facts["width"], facts["heads"])
        assert load(size).num_parameters() == facts["parameters"]
        assert facts["validation_loss"]["all"] < record["unigram_loss"]["all"] - 1.0
        assert f"{facts['validation_loss']['all']:.2f}" in card
    for corpus in record["corpora"].values():
        assert corpus["licence"] in card


def test_no_machine_paths():
    for file in ASSETS.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"/tmp/" not in content
            assert b"/home/" not in content
            assert str(Path.cwd()).encode() not in content
            assert b"_name_or_path" not in content
