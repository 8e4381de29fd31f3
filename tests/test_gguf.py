"""GGUF files as models, through the one loader that both wings use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaModel

from ftkit import CausalLMSFT, hub
from ftkit.commands.model import model_show
from ftkit.errors import ExitCode, InputError, UnavailableError
from ftkit.hub import commit_of, load_pretrained
from ftkit.models.base_model import load_base
from ftkit.models.facts import model_facts
from ftkit.serving.loading import load_generator


def test_a_language_model_from_a_file_is_that_of_the_folder(gguf_file: Path, llama_folder: Path) -> None:
    net, tokenizer = load_generator(str(gguf_file))
    body = LlamaModel.from_pretrained(llama_folder)
    ids = torch.tensor([tokenizer("win").input_ids])
    with torch.no_grad():
        wanted = body(ids).last_hidden_state @ body.embed_tokens.weight.T  # the file has no head: it is tied
        torch.testing.assert_close(net(ids).logits, wanted, atol=1e-5, rtol=0)
    assert isinstance(net, LlamaForCausalLM)
    assert not net.training


def test_what_was_loaded_can_be_saved(gguf_file: Path, tmp_path: Path) -> None:
    """transformers takes a GGUF's model for a quantized one, which it does not save."""
    net = load_base(AutoModelForCausalLM, str(gguf_file))
    net.save_pretrained(tmp_path)
    again = load_pretrained(AutoModelForCausalLM, str(tmp_path))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    assert not hasattr(again.config, "quantization_config")


@pytest.mark.parametrize("adapter", [LoraConfig(), None], ids=["lora", "all"])
@pytest.mark.parametrize("merge", [False, True])
def test_a_tuned_file_is_exported(gguf_file: Path, tmp_path: Path, adapter: Any, merge: bool) -> None:
    module = CausalLMSFT(base_model=str(gguf_file), adapter=adapter, seed=1)
    assert module.context_length == 64
    module.configure_model()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    module.export(tmp_path, merge=merge)
    alone = adapter is not None and not merge
    served, _ = load_generator(str(gguf_file), adapter=tmp_path) if alone else load_generator(str(tmp_path))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(served(ids).logits, module.eval().net(ids).logits, atol=1e-4, rtol=0)


def test_it_is_shown(gguf_file: Path) -> None:
    facts = model_facts(str(gguf_file))
    assert facts.architecture == ("LlamaForCausalLM", "llama")
    assert facts.total == sum(value.numel() for value in load_base(AutoModelForCausalLM, str(gguf_file)).parameters())
    assert facts.packed == {"F32": 38}
    assert facts.weight_files == {"tiny.gguf": gguf_file.stat().st_size}
    page = model_show(str(gguf_file))
    assert "float32 once unpacked; tensors in the file: 38 F32" in page
    assert "license: mit" in page
    assert "nf4" not in page


def test_it_is_not_quantized_again(gguf_file: Path) -> None:
    with pytest.raises(InputError, match=r"tiny\.gguf: quantization: a GGUF file is unpacked"):
        load_base(AutoModelForCausalLM, str(gguf_file), quantization="nf4")


def test_one_that_cannot_be_read_is_named(gguf_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/x\.gguf: no such GGUF file"):
        load_base(AutoModelForCausalLM, "/nowhere/x.gguf")
    whole = gguf_file.read_bytes()
    broken = tmp_path / "broken.gguf"
    for content in (b"", b"something else", *(whole[:end] for end in range(3, len(whole) - 8, len(whole) // 50))):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.gguf: cannot be loaded: .*complete GGUF file"):
            load_base(AutoModelForCausalLM, str(broken))


@pytest.mark.parametrize("damage", ["block_count", "embedding_length", "renamed"])
def test_a_header_that_describes_a_larger_model_is_refused_before_memory_is_taken(
    gguf_file: Path, tmp_path: Path, damage: str
) -> None:
    whole, damaged = gguf_file.read_bytes(), tmp_path / "damaged.gguf"
    if damage == "renamed":  # so that the width of Llama 7B is assumed
        damaged.write_bytes(whole.replace(b"llama.embedding_length", b"llama.embedding_lenght"))
    else:
        place = whole.index(f"llama.{damage}".encode()) + len(f"llama.{damage}") + 4  # behind the type of the value
        damaged.write_bytes(whole[: place + 2] + b"\1" + whole[place + 3 :])  # 65,536 more
    for kind in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises(InputError, match=r"damaged\.gguf: is damaged: .* does not fit into it \(got .*layers"):
            load_pretrained(kind, str(damaged))


def test_it_is_described_once_until_it_changes(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the vocabulary of a real one takes seconds."""
    read: list[str] = []
    load = hub._load
    monkeypatch.setattr(hub, "_load", lambda kind, *args: read.append(kind.__name__) or load(kind, *args))
    path = Path(shutil.copy(gguf_file, tmp_path / "changing.gguf"))
    load_pretrained(AutoConfig, str(path)).vocab_size = 5  # a copy of one's own
    assert load_pretrained(AutoConfig, str(path)).vocab_size == 258
    load_pretrained(LlamaModel, str(path))
    load_pretrained(AutoTokenizer, str(path))
    assert read == ["AutoConfig", "LlamaModel", "AutoTokenizer"]
    status, other = path.stat(), Path(shutil.copy(gguf_file, tmp_path / "other.gguf"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # another file of the same name, size and time
    load_pretrained(AutoConfig, str(path))
    assert len(read) == 4


def test_without_the_package_it_says_what_to_install(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"needs the package gguf .*pip install 'ftkit\[gguf\]'") as caught:
        load_base(AutoModelForCausalLM, str(gguf_file))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_it_has_no_commit(gguf_file: Path) -> None:
    assert commit_of(str(gguf_file)) is None


def test_reading_one_is_silent_once_libraries_are_quiet(gguf_file: Path) -> None:
    """In a process of its own: the switch is for good."""
    code = (
        "from ftkit.library_output import quiet_libraries; quiet_libraries()\n"
        "from ftkit.serving.loading import load_generator\n"
        f"load_generator({str(gguf_file)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
