"""The report in a real browser: it renders without errors and asks nobody for anything."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation import Ablation, run
from ftkit.report.ablation_page import to_html
from ftkit.report.ablation_report import build

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the browser itself would call home
    "--enable-logging=stderr", "--v=0", "--dump-dom",
]  # fmt: skip
# Once the page is laid out it says itself what became of it, in its title.
PROBE = """<script>addEventListener('load', () => {
  const drawn = [...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().height > 40).length;
  const asked = performance.getEntriesByType('resource').map(entry => entry.name);
  const wider = document.documentElement.scrollWidth > innerWidth;
  document.title = JSON.stringify({drawn, wider, asked}); })</script>"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


def browse(html: str, folder: Path, width: int) -> tuple[dict[str, Any], list[str]]:
    """What became of a page: plots drawn, wider than the screen, addresses asked for; and what its console says."""
    page = folder / "page.html"
    page.write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title is not None
    return json.loads(title[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_report_renders_without_errors_and_without_network(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_first": {"correct": 216}})
    run(Ablation.load(folder), FakeEngine(), tmp_path / "out")
    page, console = browse(to_html(build(tmp_path / "out")), tmp_path, width=500)
    assert page == {"drawn": 4, "wider": False, "asked": []}
    assert console == []


def test_the_check_sees_errors_requests_and_pages_that_are_too_wide(tmp_path: Path) -> None:
    html = (
        "<title>x</title><body><p style='width: 900px'>wide</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>nothing.there()</script></body>"
    )
    page, console = browse(html, tmp_path, width=500)
    assert page == {"drawn": 0, "wider": True, "asked": ["http://127.0.0.1:9/x.png"]}
    assert any("nothing is not defined" in line for line in console)
