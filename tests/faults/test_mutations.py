"""Damaged files: read, or refused with exit code 2 or 3 and the file's name. Never a traceback, never a hang."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPT2Model

from ftkit.classifier.messages import read_messages
from ftkit.errors import EnvironmentFault, InputError
from ftkit.evaluation.predictions import read_predictions
from ftkit.hub import load_pretrained
from ftkit.storage import write_checksum
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.export import export_trained, read_export
from ftkit.training.rows import read_rows
from mutations import mutations

COUNT = 60  # of each kind
Read = Callable[[Path], object]


def survives(path: Path, read: Read, good: bytes, count: int, named: str = "") -> int:
    """Read damaged copies; how many were refused."""
    refused = 0
    before = set(path.parent.rglob("*")) | {path}
    for name, damaged in mutations(good, count):
        path.write_bytes(damaged)
        began = time.monotonic()
        try:
            read(path)
        except (InputError, EnvironmentFault) as error:
            refused += 1
            if (named or path.name) not in str(error):
                raise AssertionError(f"{name}: does not name the file: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - began < 10, name
    assert set(path.parent.rglob("*")) <= before
    return refused


def messages(path: Path) -> object:
    return read_messages(path, "literal", ("ham", "spam"), False)


def test_labelled_messages(messages_file: Path, tmp_path: Path) -> None:
    assert survives(tmp_path / "messages.tsv", messages, messages_file.read_bytes(), COUNT) > COUNT / 4


def test_predictions(tmp_path: Path) -> None:
    rows = "".join(f"r{number}\tspam\tham\t0.{number:02}\n" for number in range(40))
    good = f"id\tlabel\tprediction\tprobability:spam\n{rows}".encode()
    assert survives(tmp_path / "predictions.tsv", read_predictions, good, COUNT) > COUNT / 4


def test_rows_of_json(tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "prompt": "1 + 1 =", "completion": f" {number}"} for number in range(20)]
    good = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert survives(tmp_path / "rows.jsonl", lambda path: list(read_rows(path)), good, COUNT) > COUNT / 4


@pytest.mark.parametrize("checksum", [True, False])
def test_checkpoints(checksum: bool, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(50.0)}, "epoch": 1}, path)
    good = path.read_bytes()
    if checksum:
        write_checksum(path)
    refused = survives(path, read_checkpoint, good, COUNT)
    assert refused == COUNT if checksum else refused > COUNT / 4


def exported(folder: Path) -> bytes:
    """A small export of a run; the bytes of its weights."""
    (folder / "run" / "checkpoints").mkdir(parents=True)
    content = {"state_dict": {"weight": torch.arange(50.0)}, "hyper_parameters": {}, "base": {}}
    torch.save(content, folder / "run" / "checkpoints" / "last.ckpt")
    export_trained(folder / "run", folder, "ftkit.GPT2Classifier")
    return (folder / "trained.safetensors").read_bytes()


def test_exported_weights(tmp_path: Path) -> None:
    good = exported(tmp_path)
    path = tmp_path / "trained.safetensors"
    assert survives(path, lambda path: read_export(path.parent), good, COUNT) == COUNT


def test_base_weights(gpt2_folder: Path, tmp_path: Path) -> None:
    """A hub file has no checksum here: a header that lies is refused, a flipped weight is not seen."""
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "base"))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:4000])  # damage the header more often than the numbers
    good = path.read_bytes()
    assert survives(path, lambda path: load_pretrained(GPT2Model, str(path.parent)), good, 12, named=folder.name) == 12
