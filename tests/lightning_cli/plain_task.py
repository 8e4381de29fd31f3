"""Somebody's own module and data, without ftkit's checks."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class PlainModule(L.LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, width)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.training_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(batch[0])

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Raising(PlainModule):
    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise ValueError("my own")


class Mislogging(PlainModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("a/dataloader_idx_0", 1.0)


class Logging(PlainModule):
    """Logs a figure of its test, of the two loaders of PlainData apart."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("test/loss", self.training_step(batch, batch_idx))


class Silent(Logging):
    """Neither logs nor predicts."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class Predicting(Logging):
    """Returns predictions besides, half of them right."""

    class_names = ("no", "yes")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:  # type: ignore[override]
        super().test_step(batch, batch_idx, dataloader_idx)
        ids = [f"{dataloader_idx}-{batch_idx}-{place}" for place in range(len(batch[0]))]
        return {"id": ids, "label": ["yes", "no"], "prediction": ["yes", "yes"]}


class Untested(L.LightningModule):
    """Has no test."""


class Choosy(PlainModule):
    """Refuses its arguments, and has a fault in its own constructor."""

    def __init__(self, width: int = 3, part: int | None = 1) -> None:
        super().__init__(width)
        if width > 9:
            raise ValueError("width is too large")
        self.half = part / 2  # type: ignore[operator]


class NeedsPackage(L.Callback):
    def __init__(self) -> None:
        import absent_package  # type: ignore[import-not-found]  # noqa: F401


class PlainData(L.LightningDataModule):
    """Rows of zeros."""

    def __init__(self, rows: int = 4) -> None:
        super().__init__()
        self.rows = rows

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.zeros(self.rows, 2)), batch_size=2, drop_last=True)

    val_dataloader = predict_dataloader = train_dataloader

    def test_dataloader(self) -> list[DataLoader]:
        return [self.train_dataloader(), self.train_dataloader()]
