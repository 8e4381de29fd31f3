"""A checkpoint goes onto the base model that it was trained on, in every task, and onto no other under its name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from ftkit import VLMDPO, VLMSFT, CausalLMSFT, GPT2Classifier, TextClassifier, VLMYesNo
from ftkit.errors import InputError
from ftkit.models.base_model import locate
from ftkit.serving.loading import load_generator
from ftkit.training.trained_state import TrainedStateModule

LORA = LoraConfig()
Make = Callable[[Path], TrainedStateModule]
# By name: the fixture of the base model, and what makes a module of it.
TASKS: dict[str, tuple[str, Make]] = {
    "GPT-2 classifier": ("gpt2_folder", lambda base: GPT2Classifier(None, str(base), seed=1)),
    "Llama classifier": ("llama_folder", lambda base: TextClassifier(str(base), seed=1)),
    "Llama classifier, GGUF": ("gguf_file", lambda base: TextClassifier(str(base), seed=1)),
    "language": ("demo", lambda base: CausalLMSFT(base_model=str(base), adapter=LORA, seed=1)),
    "language, all weights": ("demo", lambda base: CausalLMSFT(base_model=str(base), seed=1)),
    "language, GGUF": ("gguf_file", lambda base: CausalLMSFT(base_model=str(base), adapter=LORA, seed=1)),
    "VLM": ("idefics3_folder", lambda base: VLMSFT(base_model=str(base), adapter=LORA, seed=1)),
    "VLM, preferences": ("idefics3_folder", lambda base: VLMDPO(base_model=str(base), adapter=LORA, seed=1)),
    "VLM, yes or no": ("idefics3_folder", lambda base: VLMYesNo(base_model=str(base), adapter=LORA, seed=1)),
}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The small model that ftkit carries, and its tokenizer beside it."""
    carried = Path(locate("demo"))
    shutil.copytree(carried.parent / "tokenizer", tmp_path / "demo" / "tokenizer")
    return Path(shutil.copytree(carried, tmp_path / "demo" / "small"))


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Make]:
    """A base model behind a link, and what makes a module of it."""
    name, make = TASKS[request.param]
    original: Path = request.getfixturevalue(name)
    (folder := tmp_path / "base").mkdir()
    for place in {original, *original.parent.glob("tokenizer")}:
        (folder / place.name).symlink_to(place)
    return folder / original.name, make


def checkpoint_of(module: TrainedStateModule) -> dict[str, Any]:
    """A checkpoint, as a trainer saves it."""
    module.configure_model()
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "file": "last.ckpt"}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def change_weights(link: Path, into: Path) -> str:
    """Let the link point to a copy with one changed tensor; returns the file's name."""
    copied = shutil.copytree(link, into) if link.is_dir() else shutil.copy(link, into)
    link.unlink()
    link.symlink_to(copied)
    if not link.is_dir():
        link.write_bytes(link.read_bytes()[:-4] + bytes(4))
        return "model.gguf"
    file = link / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    return file.name


def test_other_weights_under_the_same_name_are_refused(task: tuple[Path, Make], tmp_path: Path) -> None:
    link, make = task
    module = make(link)
    checkpoint = checkpoint_of(module)
    loaded = type(module).restored(checkpoint)
    assert loaded.base == module.base == checkpoint["base"]
    before = checkpoint["base"]["fingerprint"]
    changed = change_weights(link, tmp_path / f"other{link.suffix}")
    now = make(link).base["fingerprint"]
    wanted = (
        r"^last\.ckpt: base: the base model is not the one that the checkpoint was trained on: "
        rf"{changed} was {before[changed][:12]}, is {now[changed][:12]}; fix: put the former one back .* train again$"
    )
    with pytest.raises(InputError, match=wanted):
        type(module).restored(checkpoint)


def test_a_checkpoint_tells_what_was_loaded_whatever_lies_there_now(demo: Path) -> None:
    (link := demo.parent / "base").symlink_to(demo)
    before, asked_before = (CausalLMSFT(base_model=str(link), seed=1) for _ in range(2))
    was = asked_before.fingerprint
    before.configure_model()
    change_weights(link, demo.parent / "other")
    assert checkpoint_of(before)["base"]["fingerprint"] == was
    assert checkpoint_of(asked_before)["base"]["fingerprint"] != was


def test_another_tokenizer_beside_the_weights_is_refused(task: tuple[Path, Make], tmp_path: Path) -> None:
    link, make = task
    if not link.is_dir():
        pytest.skip("a GGUF file has its tokenizer in itself")
    checkpoint = checkpoint_of(make(link))
    home = link if (link / "tokenizer.json").is_file() else link.parent / "tokenizer"
    copied = shutil.copytree(home, tmp_path / "other")
    home.unlink()
    home.symlink_to(copied)
    file = home / "tokenizer_config.json"
    file.write_text(file.read_text().replace("}", ' , "added": 1}', 1))
    with pytest.raises(InputError, match=r"tokenizer_config\.json was [0-9a-f]{12}, is [0-9a-f]{12}; fix"):
        type(make(link)).restored(checkpoint)


def test_random_weights_are_their_seed_and_configuration(gpt2_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(gpt2_folder, tmp_path / "base"))
    checkpoint = checkpoint_of(GPT2Classifier(None, str(base), weights="random", seed=1))
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, base / "model.safetensors")
    GPT2Classifier.restored(checkpoint)  # they were not read
    with pytest.raises(InputError, match="trained on another base"):
        GPT2Classifier.restored({**checkpoint, "base": {**checkpoint["base"], "seed": 2}})
    config = (base / "config.json").read_text()
    assert "1e-05" in config
    (base / "config.json").write_text(config.replace("1e-05", "1e-02"))
    with pytest.raises(InputError, match=r"config\.json was"):
        GPT2Classifier.restored(checkpoint)


def test_random_weights_of_a_hub_size_need_no_hub_for_their_configuration(gpt2_folder: Path) -> None:
    module = GPT2Classifier("small", weights="random", tokenizer=str(gpt2_folder), seed=1)
    assert module.fingerprint.keys() == {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}


def test_an_exported_adapter_is_served_on_its_own_base_alone(demo: Path, tmp_path: Path) -> None:
    (link := demo.parent / "base").symlink_to(demo)
    module = CausalLMSFT(base_model=str(link), adapter=LORA, seed=1)
    module.export(tmp_path / "adapter")
    load_generator(str(link), adapter=tmp_path / "adapter")
    load_generator(str(demo), adapter=tmp_path / "adapter")  # the same files under another name
    change_weights(link, demo.parent / "other")
    wanted = (
        r"base_fingerprint\.json: the base model is not the one that the adapter was trained on: model\.safetensors"
    )
    with pytest.raises(InputError, match=wanted):
        load_generator(str(link), adapter=tmp_path / "adapter")
    for damaged in ("", "[1]", "5", "\xff", "[" * 100_000):
        (tmp_path / "adapter" / "base_fingerprint.json").write_bytes(damaged.encode("latin-1"))
        with pytest.raises(InputError, match=r"base_fingerprint\.json: "):
            load_generator(str(demo), adapter=tmp_path / "adapter")
    (tmp_path / "adapter" / "base_fingerprint.json").unlink()
    load_generator(str(demo), adapter=tmp_path / "adapter")
