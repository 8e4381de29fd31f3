"""An ablation whose test has three and more classes: macro F1 and recalls in the table and the report."""

import io

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

import fake_engine
import ftkit
from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.report.ablation_table import table
from ftkit.report.document import to_markdown
from ftkit.report.page import to_html
from ftkit.results.predictions import read_predictions, write_predictions


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Run two rows and two seeds whose answers are of ``k`` classes, with or without probabilities."""

    def make(k, scores=True, name="out"):
        names = [f"class {chr(97 + c)}" for c in range(k)]

        def predict(path, correct, first_wrong, n=300):
            labels = (np.arange(n) + np.arange(n) // 7) % k
            right = (np.arange(n) * 7) % n < correct
            answers = np.where(right, labels, (labels + 1) % k)
            table = np.full((n, k), 0.1 / (k - 1))
            table[np.arange(n), answers] = 0.9
            given = [names[c] for c in answers]
            write_predictions(
                path,
                [f"id-{row}" for row in range(n)],
                [names[c] for c in labels],
                given,
                table if scores else None,
                [f"probability:{one}" for one in names] if scores else None,
            )

        monkeypatch.setattr(fake_engine, "predict", predict)
        folder = make_folder(tmp_path / name / "study", {"01_base": {}, "02_worse": {"correct": 216}})
        run(AblationFolder.load(folder), FakeEngine(), tmp_path / name / "out", seeds=[123, 124])
        return tmp_path / name / "out"

    return make


def files(out, row):
    return [read_predictions(out / row / f"seed-{seed}/predictions-test.tsv") for seed in (123, 124)]


@pytest.mark.parametrize(("k", "scores"), [(3, True), (3, False), (10, True), (20, True)])
def test_macro_f1_and_recalls_are_found(study, k, scores):
    out = study(k, scores)
    report = ftkit.read_results(out)
    for row, name in zip(report.analysis.rows, ("01_base", "02_worse"), strict=True):
        expected = [f1_score(found.labels, found.predictions, average="macro") for found in files(out, name)]
        assert row.macro_f1 == pytest.approx(np.mean(expected))
    frame, csv = report.to_pandas(), pd.read_csv(io.StringIO(table(report.analysis, "csv")))
    assert list(frame["test_macro_f1"]) == list(csv["test_macro_f1"]) == [row.macro_f1 for row in report.analysis.rows]
    assert "mac. F1" in str(report).splitlines()[0]
    markdown = to_markdown(report.document())
    names = sorted(set(files(out, "01_base")[0].labels))
    assert f"- classes: {len(names)}: {', '.join(names)}" in markdown
    lines = markdown.partition("## Recall of each class")[2].partition("##")[0].splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines
        if "class " in line
    }
    for place, row in enumerate(("01_base", "02_worse"), 1):
        labels, answers = (
            [text for one in files(out, row) for text in getattr(one, part)] for part in ("labels", "predictions")
        )
        recalls = recall_score(labels, answers, average=None, labels=names)
        assert [cells[name][place] for name in names] == [f"{100 * value:.1f}" for value in recalls]
        assert [int(cells[name][0]) for name in names] == [labels.count(name) // 2 for name in names]
    assert [name for name in report.plots if "confusion" in name] == (
        ["01-confusion", "02-confusion"] if k <= 12 else []
    )
    assert "Recall of each class" in to_html(report.document())
    if scores:
        head = report.examples[2].table.head
        assert "probability of the label" in head
        assert {row[head.index("probability of the label")] for row in report.examples[2].table.rows} <= {
            "0.900", f"{0.1 / (k - 1):.3f}"}  # fmt: skip


def test_two_classes_have_neither(tmp_path):
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_worse": {"correct": 216}})
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", seeds=[123])
    report = ftkit.read_results(tmp_path / "out")
    assert "test_macro_f1" not in report.to_pandas()
    markdown = to_markdown(report.document())
    assert "macro F1" not in markdown
    assert "Recall of each class" not in markdown
    assert "- classes:" not in markdown
