"""Errors of loading: whose fault it is, and the way out."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2Model

from ftkit import hub
from ftkit.cli import main
from ftkit.errors import ExitCode, InputError, UnavailableError
from ftkit.hub import commit_of, load_pretrained, repository_cache


class Gated:
    """A class whose repository wants a license to be accepted, as transformers reports it."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> None:
        try:
            raise GatedRepoError("403", response=MagicMock())
        except GatedRepoError as error:
            raise OSError(f"You are trying to access a gated repo.\n{name}") from error


def test_a_gated_model_names_its_license_and_the_token() -> None:
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
    with pytest.raises(
        UnavailableError, match=r"^no/such cannot be loaded: .*; fix: check the name and the revision;.*"
    ):
        load_pretrained(Unknown, "no/such")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder as peft leaves it, with a tokenizer."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    (tmp_path / "adapter" / "tokenizer_config.json").write_text("{}")
    return tmp_path / "adapter"


WHAT_TO_DO = "is an adapter of some/base, not a model; fix: start from some/base; or merge the two (peft: "


@pytest.mark.parametrize("kind", [AutoConfig, AutoModelForCausalLM, GPT2Model])
def test_an_adapter_is_not_taken_for_a_model(kind: Any, adapter: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_pretrained(kind, str(adapter))
    assert str(caught.value).startswith(f"{adapter}: {WHAT_TO_DO}")


def test_a_model_beside_an_adapter_is_loaded(adapter: Path) -> None:
    GPT2Config(n_layer=1).save_pretrained(adapter)
    assert load_pretrained(AutoConfig, str(adapter)).n_layer == 1


def test_so_it_is_with_one_in_the_cache(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cached(name: str, file: str, **options: Any) -> str:
        assert options["local_files_only"]
        return str(adapter / file)

    monkeypatch.setattr(hub.file_download, "hf_hub_download", cached)
    with pytest.raises(InputError) as caught:
        load_pretrained(AutoConfig, "some/adapter")
    assert str(caught.value).startswith(f"some/adapter: {WHAT_TO_DO}")


@pytest.mark.parametrize("command", ["classifier", "language", "show"])
def test_commands_say_so(command: str, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(adapter / "run")]
    arguments = {
        "classifier": [*fit, "--model", "GPT2Classifier", "--model.base_model", str(adapter),
                       "--data", "SpamDataModule", "--data.source", "demo"],
        "language": [*fit, "--model", "CausalLMSFT", "--model.base_model", str(adapter),
                     "--data", "ArithmeticDataModule"],
        "show": ["model", "show", str(adapter)],
    }  # fmt: skip
    assert main(arguments[command]) == ExitCode.INPUT
    assert WHAT_TO_DO in capsys.readouterr().err


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


def raising(error: Exception) -> Any:
    """A class that cannot be loaded."""

    class Broken:
        @classmethod
        def from_pretrained(cls, name: str, **options: Any) -> None:
            raise error

    return Broken


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Error(s) in loading state_dict\nsize mismatch"), r"Error\(s\) in loading state_dict; fix"),
        (KeyError("decoder"), "'decoder'; fix: name a model of another kind; or, .*`hf cache rm model/org/x`"),
        (ValueError("Unrecognized configuration class"), "Unrecognized configuration class"),
        (ValueError("Transformers does not recognize this architecture"), "Transformers does not recognize this"),
    ],
)
def test_a_model_of_the_hub_that_does_not_load_is_named(error: Exception, message: str) -> None:
    with pytest.raises(InputError, match=f"^org/x: cannot be loaded: {message}"):
        load_pretrained(raising(error), "org/x")


@pytest.mark.parametrize("local", [True, False])
def test_memory_that_runs_out_is_not_the_models_fault(local: bool, tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        load_pretrained(raising(torch.OutOfMemoryError("CUDA out of memory")), str(tmp_path) if local else "org/x")


def test_a_mistake_of_ours_is_not_blamed_on_the_user() -> None:
    with pytest.raises(ValueError, match="an argument of ours") as caught:
        load_pretrained(raising(ValueError("an argument of ours")), "some/model")
    assert not isinstance(caught.value, InputError)


def test_a_proxy_is_a_way_out_and_a_list_of_hosts_without_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: Any, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", refuse)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert not hub.hub_is_reachable()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert hub.hub_is_reachable()


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


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(gpt2_folder: Path, tmp_path: Path) -> Path:
    """A hub cache that holds the tiny model as org/tiny, as a download leaves it."""
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(gpt2_folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def test_the_commit_of_a_cached_model_is_known(cache: Path, gpt2_folder: Path) -> None:
    assert load_pretrained(GPT2Model, "org/tiny", cache_dir=cache).config.n_layer == 3
    assert commit_of("org/tiny", cache=cache) == COMMIT
    assert commit_of("org/tiny", "v2", cache) is None
    assert commit_of("org/other", cache=cache) is None
    assert commit_of("org/other", COMMIT, cache) == COMMIT
    assert commit_of(str(gpt2_folder)) is None
    assert repository_cache("org/tiny", cache).is_dir()


def test_a_damaged_download_and_a_model_of_another_kind_are_named(cache: Path) -> None:
    (file,) = cache.rglob("model.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"org/tiny: cannot be loaded: .*`hf cache rm model/org/tiny`"):
        load_pretrained(GPT2Model, "org/tiny", cache_dir=cache)
    (file.parent / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InputError, match=r"org/tiny: cannot be loaded: Unrecognized configuration class .*ViTConfig"):
        load_pretrained(AutoModelForCausalLM, "org/tiny", cache_dir=cache)
    (file.parent / "config.json").write_text(json.dumps({"model_type": "of-tomorrow"}))
    with pytest.raises(InputError, match=r"org/tiny: cannot be loaded: .*does not recognize this architecture"):
        load_pretrained(AutoConfig, "org/tiny", cache_dir=cache)


def test_sizes_that_do_not_go_together_are_told_with_the_folder(llama_folder: Path, tmp_path: Path) -> None:
    config = json.loads((llama_folder / "config.json").read_text()) | {"num_attention_heads": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"^{tmp_path}: cannot be loaded: The hidden size .* is not a multiple of"):
        load_pretrained(AutoConfig, str(tmp_path))


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "weird", "auto_map": auto_map}))
    (tmp_path / "code.py").write_text(f"open({str(canary)!r}, 'w')")
    for kind in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises(InputError, match="needs code that its repository brings along, which ftkit never runs"):
            load_pretrained(kind, str(tmp_path))
    assert not canary.exists()


def test_a_file_that_is_no_gguf_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    (file := tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"config.yaml: neither a folder nor a GGUF file; fix: name a folder, FILE"):
        load_pretrained(AutoConfig, str(file))


def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(InputError, match="neither a folder nor the name of a model on the hub"):
        load_pretrained(AutoConfig, "/no/such/folder")
