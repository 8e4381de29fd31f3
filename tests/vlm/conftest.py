"""Further tiny image-text models, for all tests of the vision-language wing."""

from pathlib import Path

import pytest

from vlm_folders import build_idefics3, build_paligemma


@pytest.fixture(scope="session")
def smolvlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolVLM in transformers format; its processor needs num2words and torchvision."""
    pytest.importorskip("num2words")
    pytest.importorskip("torchvision")
    return build_idefics3(tmp_path_factory.mktemp("weights") / "smolvlm-tiny", smolvlm=True)


@pytest.fixture(scope="session")
def paligemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaliGemma in transformers format; it has no chat template."""
    return build_paligemma(tmp_path_factory.mktemp("weights") / "paligemma-tiny")


@pytest.fixture(scope="session")
def paligemma2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PaliGemma 2 in transformers format; it has no chat template."""
    return build_paligemma(tmp_path_factory.mktemp("weights") / "paligemma2-tiny", gemma2=True)
