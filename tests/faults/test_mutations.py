"""Damaged files: read, or refused with exit code 2 or 3 and the file's name. Never a traceback, never a hang."""

import hashlib
import io
import json
import random
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Model

from checksum_file import write_checksum
from ftkit.classifier import download
from ftkit.classifier.labels import codes_of
from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import messages_of
from ftkit.errors import EnvironmentFault, InputError
from ftkit.examples.reader import read_examples
from ftkit.hub import load_pretrained
from ftkit.models.base_model import load_base
from ftkit.models.facts import model_facts
from ftkit.results.predictions import read_predictions
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.export import export_trained, read_export
from mutations import mutations

# How many of each kind are read in the fast run; a slow run reads ten times as many, damaged otherwise.
COUNTS = {
    "TSV": 60, "predictions": 60, "JSONL": 60, "JPEG": 60, "PNG": 60, "GIF": 60, "ckpt": 60, "ckpt, checksum": 60,
    "safetensors": 60, "base safetensors": 12, "zip": 60, "GGUF": 20, "GGUF, header": 40,
}  # fmt: skip
LIMIT = 10.0  # seconds for one file
Read = Callable[[Path], object]


@pytest.fixture(params=[0, pytest.param(1, marks=pytest.mark.slow)], ids=["fast", "many"])
def seed(request: pytest.FixtureRequest) -> int:
    """Of the damage."""
    return request.param


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory, home and the temporary folder are empty, and must stay so."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("FTKIT_CACHE", str(folder / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.rglob("*")) == []


def survives(path: Path, read: Read, good: bytes, kind: str, seed: int, named: str = "") -> float:
    """Read damaged copies; which part of them was refused."""
    count = COUNTS[kind] * (10 if seed else 1)
    refused = []
    before = set(path.parent.rglob("*")) | {path}
    harmed = ((name, damaged) for name, damaged in mutations(good, 2 * count, seed) if damaged != good)
    for name, damaged in islice(harmed, count):
        path.write_bytes(damaged)
        began = time.monotonic()
        try:
            read(path)
        except (InputError, EnvironmentFault) as error:
            refused.append(name)
            if error.exit_code not in (2, 3) or (named or path.name) not in str(error):
                raise AssertionError(f"{name}: code {error.exit_code}, or does not name the file: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - began < LIMIT, name
    assert set(path.parent.rglob("*")) <= before
    return len(refused) / count


def test_they_are_500() -> None:
    assert sum(COUNTS.values()) >= 500
    assert COUNTS.keys() >= {"TSV", "JSONL", "JPEG", "PNG", "GIF", "ckpt", "safetensors", "zip"}


def messages(path: Path) -> object:
    return codes_of(messages_of(read_messages(path)), ("ham", "spam"), normalize_labels=False, training=True)


def test_labelled_messages(seed: int, messages_file: Path, tmp_path: Path) -> None:
    assert survives(tmp_path / "messages.tsv", messages, messages_file.read_bytes(), "TSV", seed) > 1 / 4


def test_predictions(seed: int, tmp_path: Path) -> None:
    rows = "".join(f"r{number}\tspam\tham\t0.{number:02}\n" for number in range(40))
    good = f"id\tlabel\tprediction\tprobability:spam\n{rows}".encode()
    assert survives(tmp_path / "predictions.tsv", read_predictions, good, "predictions", seed) > 1 / 4


def test_rows_of_json(seed: int, tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "prompt": "1 + 1 =", "completion": f" {number}"} for number in range(20)]
    good = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert survives(tmp_path / "rows.jsonl", lambda path: list(read_examples(path)), good, "JSONL", seed) > 1 / 4


@pytest.mark.parametrize("checksum", [True, False])
def test_checkpoints(checksum: bool, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(50.0)}, "epoch": 1}, path)
    good = path.read_bytes()
    if checksum:
        write_checksum(path)
    refused = survives(path, read_checkpoint, good, "ckpt, checksum" if checksum else "ckpt", seed)
    assert refused == 1 if checksum else refused > 1 / 4


def exported(folder: Path) -> bytes:
    """A small export of a run; the bytes of its weights."""
    (folder / "run" / "checkpoints").mkdir(parents=True)
    content = {"state_dict": {"weight": torch.arange(50.0)}, "hyper_parameters": {}, "base": {}, "format": 2}
    torch.save(content, folder / "run" / "checkpoints" / "last.ckpt")
    export_trained(folder / "run", folder, "ftkit.GPT2Classifier")
    return (folder / "trained.safetensors").read_bytes()


def test_exported_weights(seed: int, tmp_path: Path) -> None:
    good = exported(tmp_path)
    path = tmp_path / "trained.safetensors"
    assert survives(path, lambda path: read_export(path.parent), good, "safetensors", seed) == 1


def test_base_weights(seed: int, gpt2_folder: Path, tmp_path: Path) -> None:
    """A hub file has no checksum here: a header that lies is refused, a flipped weight is not seen."""
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "base"))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:4000])  # damage the header more often than the numbers
    good = path.read_bytes()
    load = lambda path: load_pretrained(GPT2Model, str(path.parent))  # noqa: E731
    assert survives(path, load, good, "base safetensors", seed, named=folder.name) == 1


def test_gguf(seed: int, gguf_file: Path, tmp_path: Path) -> None:
    """It has no checksum: what its header says is checked against its length, a flipped weight is not seen."""

    def read(path: Path) -> None:
        load_base(AutoModelForCausalLM, str(path))
        load_pretrained(AutoTokenizer, str(path))

    whole = gguf_file.read_bytes()
    assert survives(tmp_path / "tiny.gguf", read, whole, "GGUF", seed) > 1 / 4
    header = pytest.importorskip("gguf").GGUFReader(gguf_file).data_offset

    def read_behind(path: Path) -> None:
        path.write_bytes(path.read_bytes() + whole[header:])
        model_facts(str(path))
        load_pretrained(AutoTokenizer, str(path))

    assert survives(tmp_path / "tiny.gguf", read_behind, whole[:header], "GGUF, header", seed) > 3 / 4


def pictures() -> dict[str, bytes]:
    """Good files: a JPEG that is turned, a PNG with transparency, a GIF of three frames."""
    image = pytest.importorskip("PIL.Image")
    noise = [random.Random(number).randbytes(24 * 32 * 4) for number in range(3)]
    frames = [image.frombytes("RGBA", (32, 24), data) for data in noise]
    exif = image.Exif()
    exif[0x0112] = 6
    options = {"JPEG": {"exif": exif}, "PNG": {}, "GIF": {"save_all": True, "append_images": frames[1:]}}
    files = {form: io.BytesIO() for form in options}
    for form, file in files.items():
        (frames[0] if form == "PNG" else frames[0].convert("RGB")).save(file, form, **options[form])
    return {form: file.getvalue() for form, file in files.items()}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_pictures(form: str, seed: int, tmp_path: Path) -> None:
    good = pictures()[form]
    from opened_image import open_image

    assert survives(tmp_path / f"picture.{form.lower()}", open_image, good, form, seed) > 1 / 4


def test_a_downloaded_archive(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the very messages, or nothing at all."""
    chance = random.Random(0)
    content = "".join(f"ham\t{chance.getrandbits(256):x}\n" for _ in range(40)).encode()
    monkeypatch.setattr(download, "HTTPDownloader", lambda **_: lambda url, file, _: file.write(Path(url).read_bytes()))
    monkeypatch.setattr(download, "MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("readme", b"about" * 20)
        opened.writestr(download.MEMBER, content)

    def fetch(path: Path) -> None:
        with tempfile.TemporaryDirectory() as cache:
            try:
                assert download.fetch_sms_spam(cache, (str(path),)).read_bytes() == content
            except EnvironmentFault:
                assert not [file for file in Path(cache).rglob("*") if file.is_file()]
                raise

    assert survives(tmp_path / "messages.zip", fetch, archive.getvalue(), "zip", seed) > 1 / 4
