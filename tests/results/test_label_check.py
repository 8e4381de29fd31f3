"""Labels that may be wrong: planted ones are found, and what follows for the order of variants."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ftkit.ablation.analysis import analyse
from ftkit.report.ablation_report import read_results, write
from ftkit.report.labels import labels_of
from ftkit.report.page import to_html
from ftkit.results.label_check import LabelCheck, check_labels
from ftkit.results.predictions import Predictions
from page_reader import Page
from real_sweep import write_sweep

IDS = [f"m{place}" for place in range(40)]
LABELS = ["spam" if place % 2 else "ham" for place in range(40)]
WRONG = (4, 7)  # labels that every model contradicts


def runs(scored: bool = True, count: int = 4) -> list[Predictions]:
    """Models that are sure and right, but of two labels; each is wrong about one more example, and in another order."""
    made = []
    for number in range(count):
        spam = np.array([0.9 if label == "spam" else 0.1 for label in LABELS])
        for place in (*WRONG, 10 + number):
            spam[place] = 1 - spam[place]
        spam[20] = 0.6 if number < 2 else 0.4  # ham to half of them
        answers = ["spam" if one > 0.5 else "ham" for one in spam]
        order = np.random.default_rng(number).permutation(40).tolist()
        columns = [[column[place] for place in order] for column in (IDS, LABELS, answers)]
        made.append(Predictions(*columns, spam[order] if scored else None, ("probability:spam",) if scored else ()))
    return made


@pytest.mark.parametrize("scored", [True, False])
def test_labels_that_all_models_contradict_come_first(scored: bool) -> None:
    found = check_labels(runs(scored))
    assert found is not None
    rows = found.rows({"m4": "a text"})
    assert {row["id"] for row in rows[:2]} == {"m4", "m7"}
    assert [row["suspicious"] for row in rows] == [True] * 2 + [False] * 38
    assert {row["id"]: (row["label"], row["likely"], row["wrong_runs"]) for row in rows[:2]} == {
        "m4": ("ham", "spam", 1.0), "m7": ("spam", "ham", 1.0),
    }  # fmt: skip
    assert rows[2]["id"] == "m20"
    assert rows[2]["wrong_runs"] == 0.5
    assert {row["id"]: row["text"] for row in rows}["m4"] == "a text"
    assert rows[0]["label_confidence"] == pytest.approx(0.1 if scored else 0)


def test_a_model_that_is_right_for_once_keeps_a_label() -> None:
    made = runs()
    right = made[0].predictions.copy()
    right[made[0].ids.index("m4")] = "ham"
    made[0] = Predictions(made[0].ids, made[0].labels, right, made[0].scores, made[0].score_names)
    found = check_labels(made)
    assert found is not None
    assert [row["id"] for row in found.rows({}, suspicious=True)] == ["m7"]  # 3 of 4 are not nearly all


def by_cleanlab(label: np.ndarray, probability: np.ndarray) -> list[int]:
    """What cleanlab 2.9's find_label_issues ranks (filter_by confident_learning, ranked by self_confidence)."""
    least = [probability[label == name, name].mean() for name in range(probability.shape[1])]
    issues = []
    for place, row in enumerate(probability):
        confident = [name for name, one in enumerate(row) if one >= least[name] - 1e-6]
        likely = max(confident, key=lambda name: row[name], default=label[place])
        if label[place] not in (likely, row.argmax()):
            issues.append(place)
    return sorted(issues, key=lambda place: probability[place, label[place]])


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_ranking_is_that_of_cleanlab(classes: int) -> None:
    rng, n = np.random.default_rng(classes), 600
    truth = rng.integers(0, classes, n)
    label = np.where(rng.random(n) < 0.1, rng.integers(0, classes, n), truth)
    tables = [rng.dirichlet(np.ones(classes), n) + 1.5 * np.eye(classes)[truth] * rng.random((n, 1)) for _ in range(3)]
    tables = [table / table.sum(axis=1, keepdims=True) for table in tables]
    names, ids = [chr(97 + one) for one in range(classes)], [str(place) for place in range(n)]
    mean = sum(tables) / 3
    said = [names[one] for one in mean.argmax(axis=1)]  # all runs say what they find together
    columns = tuple(f"probability:{name}" for name in names)
    found = check_labels([Predictions(ids, [names[one] for one in label], said, table, columns) for table in tables])
    assert found is not None
    expected = by_cleanlab(label, mean)
    assert [int(row["id"]) for row in found.rows({}, suspicious=True)] == expected
    assert len(expected) > 5


def test_three_classes_and_log_odds() -> None:
    labels = ["a", "b", "c"] * 10
    table = np.full((30, 3), 0.1)
    table[np.arange(30), np.arange(30) % 3] = 0.8
    table[3] = [0.1, 0.1, 0.8]  # labelled a
    names = ("probability:c", "probability:a", "probability:b")
    answers = ["abc"[one] for one in table.argmax(axis=1)]
    run = Predictions([str(n) for n in range(30)], labels, answers, table[:, [2, 0, 1]], names)
    found = check_labels([run] * 3)
    assert found is not None
    assert [(row["id"], row["likely"]) for row in found.rows({}, suspicious=True)] == [("3", "c")]
    odds = np.where(np.array(LABELS) == "spam", 3.0, -3.0)
    odds[0] = 3.0
    run = Predictions(IDS, LABELS, np.where(odds > 0, "spam", "ham").tolist(), odds, ("log_odds:spam",))
    found = check_labels([run] * 3)
    assert found is not None
    assert found.confidence[0] == pytest.approx(1 / (1 + np.exp(3)))
    assert [row["id"] for row in found.rows({}, suspicious=True)] == ["m0"]


def test_nothing_is_claimed_of_few_runs_or_other_examples() -> None:
    assert check_labels(runs(count=2)) is None
    other = runs()
    other[1] = Predictions(IDS[1:], LABELS[1:], LABELS[1:])
    assert check_labels(other) is None
    texts = [Predictions(IDS, [*map(str, range(39)), None], IDS)] * 3
    assert check_labels(texts) is None


def test_the_report_says_whether_the_order_would_change(tmp_path: Path) -> None:
    """Row 31 alone gets the wrong labels, and is best by them; row 1 would be."""
    n = 200
    ids, labels = [f"m{place}" for place in range(n)], ["spam" if place % 2 else "ham" for place in range(n)]

    def spam(wrong: set[int]) -> np.ndarray:
        return np.array([float((label == "spam") != (place in wrong)) for place, label in enumerate(labels)])

    flipped = set(range(10))
    rows = {f"{row:02}_model": spam(flipped | {20 + row}) for row in range(1, 31)}
    rows |= {"31_obeys": spam({60, 61, 62})}
    write_sweep(tmp_path, ids, labels, rows)
    write(read_results(tmp_path), tmp_path / "report", png=False)
    page = Page((tmp_path / "report/report.html").read_text())
    words = " ".join(page.words.split())
    assert "10 of 200 test labels may be wrong: at least 90% of 31 runs answer otherwise" in words
    assert "If all of them were wrong, 31 of 31 variants would change their rank; the best would be model" in words
    frame = pd.read_csv(tmp_path / "report/labels.tsv", sep="\t")
    assert set(frame["id"][:10]) == {f"m{place}" for place in range(10)}
    assert frame["suspicious"].tolist() == [True] * 10 + [False] * 190
    found = labels_of(analyse(tmp_path))
    assert found is not None
    after = {
        number: accuracy
        for number, accuracy, _, _ in found.outcome(
            np.where(found.check.suspicious, found.check.likely, found.check.label)
        )
    }
    assert after[1] == 199 / 200
    assert after[31] == 187 / 200
    assert "may be wrong" not in to_html(
        read_results(write_sweep(tmp_path / "two", ids, labels, {"01_a": spam(set())})).document()
    )


def test_suspicious_labels_come_before_ones_that_are_less_likely() -> None:
    label, likely, answers = np.zeros(4, np.int64), np.array([0, 1, 1, 0]), np.array([[0, 1, 1, 0]] * 3)
    check = LabelCheck(list("abcd"), ["ham", "spam"], label, likely, np.array([0.1, 0.4, 0.3, 0.05]), answers)
    assert [row["id"] for row in check.rows({})] == ["c", "b", "d", "a"]
    assert [row["id"] for row in check.rows({}, suspicious=True)] == ["c", "b"]
