"""A fingerprint tells one base model from another by what its files hold, and not by their names or times."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftkit.errors import InputError, UnavailableError
from ftkit.models import base_files
from ftkit.models.base_files import BaseFiles, Location, differing_files
from ftkit.storage import sha256_of

COMMITS = ("0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef")


def fingerprint(folder: Path, **options: bool) -> dict[str, str]:
    place = Location(str(folder))
    return BaseFiles(place, place, **options).fingerprint()


@pytest.fixture
def model(gpt2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gpt2_folder, tmp_path / "model"))


def save_with_another_tensor(folder: Path, name: str) -> None:
    """Write the weights again, of the same size and time, one element of one tensor changed in its last bit."""
    file = folder / "model.safetensors"
    status, tensors = file.stat(), load_file(file)
    flat = tensors[name].view(-1).view(torch.int32)
    flat[-1] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size


def test_every_tensor_counts(model: Path) -> None:
    seen = [fingerprint(model)]
    for name in sorted(load_file(model / "model.safetensors")):
        save_with_another_tensor(model, name)
        seen.append(fingerprint(model))
    assert len({found["model.safetensors"] for found in seen}) == len(seen)
    assert len({json.dumps({**found, "model.safetensors": ""}) for found in seen}) == 1


def test_configuration_and_tokenizer_count_and_a_readme_does_not(model: Path) -> None:
    before = fingerprint(model)
    assert before == {name: sha256_of(model / name) for name in before}
    assert before.keys() == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    (model / "README.md").write_text("about it")
    (model / "checkpoint-5").mkdir()
    assert fingerprint(model) == before
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_text((model / name).read_text() + " ")
        after = fingerprint(model)
        assert {key for key in before if before[key] != after[key]} == {name}
        before = after
    for name in ("generation_config.json", "chat_template.jinja", "added_tokens.json", "tokenizer.model", "merges.txt"):
        (model / name).write_text("{}")
        assert fingerprint(model).keys() - before.keys() == {name}
        (model / name).unlink()


def test_of_random_weights_the_files_of_weights_do_not_count(model: Path) -> None:
    before = fingerprint(model, weights=False)
    save_with_another_tensor(model, "wte.weight")
    assert fingerprint(model, weights=False) == before
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert fingerprint(model, weights=False) != before


def test_a_link_is_what_it_points_to(model: Path, gguf_file: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other"))
    save_with_another_tensor(other, "wte.weight")
    link = tmp_path / "link"
    link.symlink_to(model)
    before = fingerprint(link)
    assert before == fingerprint(model)
    link.unlink()
    link.symlink_to(other)
    assert fingerprint(link) == fingerprint(other) != before
    file, link = Path(shutil.copy(gguf_file, tmp_path / "other.gguf")), tmp_path / "link.gguf"
    file.write_bytes(gguf_file.read_bytes()[:-1] + b"\1")
    link.symlink_to(gguf_file)
    assert fingerprint(link) == {"model.gguf": sha256_of(gguf_file)}
    link.unlink()
    link.symlink_to(file)
    assert fingerprint(link) == {"model.gguf": sha256_of(file)} != {"model.gguf": sha256_of(gguf_file)}


def test_a_tokenizer_of_its_own_counts_by_its_own_files(model: Path, llama_folder: Path, tmp_path: Path) -> None:
    tokenizer = Path(shutil.copytree(llama_folder, tmp_path / "tokenizer"))
    files = BaseFiles(Location(str(model)), Location(str(tokenizer)))
    before = files.fingerprint()
    extra = {name for name in before if name.startswith("tokenizer/")}
    assert extra == {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    (tokenizer / "config.json").write_text("{}")
    assert files.fingerprint() == before
    (tokenizer / "tokenizer.json").write_text("{}")
    assert files.fingerprint() != before


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.gguf: cannot be read: No such file or directory"):
        fingerprint(tmp_path / "no.gguf")
    with pytest.raises(UnavailableError, match="no/such is not in the cache"):
        BaseFiles(Location("no/such"), Location("no/such")).fingerprint()


@pytest.fixture
def hub(gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two commits of org/tiny, of which main is the first."""
    repository = tmp_path / "hub" / "models--org--tiny"
    for commit in COMMITS:
        shutil.copytree(gpt2_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[0])
    for name in ("commit_of", "repository_cache"):
        monkeypatch.setattr(base_files, name, partial(getattr(base_files, name), cache=tmp_path / "hub"))
    return repository


def test_of_the_hub_the_commit_counts(hub: Path) -> None:
    for revision, commit in ((None, COMMITS[0]), ("main", COMMITS[0]), (COMMITS[1], COMMITS[1])):
        place = Location("org/tiny", revision)
        assert BaseFiles(place, place).fingerprint() == {"commit": commit}
    (hub / "refs" / "main").write_text(COMMITS[1])
    assert BaseFiles(Location("org/tiny"), Location("org/tiny")).fingerprint() == {"commit": COMMITS[1]}


def test_a_tokenizer_on_the_hub_counts_by_its_files(hub: Path) -> None:
    files = BaseFiles(None, Location("org/tiny"))
    before = files.fingerprint()
    assert before.keys() == {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    (hub / "refs" / "main").write_text(COMMITS[1])  # a commit that left it as it was
    assert files.fingerprint() == before
    (hub / "snapshots" / COMMITS[1] / "tokenizer.json").write_text("{}")
    assert files.fingerprint() != before


def test_the_first_few_differing_files_are_named() -> None:
    before, now = ({f"{n}.safetensors": digit * 64 for n in range(7)} for digit in "ab")
    said = differing_files(before, now)
    assert said.startswith("0.safetensors was aaaaaaaaaaaa, is bbbbbbbbbbbb; 1.")
    assert said.count("safetensors") == 5
    assert said.endswith("; …")
