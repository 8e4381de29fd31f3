"""Texts and duplicates of examples: their file, the answers that they mark, and comparisons with and without them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ftkit.errors import InputError
from ftkit.examples.duplicates import duplicates_of
from ftkit.report.evaluate import compare, evaluate
from ftkit.results.clusters import cluster_interval, cluster_sign_flip_test
from ftkit.results.duplicates import LabeledText
from ftkit.results.known_examples import KnownExamples, known_examples
from ftkit.results.paired import paired_interval
from ftkit.results.predictions import write_predictions
from ftkit.results.statistics import holm, mcnemar_exact

TRAIN = ("Call me later", "WIN a prize now, call 0900 today", "yes", "see you at the station then")
TEST = {
    "a": "Call me later",
    "b": "call ME\tlater",
    "c": "WIN a prize now, call 0900 today!!",
    "d": 'a "quoted"\nline',
    "e": "",
    "f": "WIN a prize now, call 0900 today?",
}


def known(test: dict[str, str] = TEST, train: tuple[str, ...] = TRAIN) -> KnownExamples:
    splits = (
        tuple(LabeledText(f"t{place}", text, "x") for place, text in enumerate(train)),
        (),
        tuple(LabeledText(name, text, "x") for name, text in test.items()),
    )
    return KnownExamples.of([one for split in splits for one in split], duplicates_of(splits), "test")


def test_the_closest_kind_of_duplicate_in_train_is_kept() -> None:
    found = known()
    assert dict(zip(found.ids, found.duplicate, strict=True)) == {
        "a": "exact", "b": "normalized", "c": "near", "d": "", "e": "", "f": "near",
    }  # fmt: skip
    cluster = dict(zip(found.ids, found.cluster.tolist(), strict=True))
    assert cluster["a"] == cluster["b"] != cluster["c"] == cluster["f"]
    assert len(set(cluster.values())) == 4


def test_the_file_is_read_by_pandas_and_by_us(tmp_path: Path) -> None:
    found = known()
    found.write(tmp_path / "examples-test.tsv")
    frame = pd.read_csv(tmp_path / "examples-test.tsv", sep="\t", keep_default_na=False, dtype=str)
    assert list(frame.columns) == ["id", "duplicate_in_train", "cluster", "text"]
    assert frame["text"].tolist() == list(TEST.values())
    again = KnownExamples.read(tmp_path / "examples-test.tsv")
    assert (again.ids, again.duplicate, again.texts) == (found.ids, found.duplicate, found.texts)
    assert again.cluster.tolist() == found.cluster.tolist()
    assert again.text_of["d"] == TEST["d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\tlabel\tprediction\na\tx\tx\n", "is no file of examples"),
        ("id\tduplicate_in_train\tcluster\ttext\na\t\tnone\tx\n", "cluster: is damaged"),
        ("", "the file is empty"),
    ],
)
def test_another_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        KnownExamples.read(tmp_path / "other.tsv")


def test_runs_with_other_train_data_are_taken_together(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("1.tsv", "2.tsv", "3.tsv", "none.tsv")]
    known().write(files[0])
    known().write(files[1])
    known(train=("yes", 'a "quoted" line', "Call me later", "call me later win a prize")).write(files[2])
    found = known_examples(files)
    assert found is not None
    assert dict(zip(found.ids, found.duplicate, strict=True)) == {
        "a": "exact", "b": "normalized", "c": "near", "d": "normalized", "e": "", "f": "near",
    }  # fmt: skip
    assert list(found.texts) == list(TEST.values())
    assert len(set(found.cluster.tolist())) == 4
    assert known_examples(files[3:]) is None
    joined = KnownExamples(["x", "y", "z"], ["", "", ""], np.array([0, 1, 0]), ["", "", ""])
    joined.write(files[3])
    KnownExamples(["y", "z"], ["", ""], np.array([5, 5]), ["", ""]).write(files[0])
    found = known_examples([files[3], files[0]])
    assert found is not None
    assert found.cluster.tolist() == [0, 0, 0]


def predict(path: Path, right: list[int], ids: list[str]) -> Path:
    labels = ["yes" if place % 2 else "no" for place in range(len(ids))]
    answers = [label if one else {"yes": "no", "no": "yes"}[label] for label, one in zip(labels, right, strict=True)]
    write_predictions(path, ids, labels, answers)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Gains of 12 duplicates of two texts and of 2 other examples, losses of 1; and one that gains on others alone."""
    ids = [f"m{place}" for place in range(60)]
    base = [0] * 16 + [1] * 44
    model = [1] * 14 + [0] * 2 + [0] + [1] * 43
    other = [0] * 12 + [1] * 4 + [1] * 44
    cluster = [0] * 6 + [1] * 6 + [*range(2, 50)]
    KnownExamples(ids, ["near"] * 12 + [""] * 48, np.array(cluster), ["some text"] * 60).write(tmp_path / "known.tsv")
    gains = {"base": base, "model": model, "other": other}
    return {name: predict(tmp_path / f"{name}.tsv", right, ids) for name, right in gains.items()}


def test_a_comparison_without_duplicates_and_with_clusters(files: dict[str, Path], tmp_path: Path) -> None:
    found = evaluate(
        [files["model"], files["other"]], against=files["base"], examples=tmp_path / "known.tsv"
    ).comparisons
    gained = np.array([1] * 14 + [0] * 2 + [-1] + [0] * 43)
    clusters = np.array([0] * 6 + [1] * 6 + [*range(2, 50)])
    check = found[0].duplicates
    assert check is not None
    assert found[0].p == mcnemar_exact(14, 1) < 0.01
    assert (check.n, check.difference, check.p) == (48, 1 / 48, mcnemar_exact(2, 1))
    assert check.interval == paired_interval(gained[12:], 1, 0.95)
    assert (check.clusters, check.clusters_p) == (50, cluster_sign_flip_test(gained, clusters))
    assert check.clusters_interval == cluster_interval(gained, clusters)
    assert check.clusters_p > 0.05
    assert found[0].depends_on_duplicates
    assert not found[1].depends_on_duplicates  # four gains are not significant anywhere
    other = found[1].duplicates
    assert other is not None
    assert [check.p_holm, other.p_holm] == holm([check.p, other.p])
    assert [check.clusters_p_holm, other.clusters_p_holm] == holm([check.clusters_p, other.clusters_p])
    assert compare(files["model"], files["base"]).duplicates is None


def test_a_conclusion_depends_on_clusters_or_on_a_direction_alone(files: dict[str, Path], tmp_path: Path) -> None:
    found = compare(files["model"], files["base"], examples=tmp_path / "known.tsv")
    assert found.duplicates is not None
    alike = replace(found.duplicates, difference=found.difference, p_holm=0.01, clusters_p_holm=0.01)
    for check, depends in (
        (alike, False),
        (replace(alike, clusters_p_holm=0.2), True),
        (replace(alike, difference=-found.difference), True),
    ):
        assert replace(found, duplicates=check).depends_on_duplicates == depends


def test_the_report_says_it(files: dict[str, Path], tmp_path: Path) -> None:
    found = evaluate(files["model"], against=files["base"], examples=tmp_path / "known.tsv")
    text = " ".join(str(found).split())
    assert "12 of 60 examples have a duplicate or near-duplicate in train" in text
    assert "the conclusion depends on duplicates: significantly better (p = 0.00098), not significant (p = 1)" in text
    assert "without duplicates (48 examples), not significant (p = 0.25) with duplicates as clusters (50)." in text
    assert "model.tsv 100.00 12 93.75 48 +21.67" in text
    assert found.to_json().count('"depends_on_duplicates": true') == 1
    assert '"rest": 0.9375' in found.to_json()
    assert "Duplicates in train" not in str(evaluate(files["model"], against=files["base"]))


def test_all_examples_may_have_duplicates_in_train(files: dict[str, Path], tmp_path: Path) -> None:
    ids = [f"m{place}" for place in range(60)]
    KnownExamples(ids, ["exact"] * 60, np.zeros(60, int), [""] * 60).write(tmp_path / "all.tsv")
    found = evaluate(files["model"], against=files["base"], examples=tmp_path / "all.tsv")
    check = found.comparisons[0].duplicates
    assert check is not None
    assert (check.n, check.p, check.clusters_p) == (0, 1, 1)
    assert '"difference": null' in found.to_json()
    assert found.comparisons[0].depends_on_duplicates


def test_what_lies_beside_the_predictions_of_a_run_is_used(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    files["model"].rename(folder / "predictions-test.tsv")
    (tmp_path / "known.tsv").rename(folder / "examples-test.tsv")
    found = compare(folder / "predictions-test.tsv", files["base"]).duplicates
    assert found is not None
    assert found.n == 48


def test_an_example_that_is_not_known_has_no_duplicates(files: dict[str, Path], tmp_path: Path) -> None:
    KnownExamples(["m0", "m1", "zz"], ["near"] * 3, np.array([3, 3, 3]), [""] * 3).write(tmp_path / "few.tsv")
    check = compare(files["model"], files["base"], examples=tmp_path / "few.tsv").duplicates
    assert check is not None
    assert (check.n, check.clusters) == (58, 59)
    with pytest.raises(InputError, match="there is no such file"):
        compare(files["model"], files["base"], examples=tmp_path / "none.tsv")
