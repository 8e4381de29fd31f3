"""What a notebook does: run an ablation, read its results, evaluate and compare files."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import ftkit
from fake_engine import FakeEngine, make_folder
from ftkit.commands.ablation import ablation_table
from ftkit.errors import InputError


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("api")
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_worse": {"correct": 216}, "03_same": {}})
    summary = ftkit.Ablation(folder, rows="1-2", out=tmp_path / "out").run(seeds=[123], engine=FakeEngine())
    assert [str(run) for run in summary.done] == ["01_base (seed 123)", "02_worse (seed 123)"]
    return tmp_path / "out"


def test_results_are_a_data_frame(out: Path) -> None:
    frame = ftkit.read_results(out).to_pandas()
    assert list(frame["name"]) == ["base", "worse", "same"]
    assert list(frame["test"])[:2] == [0.95, 0.72]
    assert frame["test"].isna().tolist() == [False, False, True]
    written = pd.read_csv(io.StringIO(ablation_table(out, "csv")))
    assert list(written.columns) == list(frame.columns)
    assert written["p_holm"].equals(frame["p_holm"].astype(float))


def test_results_show_themselves(out: Path) -> None:
    results = ftkit.read_results(out)
    html = results._repr_html_()
    assert "1 of 1 variant differs significantly from row 1 (base): worse: row 2 (worse, -23.0 points)." in html
    assert html.count("<tr>") == 3  # the head, and the two rows that were run
    assert "<script" not in html
    assert str(results).splitlines()[0].split()[:2] == ["row", "name"]


def test_charts_are_pictures_in_a_notebook_and_files(out: Path, tmp_path: Path) -> None:
    plot = ftkit.read_results(out).plot
    assert plot.accuracy()._repr_svg_().startswith("<svg")
    starts = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    for form, start in starts.items():
        plot.confusion(2).save(tmp_path / f"chart.{form}")
        assert (tmp_path / f"chart.{form}").read_bytes().startswith(start)
    with pytest.raises(
        InputError, match=r"chart\.gif: is no format of a chart; fix: end the name in \.svg, \.png, \.pdf"
    ):
        plot.accuracy().save(tmp_path / "chart.gif")
    with pytest.raises(InputError, match=r"there is nothing to draw it from \(got '03-confusion'\)"):
        plot.confusion(3)


def test_evaluate_returns_its_report_and_prints_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = ftkit.evaluate(str(out / "02_worse/seed-123/predictions-test.tsv"), digits=2)
    assert capsys.readouterr().out == ""
    assert evaluation.reports[0].figures["accuracy"].value == 0.72
    assert "accuracy:  0.72\n" in str(evaluation)
    assert evaluation._repr_markdown_().startswith("# ")
    assert json.loads(evaluation.to_json())["kind"] == "binary"


def test_audit_returns_its_report_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"label": ["ham", "spam"], "text": ["See you", "Win now"]}).to_csv(tmp_path / "train.csv", index=False)
    test = pd.DataFrame({"label": ["ham", "ham"], "text": ["see  YOU", "later"]})
    found = ftkit.audit(train=tmp_path / "train.csv", test=test)
    assert capsys.readouterr().out == ""
    assert found.to_pandas()["duplicate_text"].tolist() == ["See you"]
    assert found.to_dict()["duplicates"]["normalized"]["test"]["in_train"] == 1
    assert "1 of 2 test examples" in found._repr_html_()


def test_compare_is_a_minus_b(out: Path) -> None:
    base, worse = (out / f"{row}/seed-123/predictions-test.tsv" for row in ("01_base", "02_worse"))
    assert ftkit.compare(worse, base).difference == pytest.approx(-0.23)
    assert ftkit.compare(base, worse).difference == pytest.approx(0.23)
    with pytest.raises(InputError, match="is compared with itself"):
        ftkit.compare(base, base)


def test_the_package_imports_nothing_heavy() -> None:
    heavy = ("altair", "jinja2", "lightning", "pandas", "pyarrow", "scipy", "torch", "transformers")
    code = f"import sys, ftkit; dir(ftkit); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
