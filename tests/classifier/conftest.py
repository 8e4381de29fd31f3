"""What the classifier's tests share: a feature store of one's own, and a folder of each decoder family."""

from pathlib import Path

import pytest
from families import FAMILIES


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a feature store that nothing else uses."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> Path:
    """A tiny GPT-2, and a tiny Llama: what holds of both is tested with both."""
    return request.getfixturevalue(request.param)
