"""Damaged and hostile files of ftkit's own formats: read, or refused with exit code 2 or 3 and the file's name."""

import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from transformers import AutoConfig, AutoTokenizer

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.convergence import read_curves
from ftkit.ablation.description import write_description
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.planned import write_plan
from ftkit.ablation.published import read_published
from ftkit.ablation.result import Result
from ftkit.ablation.runner import run
from ftkit.ablation.sweep import read_sweep
from ftkit.commands.runs import load_run
from ftkit.config_files import read_config
from ftkit.errors import EnvironmentFault, InputError
from ftkit.hub import base_of_adapter, load_pretrained
from ftkit.lock import exclusive
from ftkit.results.predictions import write_predictions
from ftkit.results.threshold import Threshold
from ftkit.run_folder import FORMAT, read_result
from ftkit.storage import key_of
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.export import export_trained, read_export
from ftkit.training.feature_store import FeatureStore
from mutations import mutations

COUNT = 40  # damaged copies of each kind; the slow run reads ten times as many, damaged otherwise
# What no chance damage makes, in files that should hold something else.
HOSTILE = {
    "deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "deep list": b"[" * 100_000,
    "long number": b'{"format": 2, "epoch": ' + b"9" * 5000 + b"}",
    "long number in YAML": b"trainer: {max_epochs: " + b"9" * 5000 + b"}",
    "impossible date": b"trainer: {limit: 2024-99-99}",
    "lone surrogate": b'{"format": 2, "name": "\\ud800"}',
    "list": b"[1, 2]",
    "text": b'"a"',
    "null": b"null",
    "number": b"7",
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "carriage returns": b"row,test\r1,90\r2,91\r",
    "NUL": b"a\x00b,c\n1\x00,2\n",
    "open quote": b'step,epoch,loss\n0,0,"1\n',
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {}  # kind: name of the file, and what reads it


def reader(kind: str, name: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def added(read: Callable[[Path], object]) -> Callable[[Path], object]:
        READERS[kind] = (name, read)
        return read

    return added


reader("config", "config.yaml")(read_config)
reader("row of an ablation", "rows/01_a.yaml")(lambda file: AblationFolder.load(file.parents[1]))
reader("claim", "claim.yaml")(lambda file: AblationFolder.load(file.parent))
reader("published.csv", "published.csv")(lambda file: read_published(file, range(1, 20)))
reader("ablation.json", "ablation.json")(lambda file: read_sweep(file.parent))
reader("ledger", "ledger.jsonl")(lambda file: read_sweep(file.parent))
reader("result of a run", "result.json")(read_result)
reader("result of a sweep", "result.json")(Result.read)
reader("metrics.csv", "metrics.csv")(lambda file: read_curves(file.parent))
reader("threshold", "threshold.json")(Threshold.load)
reader("adapter_config.json", "adapter_config.json")(lambda file: base_of_adapter(file.parent))
reader("export", "ftkit.json")(lambda file: read_export(file.parent))
reader("config of a base", "config.json")(lambda file: load_pretrained(AutoConfig, str(file.parent)))
reader("tokenizer of a base", "tokenizer.json")(lambda file: load_pretrained(AutoTokenizer, str(file.parent)))


@reader("metrics.csv to go on with", "metrics.csv")
def resumed_curves(file: Path) -> None:
    CurvesLogger(file.parent).go_on(2, [])


@reader("lock", ".running")
def locked(file: Path) -> None:
    with exclusive(file.parent):
        pass


CONFIG = {
    "seed_everything": 123,
    "model": {"class_path": "ftkit.GPT2Classifier", "init_args": {"trainable": "last_block"}},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}
RESULT = {
    "format": FORMAT,
    "splits": {name: {"n": 10, "correct": 9} for name in ("train", "val", "test")},
    "metrics": {"test": {"test/accuracy": 0.9}},
    "seconds": {"fit": 1.5, "test": 0.2},
    "seconds_frozen": {"fit": 0.1},
    "peak_memory_mb": 12,
    "parameters": {"trainable": 5, "total": 50},
    "device": "cpu",
    "hardware": {"cpu": "some", "cores": 2},
    "data": {"source": "demo", "sha256": "0" * 64},
}
SWEEP = {
    "format": FORMAT,
    "name": "demo",
    "published": {"rows": {}, "source": "", "data_sha256": None, "base": {}},
    "rows": [{"number": number, "label": f"0{number}_a", "name": "a", "question": "why?"} for number in (1, 2)],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, gpt2_folder: Path) -> Path:
    """A folder with a good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "rows").mkdir()
    for name in ("config.yaml", "base.yaml"):
        (folder / name).write_text(yaml.safe_dump(CONFIG))
    (folder / "rows/01_a.yaml").write_text("# Does it help?\nmodel:\n  init_args:\n    trainable: all\n")
    (folder / "rows/02_b.yaml").write_text("# Or this?\nmodel:\n  init_args:\n    trainable: head\n")
    claim = {"claim": "It helps.", "rows": [1], "against": 2}
    (folder / "claim.yaml").write_text(yaml.safe_dump(claim))
    (folder / "published.csv").write_bytes(Path("configs/ch06/published.csv").read_bytes())
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "ablation.json").write_text(json.dumps(SWEEP))
    entries = [
        Entry(f"0{row}_a/seed-1", row, 1, status, identity={"config": {"seed": 1}}, result="0" * 64)
        for row in (1, 2)
        for status in ("started", "done")
    ]
    for entry in entries:
        Ledger(folder).append(entry)
    rows = "".join(f"{step},{step // 3},{0.5 / (step + 1)}\n" for step in range(9))
    (folder / "metrics.csv").write_text(f"step,epoch,train/loss\n{rows}")
    Threshold(0.25, "probability", "yes", "no", "accuracy", 0.9, 8, "val.tsv", "0" * 64).save(folder / "threshold.json")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "gpt2", "revision": None}))
    (folder / ".running").write_text(json.dumps({"pid": 2**22 + 1, "host": "elsewhere", "since": "2026"}))
    (folder / "run" / "checkpoints").mkdir(parents=True)
    content = {"state_dict": {"weight": torch.arange(5.0)}, "hyper_parameters": {}, "base": {}, "format": FORMAT}
    torch.save(content, folder / "run" / "checkpoints" / "last.ckpt")
    export_trained(folder / "run", folder, "ftkit.GPT2Classifier")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((gpt2_folder / name).read_bytes())
    return folder


def copied(good: Path, kind: str, to: Path) -> Path:
    """The file of a kind, in a folder with all that is read beside it."""
    name, _ = READERS[kind]
    beside = [name]
    if name.startswith("rows/"):
        beside += ["base.yaml"]
    if name == "claim.yaml":
        beside += ["base.yaml", "rows/01_a.yaml", "rows/02_b.yaml"]
    if name == "ledger.jsonl":
        beside += ["ablation.json"]
    if name == "ftkit.json":
        beside += ["trained.safetensors"]
    if name == "tokenizer.json":
        beside += ["config.json", "tokenizer_config.json"]
    for one in beside:
        (to / one).parent.mkdir(exist_ok=True, parents=True)
        (to / one).write_bytes((good / one).read_bytes())
    return to / name


def outcome(kind: str, file: Path) -> str:
    """Read a file: "read", or "refused" with its name and exit code 2 or 3."""
    try:
        READERS[kind][1](file)
    except (InputError, EnvironmentFault) as error:
        if error.exit_code not in (2, 3) or not (file.name in str(error) or file.parent.name in str(error)):
            raise AssertionError(f"exit code {error.exit_code}: {error}") from error
        return "refused"
    return "read"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["fast", "many"])
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_read_or_refused_by_name(
    kind: str, seed: int, good: Path, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    file = copied(good, kind, tmp_path / "folder")
    assert outcome(kind, file) == ("refused" if kind == "lock" else "read")
    content = (good / READERS[kind][0]).read_bytes()
    counts = {"read": 0, "refused": 0}
    for name, damaged in mutations(content, COUNT * (10 if seed else 1), seed):
        copied(good, kind, tmp_path / "folder").write_bytes(damaged)
        try:
            counts[outcome(kind, file)] += 1
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    record_property("counts", counts)
    assert counts["refused"] or kind in ("ledger", "lock")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", READERS)
def test_hostile_files_are_read_or_refused_by_name(kind: str, name: str, good: Path, tmp_path: Path) -> None:
    file = copied(good, kind, tmp_path / "folder")
    file.write_bytes(HOSTILE[name])
    outcome(kind, file)


CLASS = {"_class_path": "ftkit.classifier.gpt2_classifier.GPT2Classifier"}
SHAPES: dict[str, Any] = {
    "list": [1, 2],
    "number": 5,
    "nothing": {},
    "weights that are a number": {"state_dict": 5},
    "options that are a number": {"state_dict": {}, "hyper_parameters": 7},
    "no class": {"state_dict": {}, "hyper_parameters": {}, "format": FORMAT},
    "class of another kind": {"state_dict": {}, "hyper_parameters": {"_class_path": 7}, "format": FORMAT},
    "unknown option": {"state_dict": {}, "hyper_parameters": {**CLASS, "bogus": 1}, "format": FORMAT},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkpoint_of_any_shape_is_refused_by_name(shape: str, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(SHAPES[shape], tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(InputError, match="run"):
        load_run(tmp_path / "run")


def features(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing can be kept
        FeatureStore(file.parent).build({"a": 1}, [1], 1, lambda examples: torch.ones(1, 1, 1))


def described(file: Path) -> None:
    write_description(file.parent, AblationFolder.load(make_folder(file.parents[1] / "ablation", {"01_a": {}})))


def answers(file: Path) -> None:
    write_predictions(file, ["a", "b"], ["x", "y"], ["x", "x"])


PARTIAL = f"{key_of({'a': 1})}.{os.getpid()}.partial"  # of an entry of the feature store
LINKED: dict[str, Callable[[Path], object]] = {
    ".lock": locked,
    ".running": locked,
    "ledger.jsonl": lambda file: Ledger(file.parent).append(Entry("01_a/seed-1", 1, 1, "started")),
    "metrics.csv": lambda file: CurvesLogger(file.parent).log_metrics({"loss": 1.0}, 0),
    "hparams.yaml": lambda file: CurvesLogger(file.parent).log_hyperparams({"rate": 1.0}),
    "result.json": lambda file: Threshold(0.2, "probability", "a", "b", "accuracy", 1, 1, "", "").save(file),
    "predictions-test.tsv": answers,
    "last.ckpt": lambda file: AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, file),
    "last.ckpt.sha256": lambda file: AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, file.with_suffix("")),
    "ablation.json": described,
    "plan.json": lambda file: write_plan(file.parent, "cpu", []),
    PARTIAL: features,
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, id="an entry of the feature store" if name == PARTIAL else name) for name in LINKED]
)
def test_a_link_in_an_output_folder_is_never_followed_for_writing(name: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    target.write_text("precious\n")
    (folder / name).symlink_to(target)
    with suppress(EnvironmentFault, InputError):  # or the link itself was replaced
        LINKED[name](folder / name)
    assert target.read_text() == "precious\n"


def test_a_linked_folder_in_a_sweep_is_not_emptied_and_not_filled(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "out" / "01_a" / ".seed-123.partial"
    link.parent.mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("precious\n")
    link.symlink_to(precious)
    run(AblationFolder.load(make_folder(tmp_path / "ablation", {"01_a": {}})), FakeEngine(), tmp_path / "out")
    assert {file.name for file in precious.iterdir()} == {"file"}
    assert (link.parent / "seed-123" / "result.json").exists()
