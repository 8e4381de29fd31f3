"""`ftkit doctor` on a vision-language model: images, supervised ends, adapters."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor

from ftkit.doctor import examine
from ftkit.vlm.encoder import ChatEncoder

RUNS = [
    ("VLMSFT", "idefics3_folder", "messages"),
    ("VLMSFT", "paligemma_folder", "prefix"),
    ("VLMDPO", "idefics3_folder", "preference"),
    ("VLMDPO", "paligemma_folder", "preference"),
]


@pytest.fixture
def doctor(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str, Path], dict[str, Any]]:
    """Examines a model on examples, four in a batch: findings by name."""

    def run(model: str, folder: str, examples: Path) -> dict[str, Any]:
        arguments = {
            "base_model": str(request.getfixturevalue(folder)),
            "adapter": {"class_path": "peft.LoraConfig"},
            "optimizer": {"class_path": "torch.optim.AdamW"},
        }
        splits = dict.fromkeys(("train", "val", "test"), str(examples))
        tree = {
            "model": {"class_path": f"ftkit.{model}", "init_args": arguments},
            "data": {"class_path": "ftkit.VLMDataModule", "init_args": {**splits, "batch_size": 4}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return {finding.name: finding for finding in examine([path])}

    return run


@pytest.mark.parametrize(("model", "folder", "shape"), RUNS[:3])
def test_sound_runs_pass(model: str, folder: str, shape: str, doctor: Any, vlm_examples: Callable[[str], Path]) -> None:
    found = doctor(model, folder, vlm_examples(shape))
    assert {name: finding.seen for name, finding in found.items() if finding.passed is False} == {}
    assert all(found[name].passed for name in ("supervised", "images", "end token", "gradients", "frozen"))
    assert "adapter" in found["gradients"].seen


@pytest.mark.parametrize(("model", "folder", "shape"), RUNS)
def test_examples_with_no_image_or_two_may_be_in_a_batch(
    model: str, folder: str, shape: str, doctor: Any, vlm_examples: Callable[[str], Path]
) -> None:
    lines = vlm_examples(shape).read_text().splitlines()[:4]
    fewest = ["0.png"] if folder == "paligemma_folder" else []  # its processor takes no text without an image
    images = (fewest, ["1.png"], ["2.png", "3.png"], ["3.png"])
    examples = vlm_examples(shape).with_name("mixed.jsonl")
    records = [json.loads(line) | {"images": names} for line, names in zip(lines, images, strict=True)]
    for record in records:
        record.pop("image", None)
    examples.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = doctor(model, folder, examples)
    assert {name: finding.seen for name, finding in found.items() if finding.passed is False} == {}
    assert found["images"].passed
    assert ("0" in re.findall(r"\d+", found["images"].seen)) == (
        not fewest
    )  # the places of the example without an image


def dropped(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if not name.startswith("pixel")}


def of_other_examples(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.roll(1, 0) if name.startswith("pixel") else value for name, value in inputs.items()}


def one_short(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[1:] if name.startswith("pixel") else value for name, value in inputs.items()}


def one_place_less(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    place = tuple((inputs["labels"] == -100).nonzero()[2].tolist())
    return inputs | {"input_ids": inputs["input_ids"].index_put(tuple(map(torch.tensor, place)), torch.tensor(7))}


@pytest.mark.parametrize(
    ("run", "spoil"),
    [(0, dropped), (0, of_other_examples), (1, dropped), (1, one_short), (2, of_other_examples), (1, one_place_less)],
)
def test_images_that_do_not_fit_their_texts_are_seen(
    run: int,
    spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    doctor: Any,
    vlm_examples: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, folder, shape = RUNS[run]
    sound = ChatEncoder.inputs
    monkeypatch.setattr(ChatEncoder, "inputs", lambda self, examples: spoil(sound(self, examples)))
    found = doctor(model, folder, vlm_examples(shape))
    assert [name for name, finding in found.items() if finding.passed is False] == ["images"]
    assert list(found)[-1] == "images"  # what is wrong is told, and no step tried
