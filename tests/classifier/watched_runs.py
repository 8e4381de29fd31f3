"""Runs over made-up messages that keep losses, logits and whether the frozen part was read from disk."""

from pathlib import Path
from typing import Any

import families
import lightning as L
import torch
from peft import LoraConfig
from torch import Tensor
from torch.utils.data import DataLoader

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.training.dataset import MessageDataset, as_it_is
from ftkit.training.encoding import Encoding

PAD = 40
# By the published rows that have them; rows 6 to 9 and 12 have other sizes, and 15 is about steps and not batches.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1 last": ({}, {}),
    "2 first": ({"pooling": "first"}, {}),
    "3 last layer": ({"trainable": "last_layer"}, {}),
    "4 two blocks": ({"trainable": "last_two_blocks"}, {}),
    "5 all": ({"trainable": "all"}, {}),
    "10 random weights": ({"trainable": "all", "weights": "random"}, {}),
    "11 lora": ({"trainable": "lora"}, {}),
    "peft, all blocks": ({"adapter": LoraConfig(lora_alpha=16)}, {}),
    "peft, from the third block on": ({"adapter": LoraConfig(layers_to_transform=[2])}, {}),
    "13 context": ({}, {"width": 24}),
    "14 no padding": ({}, {"padded": False, "batch_size": 1}),
    "16 last real": ({"pooling": "last_real"}, {}),
    "16 last real, no padding": ({"pooling": "last_real"}, {"padded": False}),
    "17 no causal mask": ({"causal_mask": False}, {}),
    "17 no causal mask, no padding": ({"causal_mask": False}, {"padded": False, "batch_size": 1}),
    "18 ignored label": ({"ignore_index": PAD}, {}),
    "19 mean": ({"pooling": "mean"}, {}),
    "random weights": ({"weights": "random"}, {}),
    "mean of real tokens": ({"pooling": "mean_real"}, {}),
    "mask": ({"mask_padding": True}, {}),
    "mask, last real": ({"mask_padding": True, "pooling": "last_real"}, {}),
    "mask, not causal, mean": ({"mask_padding": True, "causal_mask": False, "pooling": "mean_real"}, {}),
    "mask, not causal, first": ({"mask_padding": True, "causal_mask": False, "pooling": "first"}, {}),
    "last layer, mean, no padding": (
        {"trainable": "last_layer", "pooling": "mean"},
        {"padded": False, "batch_size": 1},
    ),
    "last layer, last real": ({"trainable": "last_layer", "pooling": "last_real"}, {}),
}
CACHED = [
    name
    for name, (model, _) in SETTINGS.items()
    if model.get("trainable") not in ("all", "lora") and name != "peft, all blocks"
]


class Messages(L.LightningDataModule):
    """Made-up messages of 1 to 12 tokens; the class is whether the largest token is above 30."""

    def __init__(
        self, padded: bool = True, width: int = 12, batch_size: int = 4, seed: int = 1, train: int = 21
    ) -> None:
        super().__init__()
        self.padded, self.width, self.batch_size, self.seed, self.train = padded, width, batch_size, seed, train
        self.datasets: dict[str, MessageDataset] = {}

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        rules = Encoding(("ham", "spam"), self.width, pad_to_max=self.padded, pad_id=PAD, single=not self.padded)
        for split, count in (("train", self.train), ("val", 5), ("test", 6)):
            lengths = torch.randint(1, 13, (count,), generator=generator).tolist()
            texts = [torch.randint(0, PAD, (n,), generator=generator).tolist() for n in lengths]
            labels = [int(max(text) > 30) for text in texts]
            ids = [f"{split}{number}" for number in range(count)]
            self.datasets[split] = MessageDataset(ids, labels, texts, rules, split, width=12)

    def train_dataloader(self) -> Any:
        return DataLoader(self.datasets["train"], self.batch_size, collate_fn=as_it_is)

    def val_dataloader(self) -> Any:
        return DataLoader(self.datasets["val"], self.batch_size, collate_fn=as_it_is)

    def test_dataloader(self) -> Any:
        return DataLoader(self.datasets["test"], self.batch_size, collate_fn=as_it_is)


class Watched(TextClassifier):
    """Keeps losses, test logits, and whether batches came with features."""

    losses: list[float]
    logits: list[Tensor]
    attached: list[bool]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self.losses, self.logits, self.attached = [], [], []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        self.attached.append("features" in batch)
        return loss

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        self.logits.append(self(batch))
        self.attached.append("features" in batch)
        return super().test_step(batch, batch_idx, dataloader_idx)


class WatchedGPT2(Watched, GPT2Classifier):
    """GPT-2, watched."""


class WatchedLlama(Watched, TextClassifier):
    """A Llama, watched."""


def classifier(folder: Path, **arguments: Any) -> Watched:
    """The watched classifier of the family that lies in a folder."""

    def adamw(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=1e-3)

    kinds = {"gpt2": WatchedGPT2, "llama": WatchedLlama}
    return families.classifier(folder, kinds, **{"seed": 3, "optimizer": adamw, **arguments})


def trainer(**arguments: Any) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", max_epochs=2, **quiet, **arguments)


def run(
    folder: Path, data: L.LightningDataModule, precision: Any = "32-true", accumulate: int = 1, **arguments: Any
) -> Watched:
    """Train for two epochs and test."""
    model = classifier(folder, **arguments)
    for stage in ("fit", "test"):
        options = {} if stage == "fit" else {"verbose": False}
        doing = trainer(precision=precision, accumulate_grad_batches=accumulate)
        getattr(doing, stage)(model, datamodule=data, **options)
    return model


def entries(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("*.safetensors")}


def assert_same(got: Watched, wanted: Watched, atol: float = 1e-6) -> None:
    torch.testing.assert_close(torch.tensor(got.losses), torch.tensor(wanted.losses), atol=atol, rtol=0)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(wanted.logits), atol=5 * atol, rtol=0)
