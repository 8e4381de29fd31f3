"""A disk that is full, really: the old checkpoint survives, and the run goes on when there is room again."""

import json
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from ftkit import CausalLMSFT
from ftkit.cli import main
from ftkit.commands import exports, push
from ftkit.errors import EnvironmentFault
from ftkit.storage import sha256_of
from ftkit.training.checkpoint import read_checkpoint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fit(folder: Path, epochs: int, *more: str) -> int:
        options = ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", str(epochs), *more]
        return main(["fit", "--config", str(tiny_config), *options])

    run = small_disk / "run"
    assert fit(run, 1) == 0
    checkpoint, filler = run / "checkpoints" / "last.ckpt", small_disk / "filler"
    before = sha256_of(checkpoint)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 40 * 1024))  # room for curves, not for a checkpoint
    capsys.readouterr()
    assert fit(run, 3, "--resume", "true") == 3
    said = capsys.readouterr().err
    assert f"error: {checkpoint}: the disk is full: " in said
    assert "are free; fix: free some space" in said
    assert "Traceback" not in said
    assert sha256_of(checkpoint) == before
    read_checkpoint(checkpoint)
    assert not list(run.rglob("*.partial"))
    filler.unlink()
    assert fit(run, 3, "--resume", "true") == 0
    assert fit(tmp_path / "whole", 3) == 0
    weights, whole = (read_checkpoint(folder)["state_dict"] for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    assert json.loads((run / "result.json").read_text())["steps"] == 12


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to write more bytes into a file than this, whichever library does it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def spam(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "spam"
    options = ["--model.pooling", "last_real", "--trainer.default_root_dir", str(folder)]
    assert main(["fit", "--config", str(tiny_config), *options]) == 0
    return folder


@pytest.mark.parametrize("form", ["ftkit", "transformers", "peft"])
@pytest.mark.parametrize("there", [False, True])  # an empty folder, or none
def test_a_push(
    form: Any, there: bool, spam: Path, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python, safetensors and tokenizers write the files of a repository: all are there, or none."""
    if form == "peft":
        module = CausalLMSFT(str(gpt2_folder), adapter=LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
        module.configure_model()
        prepared = exports.export_of(spam, module, "me/it", form, None)
        monkeypatch.setattr(exports, "export_of", lambda *_: prepared)
    whole = tmp_path / "whole"
    push.write_repository(spam, "me/it", whole, form)
    sizes = {file.name: file.stat().st_size for file in whole.iterdir()}
    assert {Path(name).suffix for name in sizes} == {".json", ".md", ".safetensors", ".yaml"}
    out = tmp_path / "out"
    for name, size in sizes.items():
        if size < 2000:  # or pytest could not write its own
            continue
        if there:
            out.mkdir(exist_ok=True)
        with no_file_above(size - 1), pytest.raises(EnvironmentFault, match=f"^{out}.*: cannot be written: File too"):
            push.write_repository(spam, "me/it", out, form)
        left = [file for file in tmp_path.rglob("*") if whole not in (file, *file.parents)]
        assert left == [out] * there, name
    push.write_repository(spam, "me/it", out, form)
    assert {file.name: file.stat().st_size for file in out.iterdir()} == sizes


def test_a_push_onto_a_full_disk(small_disk: Path, spam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 20 * 1024))
    out = small_disk / "out"
    assert main(["push", str(spam), "me/it", "--dry_run", str(out)]) == 3
    said = capsys.readouterr().err
    assert f"error: {out}" in said
    assert "the disk is full: " in said
    assert "Traceback" not in said
    assert [file.name for file in small_disk.iterdir()] == ["filler"]
