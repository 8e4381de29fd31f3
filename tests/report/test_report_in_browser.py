"""The report in a real browser: it renders without errors, asks nobody for anything, sorts, filters and opens rows."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit import audit
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.report.ablation_report import read_results
from ftkit.report.evaluate import evaluate
from ftkit.report.page import to_html
from ftkit.report.theme import DARK, LIGHT
from ftkit.results.predictions import write_predictions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the browser itself would call home
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000", "--dump-dom",
]  # fmt: skip
# Once the page is laid out it is used as a reader would, and says itself what became of it, in its title.
PROBE = """<script>addEventListener('load', async () => {
  const all = (query) => [...document.querySelectorAll(query)];
  const settled = async () => {
    for (let k = 0; k < 200 && all('.chart').some(place => place.offsetParent && !place.querySelector('svg')); k++) {
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  };
  const drawn = () => all('svg').filter(svg => svg.getBoundingClientRect().height > 40).length;
  const rows = () => all('table.variants tr[id]').filter(row => row.offsetParent).map(row => row.cells[0].textContent);
  const cut = (query) => all(query).filter(part => part.offsetParent && part.scrollWidth > part.clientWidth).length;
  const told = {};
  await settled();
  told.drawn = drawn();
  told.open = all('.detail').filter(row => row.offsetParent).map(row => row.previousElementSibling.id);
  for (const step of STEPS) {
    const [name, query, text] = step;
    const target = query.startsWith('//')
      ? document.evaluate(query, document, null, XPathResult.FIRST_ORDERED_NODE_TYPE).singleNodeValue
      : document.querySelector(query);
    if (text === 'point') {
      const { x, y } = target.getBoundingClientRect();
      const at = { bubbles: true, clientX: x + 3, clientY: y + 3 };
      for (const event of ['pointermove', 'mousemove']) target.dispatchEvent(new MouseEvent(event, at));
      await new Promise(resolve => setTimeout(resolve, 100));
      told.tip = document.querySelector('#vg-tooltip-element').innerText;
      for (const event of ['mousedown', 'mouseup', 'click']) target.dispatchEvent(new MouseEvent(event, at));
      await new Promise(resolve => setTimeout(resolve, 100));
    } else if (text === undefined) target.click();
    else { target.value = text; target.dispatchEvent(new Event('input')); }
    await settled();
    told[name] = { rows: rows(), count: document.querySelector('output').textContent, drawn: drawn(),
      cut: cut('.scroll'), cutInside: cut('.detail .scroll'),
      detail: document.querySelector('.detail:not([hidden])')?.innerText ?? '' };
  }
  told.wider = document.documentElement.scrollWidth > innerWidth;
  told.asked = performance.getEntriesByType('resource').map(entry => entry.name);
  told.paper = getComputedStyle(document.body).backgroundColor;
  told.ink = all('.role-axis-title text').map(text => getComputedStyle(text).fill)[0] ?? '';
  document.title = JSON.stringify(told); })</script>"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


def browse(
    html: str, folder: Path, width: int = 500, steps: Any = (), place: str = "", dark: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """What became of a page: what it drew, showed and asked for, in steps; and what its console says."""
    page = folder / "page.html"
    probe = PROBE.replace("STEPS", json.dumps(steps))
    before, end, after = html.rpartition("</body>")  # Vega's own script speaks of one, too
    page.write_text(f"{before}{probe}{end}{after}", encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(CHROMIUM), *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run([*command, page.as_uri() + place], capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title is not None
    return json.loads(unescape(title[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of three rows with figures and one without."""
    folder = tmp_path_factory.mktemp("sweep")
    rows: dict[str, dict[str, Any]] = {
        "01_base": {}, "02_first": {"correct": 216}, "03_xl": {"do": "unavailable"}, "04_more": {"correct": 291},
    }  # fmt: skip
    run(AblationFolder.load(make_folder(folder / "study", rows)), FakeEngine(), folder / "out")
    return to_html(read_results(folder / "out").document())


def rgb(color: str) -> str:
    return f"rgb({int(color[1:3], 16)}, {int(color[3:5], 16)}, {int(color[5:7], 16)})"


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_renders_without_errors_and_without_network(tmp_path: Path, report: str, dark: bool) -> None:
    page, console = browse(report, tmp_path, dark=dark)
    assert (page["drawn"], page["wider"], page["asked"]) == (2, False, [])  # accuracy and cost; the rest is closed
    colors = DARK if dark else LIGHT
    assert (page["paper"], page["ink"]) == (rgb(colors["paper"]), rgb(colors["ink"]))
    assert console == []


@pytest.mark.parametrize("width", [500, 1280])
def test_an_evaluation_of_a_file_with_an_odd_name_renders_without_errors(tmp_path: Path, width: int) -> None:
    path, labels = tmp_path / "it's <b>.tsv", ["yes", "no", "no", "yes"] * 10
    scores = [k / 40 for k in range(40)]
    write_predictions(path, map(str, range(40)), labels, ["yes", "no"] * 20, scores, "probability:yes")
    evaluation = evaluate(path)
    page, console = browse(to_html(evaluation.document(figures=True)), tmp_path, width)
    assert (page["drawn"], page["wider"], page["asked"]) == (6, False, [])
    assert console == []


@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_an_audit_shows_a_pair_side_by_side(tmp_path: Path, width: int, dark: bool) -> None:
    texts = [f"Win {n} now {'wow ' * n} at www.{'very' * 5}-{n}.example.com and call {'me ' * 20}" for n in range(9)]
    train, test = ([{"text": f"{text}{end}", "label": "spam"} for text in texts] for end in (" today", " tomorrow"))
    html = to_html(audit(train=train, test=test).document())
    page, console = browse(html, tmp_path, width, [("opened", "tr.entry button")], dark=dark)
    assert (console, page["wider"], page["asked"]) == ([], False, [])
    assert page["paper"] == rgb((DARK if dark else LIGHT)["paper"])
    assert re.match("test r0000.\ttrain r0000.\n", page["opened"]["detail"])
    assert re.search("today ?\t.* tomorrow|tomorrow ?\t.* today", page["opened"]["detail"])
    assert page["opened"]["cutInside"] == 0  # both texts are seen whole
    assert width < 1280 or page["opened"]["cut"] == 0


def test_the_table_sorts_filters_and_opens_a_variant_with_its_examples(tmp_path: Path, report: str) -> None:
    heading = "//th/button[starts-with(., 'test accuracy')]"
    steps = [
        ("rising", heading),
        ("falling", heading),
        ("filtered", "input", "CORRECT 291"),
        ("opened", "#row-4 button"),
        ("closed", "#row-4 button"),
        ("cleared", "input", ""),
        ("nothing", "input", "no such variant"),
    ]
    page, console = browse(report, tmp_path, 1280, steps)
    assert console == []
    assert page["rising"]["rows"] == ["2", "1", "4", "3"]  # what has no figure stays last
    assert page["falling"]["rows"] == ["4", "1", "2", "3"]
    assert (page["filtered"]["rows"], page["filtered"]["count"]) == (["4"], "1 of 4 rows")
    opened = page["opened"]
    assert "Row 4 (more)" in opened["detail"]
    assert "9 of 300 test examples are wrong with the first seed." in opened["detail"]
    assert len(re.findall(r"^wrong\t", opened["detail"], re.MULTILINE)) == 9
    assert opened["drawn"] == page["drawn"] + 1  # its answers by class
    assert page["closed"]["detail"] == ""
    assert (page["cleared"]["rows"], page["cleared"]["count"]) == (["4", "1", "2", "3"], "4 rows")
    assert (page["nothing"]["rows"], page["nothing"]["count"]) == ([], "0 of 4 rows")


def test_a_dot_shows_the_figures_of_its_variant_and_opens_it(tmp_path: Path, report: str) -> None:
    page, console = browse(report, tmp_path, 1280, [("pointed", ".mark-symbol path:nth-of-type(2)", "point")])
    assert console == []
    for text in ("2 first*", "72.00% (66.7 to 76.8)", "-23.00 points", "correct: 285 -> 216"):
        assert text in page["tip"]
    assert "Row 2 (first)" in page["pointed"]["detail"]


def test_an_address_opens_a_variant(tmp_path: Path, report: str) -> None:
    page, _ = browse(report, tmp_path, place="#row-2")
    assert page["open"] == ["row-2"]
    assert page["drawn"] == 3
    assert not page["wider"]


def test_the_check_sees_errors_requests_and_pages_that_are_too_wide(tmp_path: Path) -> None:
    html = (
        "<title>x</title><body><p style='width: 900px'>wide</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>nothing.there()</script></body>"
    )
    page, console = browse(html, tmp_path)
    assert (page["drawn"], page["wider"], page["asked"]) == (0, True, ["http://127.0.0.1:9/x.png"])
    assert any("nothing is not defined" in line for line in console)
