"""The documentation builds offline without a warning, and holds every command, public name and config key."""

import inspect
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import lightning as L
import pytest
from page_blocks import ROOT

import ftkit
from ftkit.cli import COMMANDS, LIGHTNING_COMMANDS

inventory = pytest.importorskip("sphinx.util.inventory", reason="sphinx is not installed: pip install -e '.[docs]'")
_FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\bsrc="https?:|<link[^>]*\bhref="https?:|@import|url\(["']?https?:"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation. Warnings are errors: a page that is in no navigation, a link that leads nowhere."""
    out = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", "--doctree-dir", str(out / "doctrees")]
    ended = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ROOT / "docs", out / "html"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")
    return out / "html"


def words_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_command_has_its_help(site: Path) -> None:
    names = [*LIGHTNING_COMMANDS]
    for name, command in COMMANDS.items():
        names += [f"{name} {part}" for part in command] if isinstance(command, dict) else [name]
    assert len(names) > 12
    text = words_of(site / "reference/commands.html")
    assert [name for name in names if f"usage: ftkit {name} [options]" not in text] == []
    assert "--threshold_from PATH" in text


def test_every_public_name_is_documented(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        found = inventory.InventoryFile.load(file, "", lambda base, page: page)
    documented = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    assert {f"ftkit.{name}" for name in ftkit.__all__} - documented == set()


def test_every_argument_is_a_config_key(site: Path) -> None:
    text = (site / "reference/config.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r"<h3>(\w+)<.*?</h3>(.*?)(?=<h[23]|$)", text, re.DOTALL))
    classes = [one for name in ftkit.__all__ if inspect.isclass(one := getattr(ftkit, name))]
    classes = [one for one in classes if issubclass(one, L.LightningModule | L.LightningDataModule | L.Callback)]
    for one in classes:
        keys = {key for base in one.__mro__ for key in _arguments(base)} & {*_arguments(one)}
        missing = {key for key in keys if f">{key}<" not in sections[one.__name__]}
        assert not missing, f"{one.__name__}: {missing}"
    assert ">divergence.patience<" in text
    assert ">4<" in text  # its default


def _arguments(one: type) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, one in inspect.signature(one.__init__).parameters.items() if one.kind in kinds][1:]


def test_every_entry_of_the_glossary_is_a_definition(site: Path) -> None:
    entries = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").strip().split("\n\n")[1:]
    assert len(entries) > 20
    assert (site / "glossary.html").read_text(encoding="utf-8").count("<dt>") == len(entries)


def test_nothing_is_fetched_from_the_network(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 30
    for page in pages:
        assert not _FETCHED.search(page.read_text(encoding="utf-8")), page
