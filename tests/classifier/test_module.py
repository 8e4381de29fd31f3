"""The classifier as a Lightning module: what it builds, how it trains, what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import families
import lightning as L
import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.utils.data import DataLoader

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.errors import InputError
from ftkit.training.encoding import Encoding


def classifier(folder: Path, **arguments: Any) -> GPT2Classifier:
    return GPT2Classifier(size=None, base_model=str(folder), **{"seed": 5, **arguments})


def batch(labels: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    ids = torch.randint(0, 256, (len(labels), 6), generator=torch.Generator().manual_seed(2))
    return {
        "input_ids": ids,
        "length": torch.full((len(labels),), 6),
        "label": torch.tensor(labels),
        "id": [str(index) for index in range(len(labels))],
    }


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_the_hub_needs_a_size() -> None:
    with pytest.raises(InputError, match=r"size: the hub has four sizes; fix: choose one of small, medium, large, xl"):
        GPT2Classifier(base_model="hub", size=None)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"weights": "random"}, {"weights": "random_transformers"}, {"trainable": "lora"},
     {"adapter": LoraConfig()}],
)  # fmt: skip
def test_building_leaves_the_global_generator_alone_and_happens_once(arguments: Any, gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder, **arguments)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model.configure_model()
    net = model.net
    assert torch.equal(torch.get_rng_state(), before)
    model.configure_model()
    assert model.net is net
    other = classifier(gpt2_folder, **arguments)
    torch.manual_seed(2)  # the module's own seed decides
    other.configure_model()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    another = classifier(gpt2_folder, **arguments, seed=6)
    another.configure_model()
    assert not all(torch.equal(value, another.state_dict()[name]) for name, value in model.state_dict().items())


def test_without_a_seed_it_takes_the_one_that_was_set(gpt2_folder: Path) -> None:
    L.seed_everything(77)
    model = classifier(gpt2_folder, seed=None)
    assert model.seed == model.hparams["seed"] == 77


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_the_head_has_torchs_default_weights_of_the_seed(weights: Any, gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder, weights=weights)
    model.configure_model()
    torch.manual_seed(5)
    expected = torch.nn.Linear(32, 2)
    assert model.net is not None
    assert torch.equal(model.net.head.weight, expected.weight)
    assert torch.equal(model.net.head.bias, expected.bias)


def test_dropout_acts_in_training_and_not_in_evaluation(gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder, dropout=0.5)
    model.configure_model()
    with torch.no_grad():
        assert not torch.equal(model.train()(batch()), model(batch()))
        assert torch.equal(model.eval()(batch()), model(batch()))
        without = classifier(gpt2_folder)
        without.configure_model()
        assert torch.equal(without.train()(batch()), model(batch()))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_every_part_is_in_training_mode_while_it_trains(weights: Any, gpt2_folder: Path) -> None:
    """transformers hands out models in evaluation mode, where their dropout would be off."""
    modes: list[set[bool]] = []

    class Watched(GPT2Classifier):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            modes.append({module.training for module in self.modules()})
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
            modes.append({module.training for module in self.modules()})
            return super().validation_step(batch, batch_idx)

    model = Watched(size=None, base_model=str(gpt2_folder), weights=weights, dropout=0.5, seed=5)
    loader = DataLoader([batch(), batch()], batch_size=None)  # type: ignore[arg-type]
    trainer(num_sanity_val_steps=0, limit_val_batches=1).fit(model, loader, loader)
    assert modes == [{True}, {True}, {False}]


def loss_of(folder: Path, labels: tuple[int, ...] = (0, 1, 1, 1), **arguments: Any) -> Tensor:
    model = families.classifier(folder, seed=5, **arguments)
    model.configure_model()
    model.log = lambda *args, **kwargs: None
    return model.training_step(batch(labels), 0).detach()


def test_the_loss_weighs_and_ignores_as_told(folder: Path) -> None:
    model = families.classifier(folder, seed=5)
    model.configure_model()
    with torch.no_grad():
        each = -model(batch((0, 1, 1, 1))).log_softmax(-1)[range(4), [0, 1, 1, 1]]
    torch.testing.assert_close(loss_of(folder), each.mean())
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(loss_of(folder, class_weights=[3.0, 1.0]), (weights * each).sum() / weights.sum())
    assert torch.equal(loss_of(folder, ignore_index=50256), loss_of(folder))
    ignored = loss_of(folder, (0, 7, 7, 7), ignore_index=7)
    torch.testing.assert_close(ignored, each[0])


LENGTHS = (3, 9, 1, 6)


def without_padding(model: GPT2Classifier) -> list[dict[str, Any]]:
    """Messages of different lengths as one padded batch, and one by one; the model knows that none was padded."""
    generator = torch.Generator().manual_seed(2)
    rules = Encoding(("ham", "spam"), max_length=12, pad_to_max=False, pad_id=256, single=False)
    texts = [torch.randint(0, 256, (length,), generator=generator).tolist() for length in LENGTHS]
    labels = torch.tensor([0, 1, 1, 0])
    model.configure_model()
    model.encoding = rules
    alone = [{**rules.pad([text]), "label": label[None]} for text, label in zip(texts, labels, strict=True)]
    return [{**rules.pad(texts), "label": labels}, *alone]


@pytest.mark.parametrize("pooling", ["first", "last", "last_real", "mean", "mean_real"])
@pytest.mark.parametrize("options", [{}, {"causal_mask": False, "mask_padding": True}, {"trainable": "all"}], ids=str)
def test_without_padding_one_batch_is_the_step_of_its_messages_one_by_one(
    pooling: Any, options: dict[str, Any], gpt2_folder: Path
) -> None:
    model = classifier(gpt2_folder, pooling=pooling, **options)
    together, *alone = without_padding(model)

    def step(batches: list[dict[str, Any]]) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        losses = torch.stack([model.training_step(each, 0) for each in batches])
        losses.mean().backward()  # as accumulate_grad_batches does
        return losses.mean().detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    (loss, gradients), (expected_loss, expected) = step([together]), step(alone)
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=0)
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-3
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=0)


def test_where_padding_was_learnt_the_last_position_may_be_padding(gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder)
    together, *_ = without_padding(model)
    own = model(together)
    model.encoding = replace(model.encoding, pad_to_max=True)
    differs = (model(together) - own).abs().amax(1) > 1e-3
    assert differs.tolist() == [length < max(LENGTHS) for length in LENGTHS]


def test_predictions_are_the_softmax(gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder)
    model.configure_model()
    model.eval()
    with torch.no_grad():
        logits = model(batch())
        for step in (model.test_step, model.predict_step):
            rows = step(batch(), 0)
            torch.testing.assert_close(rows["probability"], logits.softmax(-1)[:, 1])
            assert torch.equal(rows["prediction"], logits.argmax(-1))
            assert rows["id"] == ["0", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 1.0}, r"dropout: is a probability below 1 \(got 1.0\)"),
        ({"dropout": float("nan")}, r"dropout: is a probability"),
        ({"ignore_index": 1}, r"ignore_index: is the label of a class \(got 1\)"),
        ({"class_weights": [1.0]}, r"class_weights: takes one positive weight a class"),
        ({"class_weights": [1.0, 0.0]}, r"class_weights: takes one positive weight a class"),
        ({"lora_rank": 0}, r"lora_rank: must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: Any, message: str, gpt2_folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        classifier(gpt2_folder, **arguments)


def test_the_tokenizer_is_loaded_once(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server classifies at every step, and the hub may be asked at every load."""
    model = classifier(gpt2_folder)
    model.encoding = Encoding(("ham", "spam"), max_length=8, pad_to_max=False, pad_id=0, single=False)
    loading = Mock(side_effect=model.load_tokenizer)
    monkeypatch.setattr(model, "load_tokenizer", loading)
    assert model.classify(["win cash"]) == model.classify(["win cash"])
    loading.assert_called_once()


def test_the_letters_of_a_text_are_no_texts(gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder)
    model.encoding = Encoding(("ham", "spam"), max_length=8, pad_to_max=False, pad_id=0, single=False)
    one: Any = "win cash"
    with pytest.raises(InputError, match=r"texts: must be a list of texts \(got 'win cash'\)"):
        model.classify(one)
    with pytest.raises(InputError, match="batch_size: must be at least 1"):
        model.classify(["win cash"], batch_size=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_train_is_refused(rate: float, gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder, optimizer=lambda params: torch.optim.SGD(params, lr=rate))
    model.configure_model()
    with pytest.raises(InputError, match=r"model.optimizer"):
        model.configure_optimizers()


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_moves_the_rate_at_its_interval_and_may_start_at_zero(interval: Any, gpt2_folder: Path) -> None:
    model = classifier(
        gpt2_folder,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.5),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 4),
        scheduler_interval=interval,
    )
    model.configure_model()
    made = model.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == interval
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [0, 0.125, 0.25]


def test_hyperparameters_are_plain_values(gpt2_folder: Path) -> None:
    kinds = {type(value) for value in dict(classifier(gpt2_folder, class_weights=[1.0, 2.0]).hparams).values()}
    assert kinds <= {str, int, float, bool, list, type(None)}


def test_the_tokenizer_may_come_from_elsewhere(gpt2_folder: Path, tmp_path: Path) -> None:
    tokenizer = classifier(gpt2_folder).load_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path)
    assert len(classifier(gpt2_folder, tokenizer=str(tmp_path)).load_tokenizer()) == len(tokenizer) == 258
    assert classifier(gpt2_folder).context_length == 64
