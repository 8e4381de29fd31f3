"""GPT2Classifier against the plain loop: same tiny weights, same batches, the settings of all 19 rows."""

import inspect
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2Model

import plain_loop as plain
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.samplers import published_order
from ftkit.classifier.spam import SpamDataModule

TINY = plain.Size(layers=3, width=32, heads=4, vocab=97, context=48)
PAD = 96
# Twenty times the published rate, so that training moves the losses by far more than the tolerance.
RATE = 1e-3
PUBLISHED_OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-5, "weight_decay": 0.1, "fused": True}}
POOLING = {"first": "first", "last": "last", "flexible": "last_real"}


class Recorded(GPT2Classifier):
    """Keeps the loss of every training batch."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Record the loss."""
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 in transformers format with every parameter random, norms and biases too."""
    config = GPT2Config(
        n_layer=TINY.layers,
        n_embd=TINY.width,
        n_head=TINY.heads,
        vocab_size=TINY.vocab,
        n_positions=TINY.context,
    )
    model = GPT2Model(config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        scale = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
        nn.init.normal_(parameter, mean=float(scale), std=0.3, generator=generator)
    path = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def splits() -> dict[str, list[tuple[list[int], int]]]:
    """163 training messages: 20 batches of 8 and 3 left over; one by one, 20 windows of 8 and one of 3."""
    generator = torch.Generator().manual_seed(2)

    def messages(count: int) -> list[tuple[list[int], int]]:
        lengths = torch.randint(1, 31, (count,), generator=generator).tolist()
        texts = [torch.randint(0, PAD, (length,), generator=generator).tolist() for length in lengths]
        return [(ids, int(max(ids) >= 92)) for ids in texts]

    return {"train": messages(163), "val": messages(9), "test": messages(16)}


def oracle(row: dict[str, Any], folder: Path) -> nn.Module:
    """The plain model of a row, at the tiny size."""
    return plain.build(row, TINY, GPT2Model.from_pretrained(folder).state_dict())


def classifier(row: dict[str, Any], folder: Path) -> Recorded:
    """ftkit's model of a row, at the tiny size."""
    model = Recorded(
        size=None,
        base_model=str(folder),
        seed=plain.SEED,
        optimizer=lambda params: torch.optim.AdamW(params, lr=RATE, weight_decay=0.1, fused=True),
        **arguments(row),
    )
    model.configure_model()
    return model


def arguments(row: dict[str, Any]) -> dict[str, Any]:
    """The row's settings as GPT2Classifier's arguments."""
    lora = {"lora_rank": row["lora_rank"], "lora_alpha": row["lora_alpha"]}
    return {
        "weights": row["weights"],
        "trainable": row["trainable"],
        "pooling": "mean" if row["mean"] else POOLING[row["position"]],
        "causal_mask": row["causal"],
        "ignore_index": row["ignore_index"],
        **(lora if row["trainable"] == "lora" else {}),
    }


def batches(row: dict[str, Any], messages: Any, length: int | None, order: list[int]) -> list[dict[str, Any]]:
    """ftkit's batches of `messages` in `order`, padded as the row says."""
    prepared = plain.prepare(messages, length, PAD)
    groups = [order[i : i + row["batch_size"]] for i in range(0, len(order), row["batch_size"])]
    return [
        {
            "input_ids": torch.stack([prepared[i][0] for i in group]),
            "length": torch.tensor([len(messages[i][0]) for i in group]),
            "label": torch.tensor([messages[i][1] for i in group]),
            "id": [str(i) for i in group],
        }
        for group in groups
    ]


def logits_of_both(
    row: dict[str, Any], ours: nn.Module, theirs: nn.Module, data: list[dict[str, Any]]
) -> tuple[Tensor, Tensor]:
    """Logits of ftkit and of the plain model on the same batches."""
    with torch.no_grad():
        got = [ours(batch) for batch in data]
        ids = [batch["input_ids"] for batch in data]
        wanted = [plain.choose(theirs(batch), batch, row, PAD) for batch in ids]
    return torch.cat(got), torch.cat(wanted)


def trainable_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("number", plain.ROWS)
def test_row(number: int, folder: Path, splits: Any) -> None:
    """Logits to 1e-5 before training, losses of 20 or more steps to 1e-4, trainable parameters exactly."""
    row = plain.ROWS[number]
    length = plain.padded_length(row, splits["train"], TINY.context)
    held_out = batches(row, splits["test"], length, list(range(16)))
    ours, theirs = classifier(row, folder), oracle(row, folder)
    assert trainable_count(ours) == trainable_count(theirs)
    got, wanted = logits_of_both(row, ours, theirs, held_out)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert wanted.std(0).min() > 0.05  # the messages differ by far more than the tolerance

    result = plain.train(theirs, row, splits, PAD, epochs=1, lr=RATE)
    seen = batches(row, splits["train"], length, result.orders[0])
    untrained = [plain.F.cross_entropy(ours(batch), batch["label"]).item() for batch in seen]
    fit(ours, seen, row["accumulation"])
    assert len(result.losses) == len(seen) >= 20
    torch.testing.assert_close(torch.tensor(ours.losses), torch.tensor(result.losses), atol=1e-4, rtol=0)
    assert (torch.tensor(untrained) - torch.tensor(result.losses)).abs().max() > 1e-2  # training shows
    got, wanted = logits_of_both(row, ours.eval(), theirs, held_out)  # and so does the last, shorter window
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def fit(model: L.LightningModule, data: list[dict[str, Any]], accumulation: int) -> None:
    """One epoch of the batches as they come."""
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulation,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, DataLoader(data, batch_size=None))  # type: ignore[arg-type]  # a list is a dataset


@pytest.mark.parametrize("number", plain.ROWS)
def test_the_shipped_row_has_the_published_settings(number: int) -> None:
    row, shipped = plain.ROWS[number], merged_config(number)
    value = with_defaults(GPT2Classifier, shipped["model"]["init_args"])
    data = with_defaults(SpamDataModule, shipped["data"]["init_args"])
    wanted = arguments(row)
    wanted.pop("weights")  # pretrained ones may come from several places
    assert {name: value[name] for name in wanted} == wanted
    assert (value["weights"] == "random") == (row["weights"] == "random")
    assert (value["size"], value["dropout"], value["mask_padding"]) == (row["size"], 0, False)
    assert (value["adapter"], value["class_weights"]) == (None, None)
    assert (data["split"], data["order"]) == ("published", "published")
    assert data["padding"] == {"longest": "longest", "model": "context", "none": "none"}[row["context"]]
    assert (data["batch_size"], data["drop_last"]) == (row["batch_size"], True)
    trainer = with_defaults(L.Trainer, shipped["trainer"])
    assert (trainer["max_epochs"], trainer["accumulate_grad_batches"]) == (5, row["accumulation"])
    assert (trainer["gradient_clip_val"], trainer["precision"]) == (None, None)
    assert shipped["seed_everything"] == plain.SEED
    optimizer = shipped["model"]["init_args"].get("optimizer", PUBLISHED_OPTIMIZER)
    assert optimizer == PUBLISHED_OPTIMIZER


def with_defaults(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """The constructor's defaults, and what is given over them."""
    signatures = [inspect.signature(base.__init__) for base in (kind, *kind.__bases__)]  # type: ignore[misc]
    return {name: p.default for signature in signatures for name, p in signature.parameters.items()} | given


def merged_config(number: int) -> dict[str, Any]:
    """The shipped base with the row's file over it."""

    def merge(base: Any, change: Any) -> Any:
        if not isinstance(base, dict):
            return change
        return base | {key: merge(base.get(key), value) for key, value in change.items()}

    configs = Path(__file__).parents[2] / "configs" / "ch06"
    (file,) = (configs / "rows").glob(f"{number:02d}_*.yaml")
    return merge(*(yaml.safe_load(path.read_text()) for path in (configs / "base.yaml", file)))


def test_the_default_optimizer_is_the_published_one(folder: Path) -> None:
    model = GPT2Classifier(size=None, base_model=str(folder))
    model.configure_model()
    optimizer = model.configure_optimizers()
    assert type(optimizer) is torch.optim.AdamW
    wanted = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=5e-5, weight_decay=0.1, fused=True)
    assert optimizer.defaults == wanted.defaults


@pytest.mark.parametrize(("number", "count"), [(1, 163), (1, 400), (14, 60)])
def test_published_order_is_the_loops(number: int, count: int, folder: Path, splits: Any) -> None:
    """Four epochs; with 400 messages every epoch's first batch is one that the loop evaluates after."""
    row = plain.ROWS[number] | {"trainable": "last_layer"}
    messages = [([i % PAD], i % 2) for i in range(count)]
    data = splits | {"train": messages}
    result = plain.train(oracle(row, folder), row, data, PAD, epochs=4)
    per_epoch = count // row["batch_size"]
    for epoch, wanted in enumerate(result.orders):
        got = published_order(count, per_epoch, seed=123, epoch=epoch).tolist()
        assert got[: per_epoch * row["batch_size"]] == wanted
