"""Measure a classifier by a metric of your own, in validation and in the test."""

import lightning as L
import torch
from torchmetrics import Metric

from ftkit import GPT2Classifier, SpamDataModule


class Cost(Metric):
    """The mean cost of an answer, where a missed positive costs ten times as much as a false alarm."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch: the probability of the positive class (B,), and the class (B,), 1 for the positive one."""
        answers = preds >= 0.5
        self.total += (10 * (~answers & (target == 1)) + (answers & (target == 0))).sum()
        self.count += len(target)

    def compute(self) -> torch.Tensor:
        """Return the mean."""
        return self.total / self.count


L.seed_everything(123)
model = GPT2Classifier(base_model="demo", metrics={"cost": Cost()})
data = SpamDataModule("demo")
trainer = L.Trainer(max_epochs=1, accelerator="auto", devices=1, logger=False, enable_checkpointing=False)
trainer.fit(model, datamodule=data)
(figures,) = trainer.test(model, datamodule=data)
print(f"mean cost of an answer: {figures['test/cost']:.3f}")
