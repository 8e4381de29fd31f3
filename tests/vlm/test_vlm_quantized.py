"""Adapters on a quantized base: they learn, they alone are saved, and a loaded model repeats what was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig
from torch import Tensor

from ftkit.training.checkpoint import read_checkpoint
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.model import VLMModule
from ftkit.vlm.sft import VLMSFT

KINDS = {"8bit": Linear8bitLt, "nf4": Linear4bit}
RUNS = {
    "SFT of Idefics3": (VLMSFT, "idefics3_folder", "messages"),
    "SFT of PaliGemma": (VLMSFT, "paligemma_folder", "prefix"),
    "DPO of Idefics3": (VLMDPO, "idefics3_folder", "preference"),
}


def outputs(module: VLMModule, batch: dict[str, Any]) -> Tensor:
    """Log-probabilities of the answers' tokens; of pairs, by their sums, the losses."""
    with torch.no_grad():
        if module.preference:
            return module.eval().compare(batch)[0].losses  # type: ignore[operator]
        return module.eval().log_probs(batch["inputs"]).log_probs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", RUNS)
def test_a_loaded_model_repeats_what_was_trained(
    run: str,
    kind: Any,
    request: pytest.FixtureRequest,
    vlm_examples: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    kind_of_module, family, shape = RUNS[run]
    examples = str(vlm_examples(shape))
    data = VLMDataModule(examples, examples, examples, batch_size=4, seed=1)
    module = kind_of_module(
        base_model=str(request.getfixturevalue(family)), quantization=kind, adapter=LoraConfig(), dtype="float32",
        seed=1, optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2),
    )  # fmt: skip
    module.configure_model()
    layers = [layer for layer in module.modules() if isinstance(layer, KINDS[kind])]
    assert len(layers) > 2 * 7  # all projections of the text model, and those of the vision tower
    data.prepare(module.processor, module.preference)
    batch = {name: value for name, value in next(iter(data.val_dataloader())).items() if name != "origin"}
    untrained = outputs(module, batch)
    # Taken here, for bitsandbytes rounds the biases of 4-bit layers to the inputs' precision when they first run.
    base = {name: value.clone() for name, value in module.named_parameters() if not value.requires_grad}

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(
        max_epochs=1, limit_val_batches=0, accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path,
        **quiet,
    )  # fmt: skip
    trainer.fit(module.train(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    expected = outputs(module, batch)

    assert all(torch.equal(value, base[name]) for name, value in module.named_parameters() if name in base)
    stored = read_checkpoint(tmp_path / "tuned.ckpt")["state_dict"]
    assert stored.keys() == {name for name, value in module.named_parameters() if value.requires_grad}
    assert (expected - untrained).abs().max() > 1e-2
    loaded = kind_of_module.load(tmp_path / "tuned.ckpt")
    assert sum(isinstance(layer, KINDS[kind]) for layer in loaded.modules()) == len(layers)
    assert torch.equal(outputs(loaded, batch), expected)
