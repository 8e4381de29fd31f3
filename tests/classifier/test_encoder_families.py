"""BERT-like encoders as classifiers: against transformers' own forward pass, and each option that decoders have."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from bitsandbytes.nn import Linear4bit
from encoders import FAMILIES, LAYERS, save_encoder, tiny_encoder
from peft import LoraConfig
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.cli import main
from ftkit.commands.push import push
from ftkit.doctor import examine
from ftkit.errors import InputError
from ftkit.models import transformers_internals as internals
from ftkit.models.backbone import Backbone
from ftkit.models.loading import context_length, load_body, load_config, load_tokenizer
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.encoding import Encoding, ends_of

TEXTS = ["win cash now", "ok", "see you at five", "x ring ring 7 free"]
BLOCKS = {"modernbert": "layers", "distilbert": "transformer.layer"}
POOLINGS = ("first", "mean", "mean_real")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``encoder_folder(family)`` holds a tiny encoder with its tokenizer."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_encoder(family, tmp_path_factory.mktemp("encoders") / family)
        return made[family]

    return make


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def classifier(folder: Path, **options: Any) -> TextClassifier:
    model = TextClassifier(str(folder), **{"seed": 5, "optimizer": sgd, **options})
    model.configure_model()
    return model.eval()


def encoding(folder: Path, **options: Any) -> Encoding:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = {"max_length": 40, "pad_to_max": True, "single": False, "pad_id": tokenizer.pad_token_id, **options}
    return Encoding(("ham", "spam"), ends=ends_of(tokenizer), **given)


def batch_of(folder: Path, texts: list[str] = TEXTS, **options: Any) -> dict[str, Tensor]:
    rules = encoding(folder, **options)
    return rules.pad(rules.encode(AutoTokenizer.from_pretrained(folder), texts))


def own_logits(model: TextClassifier, folder: Path, texts: list[str]) -> Tensor:
    """The head over what transformers' own tokenizer and model, pooler and all, make of the texts."""
    assert model.net is not None
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        pooled = states[:, 0] if model.pooling == "first" else (states * mask).sum(1) / mask.sum(1)
        return model.net.head(pooled)


def fit(folder: Path, messages: Path, data: dict[str, Any] | None = None, **options: Any) -> TextClassifier:
    accumulate = options.pop("accumulate", 1)
    L.seed_everything(7)
    model = TextClassifier(str(folder), **{"seed": 3, "optimizer": sgd, **options})
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, accumulate_grad_batches=accumulate, **quiet)
    given = {"split": "balanced", "padding": "none", "batch_size": 8, "seed": 5, **(data or {})}
    trainer.fit(model, datamodule=SpamDataModule(str(messages), **given))
    return model


def assert_trained_alike(one: TextClassifier, other: TextClassifier, start: TextClassifier) -> None:
    weights = other.state_dict()
    assert one.state_dict().keys() == weights.keys()
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=0)
    assert start.net is not None
    assert (one.state_dict()["net.head.weight"] - start.net.head.weight).abs().max() > 1e-3


# The pieces


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_is_found_and_split_into_blocks(family: str) -> None:
    model = tiny_encoder(family)
    assert internals.block_parts(model) == (
        BLOCKS.get(family, "encoder.layer"),
        "final_norm" if family == "modernbert" else None,
    )
    backbone = Backbone(model)
    assert (backbone.encoder, backbone.causal, backbone.splits) == (True, False, True)
    assert len(backbone.blocks) == LAYERS


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_models_own_forward_pass(family: str, pooling: Any, encoder_folder: Any) -> None:
    folder = encoder_folder(family)
    model = classifier(folder, pooling=pooling)
    with torch.no_grad():
        padded, unpadded = (model(batch_of(folder, pad_to_max=width)) for width in (True, False))
        alone = torch.cat([model(batch_of(folder, [text], pad_to_max=False)) for text in TEXTS])
    wanted = own_logits(model, folder, TEXTS)
    for got in (padded, unpadded, alone):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert wanted.std(0).min() > 0.02


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_model_that_is_not_split_gives_the_same_logits(
    family: str, encoder_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder_folder(family)
    monkeypatch.setattr(internals, "block_parts", lambda model: None)
    model = classifier(folder, trainable="last_layer", pooling="mean")
    assert not model.net.backbone.splits  # type: ignore[union-attr]
    with torch.no_grad():
        torch.testing.assert_close(model(batch_of(folder)), own_logits(model, folder, TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_recording_arguments_draws_nothing_and_dropout_is_what_was_asked_for(family: str, encoder_folder: Any) -> None:
    folder = encoder_folder(family)
    model = load_body(str(folder), load_config(str(folder)), dropout=0.25)
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.25}
    assert getattr(model, "pooler", None) is None
    parts = internals.block_parts(model)
    assert parts is not None
    before = torch.get_rng_state()
    internals.block_arguments(model, parts, torch.zeros(2, 5, 64), torch.ones(2, 5, dtype=torch.int64))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*(internals.embed(model, parts, torch.full((1, 4), 9)) for _ in range(2)))
    zero = load_body(str(folder), load_config(str(folder)))
    assert {module.p for module in zero.modules() if isinstance(module, nn.Dropout)} == {0.0}


def test_roberta_leaves_room_for_the_positions_that_it_counts_from(encoder_folder: Any) -> None:
    lengths = {family: context_length(load_config(str(encoder_folder(family)))) for family in FAMILIES}
    assert lengths == {"bert": 48, "distilbert": 48, "minilm": 48, "modernbert": 48, "roberta": 46}
    folder = encoder_folder("roberta")
    longest = batch_of(folder, ["a" * 99], max_length=46)
    assert longest["length"].item() == 46
    assert torch.isfinite(classifier(folder)(longest)).all()


@pytest.mark.parametrize("weights", ["random", "random_transformers"])
def test_random_encoders_follow_the_seed(weights: Any, encoder_folder: Any) -> None:
    folder = encoder_folder("roberta")
    batch = batch_of(folder)
    with torch.no_grad():
        one, same, other = (classifier(folder, weights=weights, seed=seed)(batch) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# What is trained


@pytest.mark.parametrize(
    ("options", "blocks"),
    [({"trainable": "last_layer"}, 0), ({}, 1), ({"trainable": 2}, 2), ({"trainable": "all"}, LAYERS)],
    ids=str,
)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_what_is_trainable_and_nothing_else(
    family: str, options: dict[str, Any], blocks: int, encoder_folder: Any
) -> None:
    model = classifier(encoder_folder(family), **options)
    model(batch_of(encoder_folder(family))).square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == trainable_parameters(model).keys()
    last = BLOCKS.get(family, "encoder.layer")
    numbers = {int(found[1]) for name in reached if (found := re.search(rf"{re.escape(last)}\.(\d+)\.", name))}
    assert numbers == set(range(LAYERS - blocks, LAYERS))
    assert any("embeddings" in name for name in reached) == (options.get("trainable") == "all")


@pytest.mark.parametrize("flavour", ["peft", "published"])
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_adapts_what_peft_adapts_by_default(family: str, flavour: Any, encoder_folder: Any) -> None:
    peft = {"adapter": LoraConfig(r=2, lora_alpha=2)}
    published = {"trainable": "lora", "lora_rank": 2, "lora_alpha": 2.0}
    model = classifier(encoder_folder(family), **(peft if flavour == "peft" else published))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, so that A would get no gradient
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    model(batch_of(encoder_folder(family))).square().sum().backward()
    adapters = {name for name in trainable_parameters(model) if "lora_" in name}
    assert all(dict(model.named_parameters())[name].grad.any() for name in adapters)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in adapters}
    if flavour == "peft" and family not in BLOCKS:
        assert layers == {"query", "value"}
        assert len(adapters) == 2 * 2 * LAYERS
    else:
        assert len(adapters) >= 2 * 4 * LAYERS
        assert not any("embeddings" in name for name in adapters)


@pytest.mark.parametrize(
    "options",
    [{"trainable": "last_layer", "pooling": "mean"}, {}, {"trainable": 2, "pooling": "mean"}],
    ids=str,
)
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_outputs_of_frozen_blocks_train_the_same_weights(
    family: str, options: dict[str, Any], encoder_folder: Any, messages_file: Path, cache: Path
) -> None:
    folder = encoder_folder(family)
    plain = fit(folder, messages_file, cache_frozen=False, **options)
    assert not list(cache.glob("*.safetensors"))
    cached = fit(folder, messages_file, **options)
    assert len(list(cache.glob("*.safetensors"))) == 2  # train and validation
    assert_trained_alike(cached, plain, classifier(folder, **{**options, "seed": 3}))
    padded = fit(folder, messages_file, {"padding": 40}, **options)  # padding is masked
    assert_trained_alike(padded, plain, classifier(folder, **{**options, "seed": 3}))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_steps_of_single_messages_are_joined(
    pooling: Any, encoder_folder: Any, messages_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sizes = encoder_folder("bert"), []
    step = TextClassifier.training_step

    def watched(self: Any, batch: Any, batch_idx: int) -> Any:
        sizes.append(len(batch["id"]))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TextClassifier, "training_step", watched)
    options = {"pooling": pooling, "accumulate": 8, "data": {"batch_size": 1}}
    joined = fit(folder, messages_file, **options)
    assert max(sizes) == 8
    sizes.clear()
    monkeypatch.setattr(SpamDataModule, "join_steps", lambda *args: None)
    single = fit(folder, messages_file, **options)
    assert set(sizes) == {1}
    assert_trained_alike(joined, single, classifier(folder, seed=3, pooling=pooling))


@pytest.mark.parametrize("family", ["distilbert", "minilm"])
def test_frozen_blocks_are_quantized(family: str, encoder_folder: Any, messages_file: Path, cache: Path) -> None:
    folder = encoder_folder(family)
    model = fit(folder, messages_file, quantization="nf4")
    names = {name for name, layer in model.named_modules() if isinstance(layer, Linear4bit)}
    numbers = {int(re.search(r"layer\.(\d+)\.", name)[1]) for name in names}  # type: ignore[index]
    assert numbers == set(range(LAYERS - 1))
    assert len(names) == 6 * (LAYERS - 1)
    whole, batch = classifier(folder), batch_of(folder)
    quantized = classifier(folder, quantization="nf4")
    with torch.no_grad():
        far = (quantized(batch) - whole(batch)).abs().max() / whole(batch).abs().max()
    assert 0 < far < 0.5


# How texts are encoded


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("length", [3, 7, 40])
def test_texts_are_encoded_and_cut_as_the_tokenizer_does_itself(family: str, length: int, encoder_folder: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder(family))
    texts = [*TEXTS, "", "a"]
    wanted = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    assert encoding(encoder_folder(family), max_length=length).encode(tokenizer, texts) == wanted
    assert {ids[0] for ids in wanted} == {tokenizer.cls_token_id}
    assert {ids[-1] for ids in wanted} == {tokenizer.sep_token_id}


def test_a_data_module_keeps_special_tokens_and_pads_with_padding(encoder_folder: Any, messages_file: Path) -> None:
    tokenizer = load_tokenizer(str(encoder_folder("bert")), encoder=True)
    data = SpamDataModule(str(messages_file), split="balanced", padding=9)
    data.prepare(tokenizer, 48, encoder=True)
    ids, length = data.datasets["train"].input_ids, data.datasets["train"].length
    assert (ids[:, 0] == 2).all()
    assert (ids[torch.arange(len(ids)), length - 1] == 3).all()
    assert (ids[torch.arange(9) >= length[:, None]] == 0).all()
    assert data.report["truncated"]["train"] > 0
    assert Encoding(**json.loads(json.dumps(asdict(data.encoding)))) == data.encoding  # type: ignore[union-attr]


def test_padding_leaves_room_for_a_text(encoder_folder: Any, messages_file: Path) -> None:
    tokenizer = load_tokenizer(str(encoder_folder("bert")), encoder=True)
    with pytest.raises(InputError, match=r"padding: leaves no room for a text between 2 special tokens \(got 2\)"):
        SpamDataModule(str(messages_file), split="balanced", padding=2).prepare(tokenizer, 48, encoder=True)
    SpamDataModule(str(messages_file), split="balanced", padding=3).prepare(tokenizer, 48, encoder=True)


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "last"}, "pooling: an encoder is not read at its last token (got 'last'); fix: use first or mean"),
        ({"pooling": "last_real"}, "pooling: an encoder is not read at its last token (got 'last_real')"),
        ({"causal_mask": False}, "causal_mask: an encoder has no causal mask to turn off (got False)"),
    ],
    ids=str,
)
def test_options_without_a_meaning_are_refused_by_name(options: Any, said: str, encoder_folder: Any) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        classifier(encoder_folder("bert"), **options)
    with pytest.raises(InputError, match=re.escape(said)):  # the first that a data module asks
        _ = TextClassifier(str(encoder_folder("bert")), **options).reads_padding


def test_defaults_are_those_of_the_kind(encoder_folder: Any, gpt2_folder: Path) -> None:
    encoder, decoder = classifier(encoder_folder("bert")), TextClassifier(str(gpt2_folder))
    assert (encoder.pooling, encoder.causal_mask, encoder.mask_padding) == ("first", False, True)
    assert (decoder.pooling, decoder.causal_mask, decoder.mask_padding) == ("last", True, False)
    assert not encoder.reads_padding
    assert not encoder.sees_padding
    assert classifier(encoder_folder("bert"), pooling="mean", mask_padding=False).pooling == "mean_real"


def test_a_tokenizer_without_padding_is_refused(encoder_folder: Any, tmp_path: Path) -> None:
    shutil.copytree(encoder_folder("bert"), tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="pad_token: the tokenizer has no padding token"):
        TextClassifier(str(tmp_path)).load_tokenizer()


def test_a_bert_that_was_made_a_decoder_is_one() -> None:
    model = tiny_encoder("bert", is_decoder=True)
    backbone = Backbone(model)
    assert (backbone.encoder, backbone.causal, backbone.splits) == (False, True, True)


def test_an_encoder_that_looks_back_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "is_encoder", lambda config: True)
    with pytest.raises(InputError, match="base_model: is not an encoder: its tokens ignore later ones"):
        Backbone(tiny_encoder("bert", is_decoder=True))


def test_what_is_neither_is_refused() -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50, "head_dim": 8,
             "intermediate_size": 32, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
             "eos_token_id": 2}  # fmt: skip
    config = AutoConfig.for_model("gemma3_text", use_bidirectional_attention=True, **shape)
    with pytest.raises(InputError, match="base_model: is not a decoder: its tokens attend to later ones"):
        Backbone(AutoModel.from_config(config))


# The commands


@pytest.fixture
def config(encoder_folder: Any, messages_file: Path, tmp_path: Path, cache: Path) -> Any:
    """``config(family, **options)`` writes a run's config file."""

    def write(family: str, **options: Any) -> Path:
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}
        model = {"base_model": str(encoder_folder(family)), "optimizer": optimizer, **options}
        data = {"source": str(messages_file), "split": "balanced", "padding": "none"}
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        tree = {
            "seed_everything": 1,
            "model": {"class_path": "ftkit.TextClassifier", "init_args": model},
            "data": {"class_path": "ftkit.SpamDataModule", "init_args": data},
            "trainer": {"max_epochs": 4, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, **quiet},
        }
        path = tmp_path / f"{family}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("roberta", {"dropout": 0.1}),
        ("modernbert", {"adapter": {"class_path": "peft.LoraConfig"}, "pooling": "mean"}),
        ("distilbert", {"trainable": "all", "frozen_dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_the_doctor_finds_nothing(family: str, options: dict[str, Any], config: Any) -> None:
    found = {finding.name: finding for finding in examine([config(family, **options)])}
    assert [finding for finding in found.values() if finding.passed is False] == []
    assert all(found[name].passed for name in ("batch = single", "padding", "causality", "gradients", "accumulation"))
    assert "mask off" in found["causality"].seen


@pytest.mark.parametrize(("pooling", "marks"), [("first", r"⟦\[CLS\]⟧.+ \[SEP\]"), ("mean", r"⟦\[CLS\] .+ \[SEP\]⟧")])
def test_an_example_is_shown_with_its_special_tokens(
    pooling: str, marks: str, config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "show", str(config("bert", pooling=pooling))]) == 0
    assert re.search(marks, capsys.readouterr().out)


def test_a_run_is_trained_tested_loaded_and_pushed(config: Any, tmp_path: Path, encoder_folder: Any) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for command in ("fit", "test"):
        assert main([command, "--config", str(config("bert")), "--trainer.default_root_dir", str(run)]) == 0
    model = TextClassifier.load(run).eval()
    assert model.encoding is not None
    assert model.encoding.ends == (3,)
    found = model.classify(TEXTS, batch_size=4)
    assert {one["label"] for one in found} == {"ham", "spam"}
    for text, together in zip(TEXTS, found, strict=True):
        (alone,) = model.classify([text])
        assert alone["label"] == together["label"]
        assert alone["probability"] == pytest.approx(together["probability"], abs=1e-5)
    push(run, "me/spam", dry_run=out)
    assert json.loads((out / "ftkit.json").read_text())["encoding"]["ends"] == [3]
    assert AutoTokenizer.from_pretrained(out)("a")["input_ids"][-1] == 3
