"""Test accuracies without duplicates in train, and changes, in the table and the report of an ablation."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftkit.ablation.analysis import analyse
from ftkit.cli import main
from ftkit.commands.ablation import ablation_table
from ftkit.report.ablation_notes import notes
from ftkit.report.ablation_report import read_results, write
from ftkit.report.document import to_markdown
from ftkit.report.page import to_html
from ftkit.results.clusters import cluster_sign_flip_test
from ftkit.results.duplicates import duplicates_line
from ftkit.results.known_examples import KnownExamples
from ftkit.results.statistics import mcnemar_exact
from page_reader import Page
from real_sweep import write_sweep

N = 100
LABELS = ["spam" if place % 2 else "ham" for place in range(N)]
IDS = [f"m{place}" for place in range(N)]


def spam(wrong: range | list[int]) -> np.ndarray:
    """Probabilities of spam that are wrong for some examples."""
    return np.array([float((label == "spam") != (place in wrong)) for place, label in enumerate(LABELS)])


def sweep(out: Path, known: bool = True) -> Path:
    """Row 2 gains on 20 duplicates of one text in train, row 3 on 20 other examples."""
    rows = {"01_base": spam(range(40)), "02_remembers": spam(range(20, 40)), "03_learns": spam(range(20))}
    write_sweep(out, IDS, LABELS, rows)
    write_sweep(out, IDS, LABELS, {"03_learns": spam(range(20))}, seed=124)
    if known:
        cluster = np.array([0] * 20 + [*range(1, N - 19)])
        texts = [f"text {one}" for one in IDS]
        KnownExamples(IDS, ["near"] * 20 + [""] * 80, cluster, texts).write(
            out / "02_remembers/seed-123/examples-test.tsv"
        )
    return out


def test_the_table_has_the_accuracy_without_duplicates(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    text = ablation_table(out)
    assert [line.split()[:2] + line.split()[-3:-2] for line in text.splitlines()[2:5]] == [
        ["1", "base", "75.00"], ["2", "remembers", "75.00"], ["3", "learns", "100.00"],
    ]  # fmt: skip
    assert "no dup.: test without the 20 of 100 examples that have a duplicate or near-duplicate in train." in text
    assert "Row 2 (remembers): the conclusion depends on duplicates: significantly better" in text
    assert "Row 3 (learns): the conclusion" not in text
    records = list(csv.DictReader(io.StringIO(ablation_table(out, "csv"))))
    two = records[1]
    assert float(two["test_without_duplicates"]) == 0.75
    assert float(two["test_duplicates_in_train"]) == 1
    assert (two["n_duplicates_in_train"], two["depends_on_duplicates"]) == ("20", "True")
    assert float(two["difference_without_duplicates"]) == 0
    gained = np.array([1] * 20 + [0] * 80)
    assert float(two["p_holm_clusters"]) == cluster_sign_flip_test(gained, np.array([0] * 20 + [*range(1, 81)])) == 1
    assert float(two["p_holm_without_duplicates"]) == 1
    assert records[2]["depends_on_duplicates"] == "False"
    loaded = json.loads(ablation_table(out, "json"))
    assert [str(row["test_without_duplicates"]) for row in loaded] == [
        row["test_without_duplicates"] for row in records
    ]
    assert loaded[0]["p_holm_clusters"] is None


def test_clusters_count_among_rows_compared_together(tmp_path: Path) -> None:
    rows = {row.number: row.comparison for row in analyse(sweep(tmp_path)).rows}
    found = rows[3] and rows[3].duplicates
    assert found is not None
    assert (found.n, found.clusters) == (80, 81)
    assert found.p == mcnemar_exact(20, 0)
    assert found.p_holm == pytest.approx(2 * found.p)


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    text = ablation_table(sweep(tmp_path, known=False)) + to_markdown(read_results(tmp_path).document())
    assert "dup" not in text
    assert "without_duplicates" not in ablation_table(tmp_path, "csv")


def test_runs_with_other_duplicates_are_named_and_one_line_for_all_names_none(tmp_path: Path) -> None:
    analysis = analyse(sweep(tmp_path))
    counts = {"total": 100, "in_train": 20, "other_label": 0}
    raw: list[dict[str, Any]] = [dict(result.raw) for result in analysis.sweep.results]
    for result, one in zip(analysis.sweep.results, raw, strict=True):
        one["data"] = {"duplicates": {"test": dict(counts)}}
        object.__setattr__(result, "raw", one)
    line = duplicates_line({"test": counts})
    assert f"{line}." in notes(analysis)
    raw[-1]["data"]["duplicates"]["test"]["in_train"] = 7
    found = notes(analysis)
    assert f"{line} (rows 1-3, seed 123)." in found
    assert f"{line.replace('20', '7', 1)} (row 3, seed 124)." in found


def test_the_report_has_duplicates_and_changes(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    assert main(["ablation", "report", str(out), "--png", "false"]) == 0
    page = Page((out / "report/report.html").read_text())
    assert "20 of 100 examples have a duplicate or near-duplicate in train" in page.words
    assert "the conclusion depends on duplicates" in page.words
    frame = pd.read_csv(out / "report/changes.tsv", sep="\t", dtype=str)
    assert frame.groupby("variant").size().to_dict() == {"2 remembers": 20, "3 learns": 20}
    assert set(frame["change"]) == {"wrong to right"}
    assert frame["id"].tolist() == IDS[:20] + IDS[20:40]
    assert frame["text"].tolist() == [f"text {one}" for one in frame["id"]]
    assert "40 changes are shown; changes.tsv has all of them." in page.words
    assert "text m39" in page.words
    assert "text m40" not in page.words


def test_changes_of_several_seeds_are_told_apart(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    write_sweep(out, IDS, LABELS, {"01_base": spam(range(41))}, seed=124)
    write(read_results(out), out / "report", png=False)
    frame = pd.read_csv(out / "report/changes.tsv", sep="\t", dtype=str)
    assert frame.groupby("variant").size().to_dict() == {
        "2 remembers, seed 123": 20, "3 learns, seed 123": 20, "3 learns, seed 124": 21,
    }  # fmt: skip
    assert "2 remembers, seed 123" in to_html(read_results(out).document())
    empty = write(read_results(write_sweep(tmp_path / "one", IDS, LABELS, {"01_base": spam([])})), tmp_path / "r")
    assert (tmp_path / "r/changes.tsv") in empty
