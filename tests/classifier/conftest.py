"""What the classifier's tests share: a feature store of one's own, and a folder of each decoder family."""

from pathlib import Path

import pytest
from families import FAMILIES
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a feature store that nothing else uses."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> Path:
    """A tiny GPT-2, and among the slow tests a tiny Llama: what holds of both is tested with both."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def byte_tokenizer() -> GPT2Tokenizer:
    """One token a byte, so that a length is a length in bytes; 256 is the end of text."""
    symbols = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    return GPT2Tokenizer(vocab=dict(zip(symbols, range(257), strict=True)), merges=[])
