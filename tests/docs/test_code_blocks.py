"""Every code block of README and documentation runs, or says why it does not."""

import doctest
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT, Block, blocks

from ftkit.cli import main

WITH_CODE = [page for page in PAGES if any(block.run for block in blocks(page))]
WITH_SLOW_CODE = [page for page in WITH_CODE if any(block.slow for block in blocks(page))]
DEMO = "ablation run configs/ch06 --overlay configs/ch06/demo.yaml --rows 1-3 --out runs/demo"


def test_a_block_is_run_or_says_why_not() -> None:
    for page in PAGES:
        for block in blocks(page):
            known = re.fullmatch(r"|slow|file: [\w./-]+|not run: .{8,}", block.mark)
            assert known, f"{block}: {block.mark!r} is no word about running it"
            assert not block.run or block.language in ("python", "console"), f"{block}: {block.language} is not run"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configs whose trainings are made short, and three rows of `make demo` with them, which several pages read."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FTKIT_CACHE", str(folder / "cache"))
        assert main(["init", "configs", "--from", "configs"]) == 0
        base = Path("configs/ch06/base.yaml")
        short = base.read_text(encoding="utf-8").replace("max_epochs: 5", "max_epochs: 1\n  limit_train_batches: 8")
        base.write_text(short, encoding="utf-8")
        assert main(DEMO.split()) == 0
        yield folder


@pytest.fixture
def workplace(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder: like a checkout after `make demo`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("FTKIT_CACHE", str(demo / "cache"))
    shutil.copytree(demo, ".", dirs_exist_ok=True)


def run_page(page: Path, capfd: pytest.CaptureFixture[str], slow: bool) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.run and (slow or not block.slow):
            RUN[block.language](block, names, capfd)


def run_python(block: Block, names: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    if not block.text.startswith(">>>"):
        exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
        return
    session = doctest.DocTestParser().get_doctest(block.text, names, str(block), str(block.page), block.line)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(session, out=said.append, clear_globs=False)
    names.update(session.globs)
    assert not said, "".join(said)


def run_commands(block: Block, names: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    for command in block.text.replace("\\\n", " ").split("$ ")[1:]:
        line, *expected = command.splitlines()
        words = shlex.split(line, comments=True)
        assert words[0] == "ftkit", f"{block}: {line} is no command of ftkit"
        capfd.readouterr()
        code = main(words[1:])
        said = capfd.readouterr()
        assert code == 0, f"{block}: {line}\n{said.err}"
        printed = " ".join((said.out + said.err).split())
        for one in expected:
            assert " ".join(one.split()) in printed or one.strip() == "...", f"{block}: {one!r} is not in\n{said.out}"


RUN = {"python": run_python, "console": run_commands}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_runs(page: Path, workplace: None, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(page, capfd, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SLOW_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_runs_with_what_takes_longer(page: Path, workplace: None, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(page, capfd, slow=True)
