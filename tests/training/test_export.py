"""What is pushed: the card's figures, whole files, no paths of this machine; and the upload over HTTP."""

import json
import re
from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest
import torch
import yaml

from ftkit.errors import InputError
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.export import DESCRIPTION, STATE, export_trained, read_export
from ftkit.training.model_card import CardFacts, Use, model_card

RESULT = {
    "seed": 123,
    "steps": 130,
    "seconds": {"fit": 61.2},
    "parameters": {"trainable": 50242, "total": 347650},
    "data": {"source": "sums", "sha256": "e1ade0", "sizes": {"train": 1000, "test": 300}},
    "versions": {"python": "3.11.7", "ftkit": "0.1.0"},
    "hardware": {"cpu": "a CPU", "gpu": None},
    "splits": {"test": {"n": 300, "correct": 254, "accuracy": 254 / 300}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    state = {"net.head.weight": torch.arange(6.0).view(2, 3), "net.head.bias": torch.zeros(2, dtype=torch.bfloat16)}
    options = {"hyper_parameters": {"size": "small"}, "base": {"a": 1}, "format": 2}
    checkpoint = {"state_dict": state, **options, "optimizer_states": [1]}
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run"


def test_what_was_trained_is_kept_and_nothing_else(run: Path, tmp_path: Path) -> None:
    export_trained(run, tmp_path / "out", "ftkit.Some")
    found = read_export(tmp_path / "out")
    assert found.keys() == {"format", "hyper_parameters", "base", "encoding", "state_dict", "file"}
    assert found["hyper_parameters"] == {"size": "small", "_class_path": "ftkit.Some"}
    assert found["state_dict"]["net.head.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["state_dict"]["net.head.bias"].dtype == torch.bfloat16


def test_a_flipped_byte_is_noticed(run: Path, tmp_path: Path) -> None:
    export_trained(run, tmp_path / "out", "ftkit.Some")
    file = tmp_path / "out" / STATE
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(InputError, match="the checksum does not match"):
        read_export(tmp_path / "out")
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_export(tmp_path / "out")
    (tmp_path / "out" / DESCRIPTION).write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        read_export(tmp_path / "out")


def test_the_card_has_figures_with_wilsons_intervals() -> None:
    facts = CardFacts(
        "me/sums", "text-generation", "org/base", "abc", "adapters", "peft", ("lora",), "mit", "exact match"
    )
    card = model_card(facts, RESULT, configured=True)
    _, header, body = card.split("---\n", 2)
    # Wilson, 254 of 300: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    assert "| test | 300 | 84.67% | 80.15% to 88.30% |" in body
    for expected in (
        "SHA-256: `e1ade0`",
        "Base model: `org/base` at `abc`.",
        "$ ftkit fit --config config.yaml",
        "$ hf download me/sums --local-dir model\n$ ftkit serve model",
        "50,242 of 347,650 parameters",
        "130 steps in 61 s on a CPU",
        "seed: 123",
        "python 3.11.7, ftkit 0.1.0",
    ):
        assert expected in body
    read = yaml.safe_load(header)
    assert read["license"] == "mit"
    assert read["base_model"] == "org/base"
    assert read["tags"] == ["ftkit", "lora"]
    result = read["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "sums", "type": "custom", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "exact match", "value": 254 / 300}]


def test_a_run_that_was_not_evaluated_claims_nothing() -> None:
    facts = CardFacts("me/x", "text-classification", None, None, "weights", "ftkit")
    card = model_card(facts, {**RESULT, "splits": {}, "data": None}, configured=False)
    assert "It was not evaluated." in card
    assert "not on the hub" in card
    assert "ftkit fit" not in card
    assert "model-index" not in card
    assert "license" not in card


def test_the_template_fills_in_all_that_an_example_of_use_holds_and_nothing_else() -> None:
    template = resources.files("ftkit").joinpath("assets", "model_card.md.j2").read_text(encoding="utf-8")
    assert set(re.findall(r"\buse\.(\w+)", template)) == {field.name for field in fields(Use)}


def test_the_hub_reads_the_header() -> None:
    from huggingface_hub import ModelCard

    facts = CardFacts("me/sums", "text-generation", "org/base", None, "adapters", "peft")
    data = ModelCard(model_card(facts, RESULT, configured=True)).data
    assert data.eval_results[0].metric_value == 254 / 300
    assert json.dumps(data.to_dict())
