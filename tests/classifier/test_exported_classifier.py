"""A classifier in the form of transformers or peft gives ftkit's own logits there, or is refused with the reason."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from encoders import character_tokenizer, save_encoder
from peft import AutoPeftModelForSequenceClassification, PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ftkit.classifier.export import exported_tokenizer, sequence_classifier
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.models.sequence_classification import probe
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.encoding import Encoding, ends_of
from peft_methods import METHODS

TEXTS = ["win cash now!", "see", "a text that is longer than what was trained on by some tokens", "ok 5"]
LONGEST = 20
SHIFTED = ("bloom", "gpt_neox", "phi", "stablelm", "starcoder2")
WITHOUT = ("gemma2", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 260, "max_position_embeddings": 64, "sliding_window": 5, "head_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def decoder(family: str, folder: Path) -> Path:
    """A tiny decoder with every parameter random, and a tokenizer of single characters."""
    known = {*AutoConfig.for_model(family).to_dict(), "hidden_size", "num_hidden_layers", "num_attention_heads"}
    torch.manual_seed(5)
    body = AutoModel.from_config(
        AutoConfig.for_model(family, **{name: value for name, value in SHAPE.items() if name in known})
    )
    for parameter in body.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    body.save_pretrained(folder)
    character_tokenizer("roberta").save_pretrained(folder)
    return folder


LABELS = ("ham", "spam", "unsure")


def trained(folder: Path, labels: tuple[str, ...] = LABELS, **options: Any) -> TextClassifier:
    """A classifier whose trained parameters are not those of its beginning."""
    model = TextClassifier(str(folder), seed=5, **{"pooling": "last_real", **options})
    tokenizer = model.load_tokenizer()
    pad, ends = (tokenizer.pad_token_id, ends_of(tokenizer)) if model.encoder else (tokenizer.eos_token_id, None)
    model.encoding = Encoding(labels, LONGEST, pad_to_max=False, pad_id=pad, single=False, ends=ends)
    model.configure_model()
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable_parameters(model).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def own_logits(model: TextClassifier) -> Tensor:
    assert model.encoding is not None
    with torch.no_grad():
        return model(model.encoding.pad(model.encoding.encode(model.tokenizer, TEXTS)))


def logits(net: Any, folder: Path, encoder: bool = False) -> Tensor:
    """What others get who follow the model card."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = {} if encoder else {"add_special_tokens": False}
    inputs = tokenizer(TEXTS, **options, truncation=True, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (4, LONGEST)
    with torch.no_grad():
        return net.eval()(**inputs).logits


def write(model: TextClassifier, form: Any, folder: Path) -> None:
    sequence_classifier(model, form).save_pretrained(folder)
    exported_tokenizer(model).save_pretrained(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"trainable": "all"},
        {"trainable": "last_block", "mask_padding": True, "head_bias": False},
        {"trainable": "lora"},
        {"adapter": METHODS["dora"]},
        {"adapter": METHODS["ln"]},
        {"weights": "random"},
    ],
    ids=str,
)
def test_a_decoder_gives_the_same_logits_in_transformers(
    options: dict[str, Any], gpt2_folder: Path, tmp_path: Path
) -> None:
    model = trained(gpt2_folder, **options)
    expected = own_logits(model)
    write(model, "transformers", tmp_path)
    net = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert net.config.id2label == dict(enumerate(LABELS))
    assert net.config.label2id == {"ham": 0, "spam": 1, "unsure": 2}
    assert net.config.problem_type == "single_label_classification"
    torch.testing.assert_close(logits(net, tmp_path), expected, atol=1e-5, rtol=1e-5)


def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right_once_pushed(gpt2_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(gpt2_folder, tmp_path / "base"))
    AutoTokenizer.from_pretrained(base, padding_side="left", truncation_side="left").save_pretrained(base)
    model = trained(base)
    expected = own_logits(model)
    write(model, "transformers", tmp_path / "out")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(loaded, tmp_path / "out"), expected, atol=1e-5, rtol=1e-5)


def test_no_text_that_is_compared_holds_the_padding(gpt2_folder: Path) -> None:
    net = trained(gpt2_folder).net
    assert net is not None
    for pad_id in probe(net, 256, LONGEST).input_ids[-1].tolist():  # what would be drawn
        found = probe(net, pad_id, LONGEST)
        assert torch.equal(found.input_ids == pad_id, found.real == 0)


def test_a_head_without_a_bias_fits_families_whose_norm_has_none(llama_folder: Path, tmp_path: Path) -> None:
    model = trained(llama_folder, head_bias=False, adapter=peft.LoraConfig(r=4))
    expected = own_logits(model)
    write(model, "transformers", tmp_path)
    net = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(net, tmp_path), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.slow) for name in (*SHIFTED, *WITHOUT)])
def test_families_give_the_same_logits(family: str, tmp_path: Path) -> None:
    """Where the final norm has a bias, it takes up the head's; elsewhere the head must have none."""
    model = trained(decoder(family, tmp_path / "base"), trainable="all", head_bias=family in SHIFTED)
    expected = own_logits(model)
    write(model, "transformers", tmp_path / "out")
    net = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(net, tmp_path / "out"), expected, atol=1e-5, rtol=1e-5)
    if family in WITHOUT:
        with pytest.raises(InputError, match=r"head_bias: .* has no bias in its head, nor in a norm before it"):
            sequence_classifier(trained(tmp_path / "base"), "transformers")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_an_encoder_gives_the_same_logits_through_another_head(family: str, tmp_path: Path) -> None:
    """Tanh in BERT and RoBERTa, relu in DistilBERT."""
    model = trained(save_encoder(family, tmp_path / "base"), pooling="first", trainable="all")
    expected = own_logits(model)
    write(model, "transformers", tmp_path / "out")
    net = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(net, tmp_path / "out", encoder=True), expected, atol=1e-5, rtol=1e-5)


BY_PATTERN = peft.LoraConfig(target_modules=r"h\.[01]\.attn\.c_attn")  # of the body's names, which get a prefix


@pytest.mark.parametrize(
    "method",
    [*(METHODS[name] for name in ("lora", "dora", "pissa", "ia3", "vera")), BY_PATTERN],
    ids=["lora", "dora", "pissa", "ia3", "vera", "by pattern"],
)
def test_plain_peft_loads_adapter_and_head(method: Any, gpt2_folder: Path, tmp_path: Path) -> None:
    model = trained(gpt2_folder, adapter=method)
    expected = own_logits(model)
    write(model, "peft", tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    plain = {"num_labels": 3, "pad_token_id": 256, "dtype": torch.float32}
    base = AutoModelForSequenceClassification.from_pretrained(gpt2_folder, **plain)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(base, tmp_path), tmp_path), expected, atol=1e-5, rtol=1e-5
    )


def test_ranks_that_adalora_allocated_load_there_too(gpt2_folder: Path, tmp_path: Path) -> None:
    model = trained(gpt2_folder, adapter=METHODS["adalora"], optimizer=lambda given: torch.optim.Adam(given, lr=1e-2))
    batch = {"input_ids": torch.arange(24).view(4, 6), "length": torch.tensor([6, 3, 1, 2])}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=4, enable_model_summary=False, **quiet)
    trainer.fit(model.train(), DataLoader([{**batch, "label": torch.tensor([0, 1, 2, 1])}] * 4, batch_size=None))
    assert model.adapted.active_peft_config.rank_pattern
    expected = own_logits(model.eval())
    write(model, "peft", tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(gpt2_folder, num_labels=3, pad_token_id=256)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(base, tmp_path), tmp_path), expected, atol=1e-5, rtol=1e-5
    )


def test_peft_finds_the_base_of_an_encoder_by_itself(tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path / "base")
    model = trained(folder, pooling="first", adapter=peft.LoraConfig(r=4, target_modules=["query", "dense"]))
    expected = own_logits(model)
    net = sequence_classifier(model, "peft")
    net.active_peft_config.base_model_name_or_path = str(folder)
    net.save_pretrained(tmp_path / "out")
    exported_tokenizer(model).save_pretrained(tmp_path / "out")
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=3)
    torch.testing.assert_close(logits(loaded, tmp_path / "out", encoder=True), expected, atol=1e-5, rtol=1e-5)


LORA = METHODS["lora"]
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "gpt2",
        {"pooling": "first"},
        "transformers",
        r"pooling: .* at its last token .* \(got 'first'\); fix: train with",
    ),
    ("gpt2", {"pooling": "mean"}, "transformers", r"pooling: .* \(got 'mean_real'\); fix: .*last_real, or leave out"),
    ("gpt2", {"causal_mask": False}, "transformers", "causal_mask: transformers reads a decoder under its causal mask"),
    ("gpt2", {"quantization": "nf4"}, "transformers", "quantization: the head was trained on quantized weights"),
    ("gpt2", {"frozen_dtype": "bfloat16"}, "transformers", "frozen_dtype: the frozen blocks run in bfloat16"),
    ("gpt2", {"adapter": METHODS["prompt"]}, "transformers", "adapter: virtual tokens before a text cannot be merged"),
    ("gpt2", {"adapter": METHODS["prefix"]}, "peft", "adapter: virtual tokens before a text cannot be merged"),
    ("gpt2", {}, "peft", r"format: the run has no adapter .* \(got 'peft'\); fix: use --format transformers"),
    ("gpt2", {"trainable": "lora"}, "peft", "format: the run has no adapter"),
    ("gpt2", {"adapter": LORA, "weights": "random"}, "peft", "weights: an adapter alone needs a base that others have"),
    ("gpt2", {"adapter": METHODS["ln"]}, "peft", "adapter: changes the last norm, which has to hold the head's bias"),
    ("llama", {}, "transformers", r"head_bias: LlamaForSequenceClassification .* has no bias .* with head_bias: false"),
    ("llama", {"adapter": LORA}, "peft", "head_bias: LlamaForSequenceClassification of transformers has no bias"),
    ("bert", {"pooling": "mean"}, "transformers", "pooling: transformers reads an encoder at its first token"),
    ("modernbert", {"pooling": "first"}, "transformers", "format: ModernBert.* computes other logits"),
    ("granite", {}, "transformers", r"base_model: transformers has no sequence classification .* \(got 'granite'\)"),
]


@pytest.mark.parametrize(("family", "options", "form", "message"), REFUSED, ids=lambda given: str(given)[:40])
def test_what_transformers_or_peft_cannot_hold_is_refused(
    family: str, options: dict[str, Any], form: Any, message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if family in ("gpt2", "llama"):
        folder = request.getfixturevalue(f"{family}_folder")
    else:
        folder = decoder(family, tmp_path) if family == "granite" else save_encoder(family, tmp_path)
    with pytest.raises(InputError, match=message):
        sequence_classifier(trained(folder, **options), form)


def test_a_bias_that_no_shift_of_the_norm_makes_is_refused(gpt2_folder: Path) -> None:
    model = trained(gpt2_folder, trainable="last_layer")
    assert model.net is not None
    model.net.head.weight.data[1] = model.net.head.weight[0]
    with pytest.raises(InputError, match=r"head_bias: .* whose weight is not of full rank"):
        sequence_classifier(model, "transformers")
