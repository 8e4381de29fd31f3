"""Checkpoints hold what was trained, and nothing that is not theirs is loaded."""

import errno
import os
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from checksum_file import write_checksum
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.spam import SpamDataModule
from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import sha256_of
from ftkit.training.checkpoint import AtomicCheckpointIO, find_checkpoint, read_checkpoint, trainable_parameters
from ftkit.training.recorder import RunRecorder

# Every way of pooling, of padding and of making weights; batch size 1 where padding could change a result.
CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "first": ({"pooling": "first"}, {}),
    "last": ({"pooling": "last"}, {}),
    "last_real": ({"pooling": "last_real"}, {"padding": "none"}),
    "mean": ({"pooling": "mean"}, {"padding": 20}),
    "mean_real": ({"pooling": "mean_real", "causal_mask": False, "mask_padding": True}, {"padding": "context"}),
    "no padding": ({"pooling": "mean"}, {"padding": "none", "batch_size": 1}),
    "not causal": ({"causal_mask": False}, {}),
    "published lora": ({"trainable": "lora", "lora_rank": 4}, {}),
    "peft lora": ({"adapter": LoraConfig(r=4)}, {}),
    "random": ({"weights": "random", "trainable": 1}, {}),
    "random transformers": ({"weights": "random_transformers", "trainable": "last_layer"}, {}),
    "dropout": ({"dropout": 0.2, "trainable": "all"}, {}),
}


def classifier(gpt2_folder: Path, **arguments: Any) -> GPT2Classifier:
    return GPT2Classifier(
        size=None,
        base_model=str(gpt2_folder),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1),
        **arguments,
    )


def trainer(folder: Path, epochs: int = 1, **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=epochs,
        logger=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[RunRecorder(), L.pytorch.callbacks.ModelCheckpoint(folder / "checkpoints", filename="last")],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.fixture(scope="module")
def trained(gpt2_folder: Path, messages_file: Path, tmp_path_factory: pytest.TempPathFactory):
    """Trains a choice once: (model, run folder)."""
    done: dict[str, tuple[GPT2Classifier, Path]] = {}

    def train(choice: str) -> tuple[GPT2Classifier, Path]:
        if choice not in done:
            arguments, data = CHOICES[choice]
            folder = tmp_path_factory.mktemp("run")
            L.seed_everything(11)
            model = classifier(gpt2_folder, **arguments)
            fit = trainer(folder)
            datamodule = SpamDataModule(str(messages_file), split="balanced", **data)
            fit.fit(model, datamodule=datamodule)
            fit.test(model, datamodule=datamodule, verbose=False)
            L.seed_everything(99)  # nothing may depend on it any more
            done[choice] = model, folder
        return done[choice]

    return train


@pytest.fixture
def checkpoint(trained, tmp_path: Path) -> Path:
    """A copy of the checkpoint of `last`, with its checksum, to be spoilt."""
    source = trained("last")[1] / "checkpoints" / "last.ckpt"
    shutil.copy(f"{source}.sha256", tmp_path)
    return Path(shutil.copy(source, tmp_path))


@pytest.mark.parametrize("choice", ["last", "published lora", "random transformers"])
def test_it_holds_what_was_trained_and_no_frozen_weight(choice: str, trained) -> None:
    model, folder = trained(choice)
    path = folder / "checkpoints" / "last.ckpt"
    stored = torch.load(path, weights_only=True)
    own = trainable_parameters(model)
    assert list(stored["state_dict"]) == list(own)
    assert all(torch.equal(stored["state_dict"][name], own[name]) for name in own)
    bytes_of_state = 4 * sum(parameter.numel() for parameter in own.values())
    entries = 4 * len(own)  # zip headers and metadata are under 2 kB a tensor
    assert path.stat().st_size < 3 * bytes_of_state + 2000 * entries + 20_000  # AdamW keeps two numbers a parameter
    if choice == "random transformers":
        assert path.stat().st_size < sum(parameter.numel() for parameter in model.parameters())  # a quarter of them
    assert stored["base"] == model.base
    assert stored["encoding"] == asdict(model.encoding)


def test_it_is_named_with_its_checksum_and_leaves_nothing_else(trained) -> None:
    folder = trained("last")[1] / "checkpoints"
    assert sorted(file.name for file in folder.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    assert (folder / "last.ckpt.sha256").read_text() == f"{sha256_of(folder / 'last.ckpt')}  last.ckpt\n"


def predicted(folder: Path) -> dict[str, float]:
    """Probability of spam by id, as `test` wrote it."""
    rows = (folder / "predictions-test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {row.split("\t")[0]: float(row.split("\t")[3]) for row in rows}


def texts_by_id(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {f"r{number:05d}": line.split("\t")[1] for number, line in enumerate(lines, start=1)}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_loaded_classifier_repeats_the_test(choice: str, trained, messages_file: Path) -> None:
    model, folder = trained(choice)
    expected, texts = predicted(folder), texts_by_id(messages_file)
    loaded = GPT2Classifier.load(folder)
    assert not loaded.training
    answers = loaded.classify([texts[name] for name in expected], batch_size=3)
    for answer, probability in zip(answers, expected.values(), strict=True):
        got = answer["probability"] if answer["label"] == "spam" else 1 - answer["probability"]
        assert got == pytest.approx(probability, abs=1e-6)
        assert answer["label"] == ("spam" if probability > 0.5 else "ham")
    assert max(expected.values()) - min(expected.values()) > 1e-2  # they differ by more than the tolerance
    assert loaded.base == model.base


def test_load_takes_the_file_as_well_and_classify_takes_no_text(trained) -> None:
    _, folder = trained("last")
    loaded = GPT2Classifier.load(folder / "checkpoints" / "last.ckpt")
    assert loaded.classify([]) == []
    assert loaded.classify(["win"]) == GPT2Classifier.load(str(folder)).classify(["win"])


def test_classify_leaves_the_mode_as_it_was_and_needs_training(trained, gpt2_folder: Path) -> None:
    model, _ = trained("dropout")
    model.train()
    assert model.classify(["win", "ok"]) == model.classify(["win", "ok"])  # without dropout
    assert model.training
    with pytest.raises(InputError, match=r"how texts are encoded is unknown before training"):
        classifier(gpt2_folder).classify(["win"])


@pytest.mark.parametrize("choice", ["last", "peft lora", "random"])
def test_lightnings_own_loading_gives_equal_logits(choice: str, trained) -> None:
    model, folder = trained(choice)
    loaded = GPT2Classifier.load_from_checkpoint(folder / "checkpoints" / "last.ckpt", weights_only=True)
    loaded.configure_model()
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "length": torch.tensor([3])}
    with torch.no_grad():
        assert torch.equal(loaded.eval()(batch), model.eval()(batch))


def test_a_resumed_run_ends_where_an_unbroken_one_does(gpt2_folder: Path, messages_file: Path, tmp_path: Path) -> None:
    def run(name: str, epochs: int, ckpt_path: Path | None = None) -> GPT2Classifier:
        L.seed_everything(3)
        model = classifier(gpt2_folder, trainable="lora", lora_rank=2)
        data = SpamDataModule(str(messages_file), split="balanced")
        trainer(tmp_path / name, epochs).fit(model, datamodule=data, ckpt_path=ckpt_path)
        return model

    unbroken = trainable_parameters(run("unbroken", 2))
    first = trainable_parameters(run("resumed", 1))
    resumed = trainable_parameters(run("resumed", 2, tmp_path / "resumed" / "checkpoints" / "last.ckpt"))
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    assert not all(torch.equal(first[name], unbroken[name]) for name in unbroken)


def spoil(checkpoint: Path, how: str) -> None:
    data = checkpoint.read_bytes()
    middle = len(data) // 2
    spoilt = {
        "empty": b"",
        "half": data[:middle],
        "garbage": b"not a checkpoint at all",
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }
    checkpoint.write_bytes(spoilt[how])


@pytest.mark.parametrize(
    ("how", "checksum"),  # a flipped byte shows by the checksum alone
    [("empty", True), ("half", True), ("garbage", True), ("flipped", True), ("empty", False), ("half", False),
     ("garbage", False)],
)  # fmt: skip
def test_damage_is_refused_by_one_error_that_names_the_file(how: str, checksum: bool, checkpoint: Path) -> None:
    spoil(checkpoint, how)
    if not checksum:
        Path(f"{checkpoint}.sha256").unlink()
    with pytest.raises(InputError, match=str(checkpoint)):
        GPT2Classifier.load(checkpoint)
    with pytest.raises(InputError, match=str(checkpoint)):
        AtomicCheckpointIO().load_checkpoint(checkpoint)


def test_damage_points_at_an_intact_neighbour(checkpoint: Path) -> None:
    other = Path(shutil.copy(checkpoint, checkpoint.with_name("epoch=0.ckpt")))
    Path(f"{checkpoint}.sha256").unlink()
    spoil(checkpoint, "half")
    with pytest.raises(InputError, match=f"fix: try {other}"):
        read_checkpoint(checkpoint)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("weights_only", [None, False, True])
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_checkpoint_never_runs(kind: str, weights_only: bool | None, checkpoint: Path) -> None:
    canary = checkpoint.with_name("canary")
    content = torch.load(checkpoint, weights_only=True) | {"hook": Payload(canary)}
    if kind == "torch":
        torch.save(content, checkpoint)
    else:
        checkpoint.write_bytes(pickle.dumps(content))
    write_checksum(checkpoint)
    with pytest.raises(InputError, match="weights_only"):
        AtomicCheckpointIO().load_checkpoint(checkpoint, weights_only=weights_only)
    with pytest.raises(InputError, match=str(checkpoint)):
        GPT2Classifier.load(checkpoint)
    assert not canary.exists()


def rewrite(checkpoint: Path, **changes: Any) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(content.get(key), dict) else value
    torch.save(content, checkpoint)
    write_checksum(checkpoint)


@pytest.mark.parametrize("key", ["_instantiator", "_class_path"])
def test_hyperparameters_cannot_name_code_to_import(key: str, checkpoint: Path, monkeypatch) -> None:
    """`load` and `load_from_checkpoint` ignore them."""
    (checkpoint.parent / "canary_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(checkpoint.parent)
    rewrite(checkpoint, hyper_parameters={key: "canary_module.run"})
    assert GPT2Classifier.load(checkpoint).classify(["win"])
    assert GPT2Classifier.load_from_checkpoint(checkpoint).classify(["win"])


def test_a_checkpoint_without_a_state_is_refused(checkpoint: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, checkpoint)
    write_checksum(checkpoint)
    with pytest.raises(InputError, match="is not a Lightning checkpoint"):
        read_checkpoint(checkpoint)


def spoilt_states(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    weight = "net.head.weight"
    return {
        "1 missing: net.head.weight": {name: value for name, value in state.items() if name != weight},
        "1 unexpected: net.extra": state | {"net.extra": torch.zeros(1)},
        "1 of another shape: net.head.weight": state | {weight: torch.zeros(2, 64)},
    }


@pytest.mark.parametrize("complaint", list(spoilt_states({})))
def test_another_models_state_loads_in_no_part(complaint: str, trained, checkpoint: Path, messages_file: Path) -> None:
    model, folder = trained("last")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    wrong = {name: value + 1 for name, value in spoilt_states(state)[complaint].items()}
    content = torch.load(checkpoint, weights_only=True) | {"state_dict": wrong}
    torch.save(content, checkpoint)
    write_checksum(checkpoint)
    told = f"^{checkpoint}: the checkpoint does not fit the model: {complaint}"
    with pytest.raises(InputError, match=told):
        GPT2Classifier.load(checkpoint)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=told):
        trainer(folder.parent / "elsewhere").test(model, SpamDataModule(str(messages_file)), ckpt_path=str(checkpoint))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("field", "value"), [("source", "/another"), ("revision", "abc"), ("weights", "random"), ("size", "small")]
)
def test_another_base_is_refused(field: str, value: str, checkpoint: Path) -> None:
    rewrite(checkpoint, base={field: value})
    with pytest.raises(InputError, match=f"^{checkpoint}: base: the checkpoint was trained on another base"):
        GPT2Classifier.load(checkpoint)


def test_a_trainer_that_reads_checkpoints_its_own_way_names_the_file_too(
    trained, checkpoint: Path, messages_file: Path
) -> None:
    rewrite(checkpoint, base={"source": "/another"})
    plain = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(InputError, match=f"^{checkpoint}: base: the checkpoint was trained on another base"):
        plain.test(trained("last")[0], SpamDataModule(str(messages_file)), ckpt_path=str(checkpoint))


def test_another_seed_of_random_weights_is_another_base(gpt2_folder: Path) -> None:
    bases = [classifier(gpt2_folder, weights="random", seed=seed).base for seed in (1, 2)]
    assert bases[0] != bases[1]
    assert classifier(gpt2_folder, seed=1).base == classifier(gpt2_folder, seed=2).base


def test_a_shorter_training_in_the_same_folder_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name, steps, time in (("before", 20, 1000), ("after", 10, 2000)):
        torch.save({"global_step": steps}, folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (time, time))
    assert find_checkpoint(tmp_path).name == "after.ckpt"


def test_a_folder_means_last_or_else_its_newest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(InputError, match="no such checkpoint; fix: train first"):
        find_checkpoint(tmp_path / "nowhere")
    folder.mkdir()
    with pytest.raises(InputError, match=r"holds no checkpoints/\*.ckpt"):
        find_checkpoint(tmp_path)
    for age, name in enumerate(("b", "a", "last")):
        (folder / f"{name}.ckpt").touch()
        os.utime(folder / f"{name}.ckpt", (1000 - age, 1000 - age))
    assert find_checkpoint(tmp_path).name == "last.ckpt"
    (folder / "last.ckpt").unlink()
    assert find_checkpoint(tmp_path).name == "b.ckpt"


@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_a_failed_save_leaves_the_old_checkpoint(at: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in checkpoint.parent.iterdir()}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        target = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (Path, "replace")}[at]
        patch.setattr(*target, full)
        with pytest.raises(EnvironmentFault, match=f"{checkpoint}.*: the disk is full"):
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(9)}}, checkpoint)
    assert {file.name: file.read_bytes() for file in checkpoint.parent.iterdir()} == before
    assert read_checkpoint(checkpoint)["base"]


def test_a_removed_checkpoint_takes_its_checksum_along(checkpoint: Path) -> None:
    AtomicCheckpointIO().remove_checkpoint(checkpoint)
    assert list(checkpoint.parent.iterdir()) == []
