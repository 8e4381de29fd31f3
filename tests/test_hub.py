"""Errors of loading: whose fault it is, and the way out."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError
from transformers import GPT2Config, GPT2Model

from ftkit import hub
from ftkit.errors import ExitCode, InputError, UnavailableError
from ftkit.hub import load_pretrained


class Gated:
    """A class whose repository wants a licence to be accepted, as transformers reports it."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> None:
        try:
            raise GatedRepoError("403", response=MagicMock())
        except GatedRepoError as error:
            raise OSError(f"You are trying to access a gated repo.\n{name}") from error


def test_a_gated_model_names_its_licence_and_the_token() -> None:
    with pytest.raises(UnavailableError) as caught:
        load_pretrained(Gated, "meta/gated")
    assert "meta/gated is gated" in str(caught.value)
    assert "https://huggingface.co/meta/gated" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: True)


class Unknown:
    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> None:
        raise OSError(f"{name} is not a valid model identifier\nlong advice")


@pytest.mark.usefixtures("online")
def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(UnavailableError, match=r"^no/such cannot be loaded: .*; fix: check the name and the revision$"):
        load_pretrained(Unknown, "no/such")


def test_without_the_hub_the_cache_is_named_and_the_command() -> None:
    with pytest.raises(UnavailableError, match=f"no/such is not in the cache {HF_HUB_CACHE} .*`hf download no/such`"):
        load_pretrained(Unknown, "no/such")


@pytest.mark.parametrize("offline", [True, False])
def test_the_hub_is_not_asked_twice(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would try for minutes; offline nothing is asked at all."""
    asked = []

    def refuse(address: Any, timeout: float) -> None:
        asked.append(address)
        raise OSError("no route")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr("socket.create_connection", refuse)
    assert load_pretrained(Recorder, "some/model", revision="abc") == {"revision": "abc", "local_files_only": True}
    assert asked == ([] if offline else [("huggingface.co", 443)])


def test_a_mistake_of_ours_is_not_blamed_on_the_user() -> None:
    class Broken:
        @classmethod
        def from_pretrained(cls, name: str, **options: Any) -> None:
            raise ValueError("an argument of ours")

    with pytest.raises(ValueError, match="an argument of ours") as caught:
        load_pretrained(Broken, "some/model")
    assert not isinstance(caught.value, InputError)


def test_a_folder_is_loaded_in_float32_and_takes_no_revision(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "half"))
    GPT2Model.from_pretrained(gpt2_folder).half().save_pretrained(folder)
    model = load_pretrained(GPT2Model, str(folder), revision="no-such-revision")
    assert isinstance(model, GPT2Model)
    assert model.dtype == torch.float32
    assert load_pretrained(GPT2Config, str(folder)).n_layer == 3


class Recorder:
    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> dict[str, Any]:
        return options


@pytest.mark.usefixtures("online")
def test_the_revision_reaches_the_hub() -> None:
    assert load_pretrained(Recorder, "some/model", revision="abc") == {"revision": "abc", "local_files_only": False}
