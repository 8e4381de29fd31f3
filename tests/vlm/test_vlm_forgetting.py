"""Held-out texts under a vision-language model that is tuned on preferences."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit import VLMDPO, Forgetting, VLMDataModule
from ftkit.results.forgetting import read_losses
from ftkit.training.text_losses import read_texts, text_losses, windows_of

TEXTS = ["the cat is red", "a blue dog sits here and waits"]


def test_preferences_change_the_loss_of_texts_from_that_of_the_base(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    file = vlm_examples("preference")
    module = VLMDPO(
        base_model=str(idefics3_folder),
        seed=1,
        max_new_tokens=4,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callback = Forgetting([{"text": text} for text in TEXTS])
    trainer = L.Trainer(default_root_dir=tmp_path, max_epochs=1, limit_train_batches=2, callbacks=[callback], **quiet)
    data = VLMDataModule(str(file), str(file), str(file), batch_size=2)
    (untrained,) = trainer.test(module, datamodule=data, verbose=False)
    assert untrained["test/retained_forgetting"] == 0.0
    tokenizer = AutoProcessor.from_pretrained(idefics3_folder).tokenizer
    net = AutoModelForImageTextToText.from_pretrained(idefics3_folder).eval()
    ids = [tokenizer(text, return_tensors="pt").input_ids for text in TEXTS]
    expected = [float(net(input_ids=one, labels=one).loss.detach()) for one in ids]
    tokens, before, _ = read_losses(tmp_path / "losses-retained.tsv")
    assert before / tokens == pytest.approx(expected, rel=1e-5)
    trainer.fit(module, datamodule=data)
    (tuned,) = trainer.test(module, datamodule=data, verbose=False)
    assert tuned["test/retained_forgetting"] != 0.0


def test_held_out_examples_are_written_as_the_data_are(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the chat template or, by ``chat: false``, without."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    file, processor = vlm_examples("preference"), AutoProcessor.from_pretrained(idefics3_folder)
    examples = [{"question": "what is red", "answer": "the cat"}, {"question": "who sits", "answer": "a dog"}]
    module = VLMDPO(base_model=str(idefics3_folder), seed=1, max_new_tokens=4)
    losses = {}
    for chat in (None, False):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = L.Trainer(default_root_dir=tmp_path, callbacks=[Forgetting(examples)], **quiet)
        data = VLMDataModule(str(file), str(file), str(file), batch_size=2, chat=chat)
        trainer.test(module, datamodule=data, verbose=False)
        losses[chat] = read_losses(tmp_path / "losses-retained.tsv")[:2]
    net = AutoModelForImageTextToText.from_pretrained(idefics3_folder).eval()
    windows = windows_of(read_texts(examples), processor, 64, chat=False)
    by_hand, tokens = text_losses(net, windows, 2, 2, torch.device("cpu"))
    assert losses[False][0].tolist() == tokens.tolist()
    assert losses[False][1] == pytest.approx(by_hand.tolist(), rel=1e-5)
    assert losses[None][1] != pytest.approx(by_hand.tolist(), rel=1e-2)
