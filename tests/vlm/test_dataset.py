"""Where image features are kept, an example's pictures are opened once a run, and the numbers stay the same."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit.examples.reader import read_examples
from ftkit.models.vision_families import FEATURES
from ftkit.training.feature_store import FeatureStore
from ftkit.vlm import images
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dataset import ORIGIN, ExampleDataset
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.reference import CachedReference
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.vision import FrozenVision


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def examples(vlm_examples: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """``examples(shape)`` is a file of 12 examples with one picture or two; but for PaliGemma also with none."""
    folder = tmp_path / "rows"

    def written(shape: str) -> Path:
        source = vlm_examples(shape)
        if not folder.exists():
            shutil.copytree(source.parent, folder)
        found = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        if shape != "prefix":
            found = [
                {**example, "images": example["images"] if number % 6 else []} for number, example in enumerate(found)
            ]
        (folder / source.name).write_text("".join(f"{json.dumps(example)}\n" for example in found), encoding="utf-8")
        return folder / source.name

    return written


class Opened:
    """How many examples went through the processor to make batches, and how many pictures were decoded at all."""

    def __init__(self) -> None:
        self.examples = self.pictures = 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    counts, process, decode, setup = Opened(), ChatEncoder._processed, images.decode_image, VLMDataModule.setup

    def processed(*args: Any) -> Any:
        counts.examples += 1
        return process(*args)

    def decoded(*args: Any) -> Any:
        counts.pictures += 1
        return decode(*args)

    def measured(data: VLMDataModule, stage: str) -> None:
        before = counts.examples
        setup(data, stage)
        counts.examples = before  # what it takes to know which examples may be too long

    monkeypatch.setattr(VLMDataModule, "setup", measured)
    monkeypatch.setattr(ChatEncoder, "_processed", processed)
    monkeypatch.setattr(images, "decode_image", decoded)
    return counts


class Record(L.Callback):
    """The losses of all steps and validations, and which examples were asked for."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.examples: dict[str, list[str]] = {"train": [], "val": []}
        self.pixels: list[bool] = []  # of each training batch, as the step gets it

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, number: int) -> None:
        self.examples["train"] += batch["id"]
        self.pixels.append("pixel_values" in batch["inputs"])

    def on_validation_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, number: int) -> None:
        self.examples["val"] += batch["id"]

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses.append(trainer.callback_metrics["train/loss"].item())

    def on_validation_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses.append(trainer.callback_metrics["val/loss"].item())


def fit(module: Any, data: VLMDataModule, folder: Path, *callbacks: L.Callback, **options: Any) -> Record:
    """Three epochs over ten examples each, batched differently each time, with a validation before and after each."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given = {"max_epochs": 3, "limit_train_batches": 2, "accelerator": "cpu", "devices": 1, "logger": False, **options}
    record = Record()
    L.Trainer(**quiet, **given, default_root_dir=folder, callbacks=[record, *callbacks]).fit(module, datamodule=data)
    return record


def data_of(path: Path, **options: Any) -> VLMDataModule:
    return VLMDataModule(str(path), str(path), str(path), **{"batch_size": 5, "seed": 1, **options})


def module_of(kind: type[Any], model: Path, **options: Any) -> Any:
    learning = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1), "seed": 1, "max_new_tokens": 2}
    return kind(**{"base_model": str(model), "adapter": LoraConfig(), **learning, **options})


KINDS = {
    "sft": ("idefics3_folder", VLMSFT, "messages"),
    "dpo": ("idefics3_folder", VLMDPO, "preference"),
    "whole pictures": ("paligemma_folder", VLMSFT, "prefix"),
}


@pytest.mark.parametrize("which", KINDS)
def test_a_examples_pictures_are_opened_once_and_the_losses_are_the_same_bit_by_bit(
    which: str,
    examples: Callable[[str], Path],
    opened: Opened,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture, kind, shape = KINDS[which]
    model, path = request.getfixturevalue(fixture), examples(shape)
    images = {example.id: len(example.images) for example in read_examples(path)}
    found = fit(module_of(kind, model), data_of(path), tmp_path)
    distinct = [identity for ids in found.examples.values() for identity in set(ids)]  # a split's examples are its own
    assert opened.examples == len(distinct) == 24
    assert opened.pictures == sum(images[identity] for identity in distinct)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(ExampleDataset, "remember", lambda *args: None)
    opened.examples = 0
    again = fit(module_of(kind, model), data_of(path), tmp_path)
    assert again.examples == found.examples
    assert opened.examples == sum(map(len, found.examples.values())) == 3 * 10 + 10 + 3 * 12
    assert len(again.losses) == 3 * 2 + 4
    assert again.losses == found.losses


@pytest.mark.parametrize(
    "options",
    [{"cache_vision": False}, {"freeze_vision": False, "adapter": None}],
    ids=["nothing kept", "the tower learns"],
)
def test_pictures_are_opened_in_every_epoch_where_their_features_are_not_kept(
    options: dict[str, Any], idefics3_folder: Path, examples: Callable[[str], Path], opened: Opened, tmp_path: Path
) -> None:
    found = fit(module_of(VLMSFT, idefics3_folder, **options), data_of(examples("messages")), tmp_path)
    assert opened.examples == sum(map(len, found.examples.values()))
    assert all(found.pixels)


def test_a_full_store_leaves_the_pictures_to_be_opened(
    idefics3_folder: Path,
    examples: Callable[[str], Path],
    opened: Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = examples("messages")
    wanted = fit(module_of(VLMSFT, idefics3_folder), data_of(path), tmp_path)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("FTKIT_FEATURES_GB", "0")
    opened.examples = 0
    with pytest.warns(UserWarning, match="not kept for later"):
        found = fit(module_of(VLMSFT, idefics3_folder), data_of(path), tmp_path)
    texts = sum(identity in ("m0", "m6") for ids in found.examples.values() for identity in ids)  # they have no images
    assert opened.examples == sum(map(len, found.examples.values())) - texts + 4
    assert found.losses == pytest.approx(wanted.losses, abs=1e-6)


class AfterTwoEpochs(L.Callback):
    """Does something between the second epoch and the third."""

    def __init__(self, action: Callable[[Any], None]) -> None:
        self.action = action

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        if trainer.current_epoch == 2:
            self.action(module)


def test_examples_whose_features_are_gone_are_encoded_again(
    idefics3_folder: Path, examples: Callable[[str], Path], opened: Opened, tmp_path: Path
) -> None:
    path = examples("messages")
    wanted = fit(module_of(VLMSFT, idefics3_folder), data_of(path), tmp_path)
    evict = AfterTwoEpochs(lambda module: shutil.rmtree(tmp_path / "cache"))
    opened.examples = 0
    module = module_of(VLMSFT, idefics3_folder)
    with pytest.warns(UserWarning, match="cannot be read"):
        found = fit(module, data_of(path), tmp_path, evict)
    assert found.losses == pytest.approx(wanted.losses, abs=1e-6)
    assert opened.examples > 24
    assert module.vision.computed > 0


def test_a_part_that_begins_to_learn_gets_pixels(
    idefics3_folder: Path, examples: Callable[[str], Path], opened: Opened, tmp_path: Path
) -> None:
    def unfreeze(module: Any) -> None:
        module.net.get_base_model().model.connector.requires_grad_(True)

    data = data_of(examples("messages"))
    found = fit(module_of(VLMSFT, idefics3_folder), data, tmp_path, AfterTwoEpochs(unfreeze))
    assert found.pixels == [False] * 4 + [True] * 2
    assert opened.examples == 24 + 10 + 12


def test_the_next_stage_and_whoever_looks_at_a_batch_find_the_pictures_of_now(
    idefics3_folder: Path, examples: Callable[[str], Path], opened: Opened, tmp_path: Path
) -> None:
    path, module = examples("messages"), module_of(VLMSFT, idefics3_folder)
    data = data_of(path)
    before = fit(module, data, tmp_path)
    (batch,) = DataLoader(data.datasets["train"], batch_size=12, collate_fn=data.datasets["train"].batch)
    assert batch["inputs"]["pixel_values"].shape[0] == 12
    for picture in path.parent.glob("*.png"):
        Image.new("RGB", (64, 64), "yellow").save(picture)
    opened.examples = 0
    after = fit(module_of(VLMSFT, idefics3_folder), data, tmp_path)
    assert opened.examples == 24
    assert abs(after.losses[0] - before.losses[0]) > 1e-4


def test_workers_open_pictures_always(
    idefics3_folder: Path, examples: Callable[[str], Path], opened: Opened, tmp_path: Path
) -> None:
    path = examples("messages")
    wanted = fit(module_of(VLMSFT, idefics3_folder), data_of(path), tmp_path)
    opened.examples = 0
    found = fit(module_of(VLMSFT, idefics3_folder), data_of(path, num_workers=1), tmp_path)
    assert found.losses == wanted.losses
    assert opened.examples == 0  # in this process


def test_workers_open_what_this_process_remembers_too(
    idefics3_folder: Path, examples: Callable[[str], Path], tmp_path: Path
) -> None:
    data = ExampleDataset(
        read_examples(examples("messages")), ChatEncoder(AutoProcessor.from_pretrained(idefics3_folder))
    )
    net = AutoModelForImageTextToText.from_pretrained(idefics3_folder).requires_grad_(False)
    FrozenVision(net, store=FeatureStore(tmp_path)).attach(data.batch(list(data)))
    here = data.batch([data[1]])
    (there,) = DataLoader(data, sampler=[1], num_workers=1, collate_fn=data.batch)
    assert here.keys() - there.keys() == {ORIGIN}
    assert here["inputs"].keys() < there["inputs"].keys()


@pytest.fixture(params=KINDS)
def dataset(request: pytest.FixtureRequest, examples: Callable[[str], Path]) -> tuple[ExampleDataset, Any]:
    """Examples for a model, and the model."""
    fixture, kind, shape = KINDS[request.param]
    folder = request.getfixturevalue(fixture)
    encoder = ChatEncoder(AutoProcessor.from_pretrained(folder), preference=kind.preference)
    net = AutoModelForImageTextToText.from_pretrained(folder).requires_grad_(False)
    return ExampleDataset(read_examples(examples(shape)), encoder), net


def test_remembered_and_opened_examples_share_a_batch(
    dataset: tuple[ExampleDataset, Any], opened: Opened, tmp_path: Path
) -> None:
    data, net = dataset
    vision, order = FrozenVision(net, store=FeatureStore(tmp_path)), (1, 3, 0, 2, 5, 4)

    def attached(vision: FrozenVision, *numbers: int) -> dict[str, Any]:
        return vision.attach(data.batch([data[number] for number in numbers], evaluation=True))

    attached(vision, 0, 3, 5)
    opened.examples = 0
    mixed = attached(vision, *order)
    assert opened.examples == 3
    known = attached(vision, *order)
    assert opened.examples == 3
    data.forget()
    wanted = attached(vision, *order)
    assert opened.examples == 3 + 6
    for batch in (mixed, known):
        assert batch.keys() == wanted.keys()
        assert (batch["id"], batch["answer"]) == (wanted["id"], wanted["answer"])
        for name in {"inputs", "prompts"} & wanted.keys():
            assert batch[name].keys() == wanted[name].keys()
            assert all(torch.equal(batch[name][key], wanted[name][key]) for key in wanted[name])
    data.forget()
    anew = attached(FrozenVision(net, store=FeatureStore(tmp_path / "other")), *order)["inputs"][FEATURES]
    torch.testing.assert_close(mixed["inputs"][FEATURES], anew, atol=1e-6, rtol=0)
    if data.encoder.preference:
        keys = CachedReference(net, store=FeatureStore(tmp_path)).keys
        assert keys(mixed["inputs"]) == keys(wanted["inputs"])


def test_examples_of_the_same_name_are_not_taken_for_each_other(
    dataset: tuple[ExampleDataset, Any], tmp_path: Path
) -> None:
    data, net = dataset
    twice = ExampleDataset([replace(example, id="a") for example in data.examples[:2]], data.encoder)
    vision = FrozenVision(net, store=FeatureStore(tmp_path))
    first, second = (vision.attach(twice.batch([twice[0], twice[1]]))["inputs"] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_remembered_is_small(dataset: tuple[ExampleDataset, Any], tmp_path: Path) -> None:
    data, net = dataset
    vision = FrozenVision(net, store=FeatureStore(tmp_path))
    vision.attach(data.batch(list(data)))
    assert len(data._remembered) == 12
    assert max(map(len, data._remembered.values())) < 1000  # bytes; a tile has 12,288 of pixels
    batch = data.batch([data[0]])
    assert "pixel_values" not in batch["inputs"]
    assert batch[ORIGIN].with_pixels(batch) is not batch
    assert data._remembered.keys() == {id(example) for example in data.examples[1:]}
