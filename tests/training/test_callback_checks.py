"""Which callbacks are refused for which modules, also without the command line."""

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.errors import InputError
from ftkit.training.callback_checks import refuse_callbacks


class Late(BoringModel):
    def configure_model(self) -> None:
        """Build the network here."""


def trainer(callback: L.Callback) -> L.Trainer:
    return L.Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)


def test_what_copies_an_unbuilt_network_is_refused_for_any_module_that_is_built_late() -> None:
    averaging = trainer(StochasticWeightAveraging(swa_lrs=0.1))
    refuse_callbacks(averaging, BoringModel(), ours=False)
    with pytest.raises(InputError, match="StochasticWeightAveraging copies the module before"):
        refuse_callbacks(averaging, Late(), ours=False)


def test_what_cannot_be_resumed_is_refused_for_ours() -> None:
    refuse_callbacks(trainer(WeightAveraging()), Late(), ours=False)
    with pytest.raises(InputError, match="EMAWeightAveraging keeps the frozen weights a second time"):
        refuse_callbacks(trainer(EMAWeightAveraging()), Late(), ours=True)


def test_a_trainer_of_ones_own_is_told_before_the_weights_are_loaded(tmp_path: Path) -> None:
    module = GPT2Classifier(base_model=str(tmp_path / "nowhere"), size=None)
    with pytest.raises(InputError, match="StochasticWeightAveraging"):
        trainer(StochasticWeightAveraging(swa_lrs=0.1)).fit(module)
