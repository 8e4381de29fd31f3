"""What a model answers otherwise than another, example by example: as rows, as a file, on a page."""

import base64
import io
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ftkit.cli import main
from ftkit.report.evaluate import evaluate
from ftkit.report.page import to_html
from ftkit.results.changes import Changes, by_group
from ftkit.results.known_examples import KnownExamples
from ftkit.results.predictions import write_predictions
from page_reader import Page


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of 300 examples in different orders, the second without 20 of them and with one without a label."""
    rng, n = np.random.default_rng(2), 300
    ids = [f"m{place}" for place in range(n)]
    labels = rng.choice(["no", "yes", "maybe"], n).tolist()
    topic = [f"topic {place % 4}" for place in range(n)]
    note = [f"note\t{place}" for place in range(n)]
    for name, seed in (("after", 3), ("before", 4)):
        draw = np.random.default_rng(seed)
        answers = np.where(draw.random(n) < 0.8, labels, draw.choice(["no", "yes", "maybe"], n)).tolist()
        order = draw.permutation(n)[20 if name == "before" else 0 :]
        columns = [[column[place] for place in order] for column in (ids, labels, answers, topic, note)]
        if name == "after":
            columns[1][7] = None
        write_predictions(tmp_path / f"{name}.tsv", *columns[:3], extra={"topic": columns[3], "note": columns[4]})
    KnownExamples(ids, [""] * n, np.arange(n), [f"text of\n{one}" for one in ids]).write(tmp_path / "known.tsv")
    return tmp_path / "after.tsv", tmp_path / "before.tsv"


def slow(after: Path, before: Path) -> dict[str, str]:
    frames = [pd.read_csv(path, sep="\t", dtype=str).dropna(subset="label") for path in (after, before)]
    both = frames[0].merge(frames[1], on="id", suffixes=("", "_before"))
    right, was = both["prediction"] == both["label"], both["prediction_before"] == both["label"]
    words = np.where(right & ~was, "wrong to right", "right to wrong")
    return dict(zip(both["id"][right != was], words[right != was], strict=True))


def test_the_file_has_every_change(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(pair[0]), "--against", str(pair[1]), "--examples", str(tmp_path / "known.tsv")]
    assert main([*arguments, "--changes", str(tmp_path / "changes.tsv")]) == 0
    frame = pd.read_csv(tmp_path / "changes.tsv", sep="\t", dtype=str)
    assert list(frame) == ["file", "id", "change", "label", "before", "after", "topic", "note", "text"]
    assert dict(zip(frame["id"], frame["change"], strict=True)) == slow(*pair)
    assert len(frame) == len(set(frame["id"])) > 50
    assert frame["change"].tolist() == sorted(frame["change"])
    one = frame.iloc[0]
    source = pd.read_csv(pair[0], sep="\t", dtype=str).set_index("id").loc[one["id"]]
    assert (one["label"], one["after"], one["topic"]) == (source["label"], source["prediction"], source["topic"])
    assert one["before"] == pd.read_csv(pair[1], sep="\t", dtype=str).set_index("id")["prediction"][one["id"]]
    assert one["text"] == f"text of\n{one['id']}"
    assert main(["evaluate", str(pair[0]), "--changes", str(tmp_path / "no.tsv")]) == 2
    assert "give --against as well" in capsys.readouterr().err
    assert not (tmp_path / "no.tsv").exists()


def test_the_page_shows_them_by_slice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate(pair[0], against=pair[1], examples=tmp_path / "known.tsv")
    html = to_html(found.document(figures=True))
    page, changed = Page(html), slow(*pair)
    assert html.count(">right to wrong<") - 1 == sum(word == "right to wrong" for word in changed.values())
    assert all(f"text of {one}" in page.words for one in changed)
    assert "Changes by label and slice" in page.words
    assert "What changed" not in str(found)
    frame = pd.read_csv(pair[0], sep="\t", dtype=str).set_index("id")
    expected = {
        (column, value): [
            sum(frame[column][one] == value and word == way for one, word in changed.items())
            for way in ("right to wrong", "wrong to right")
        ]
        for column in ("label", "topic")
        for value in frame[column].dropna().unique()
    }
    groups = {(name, value): [lost, gained] for name, value, lost, gained in by_group(found.changes[0].rows())}
    assert groups == {key: counts for key, counts in expected.items() if any(counts)}  # each note comes once


def test_all_changes_are_counted_however_few_are_shown(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[list[tuple[str, str, int, int]]] = []
    monkeypatch.setattr("ftkit.report.changes._ON_PAGE", 10)
    monkeypatch.setattr("ftkit.report.changes.by_group", lambda rows: counted.append(by_group(rows)) or counted[-1])
    page = Page(to_html(evaluate(pair[0], against=pair[1]).document(figures=True)))
    assert "10 of" in page.words
    change = slow(*pair)
    labels = pd.read_csv(pair[0], sep="\t", dtype=str).set_index("id")["label"]
    expected = Counter((labels[one], change[one]) for one in change)
    assert [group for group in counted[0] if group[0] == "label"] == [
        ("label", label, expected[label, "right to wrong"], expected[label, "wrong to right"])
        for label in ("maybe", "no", "yes")
    ]
    monkeypatch.setattr("ftkit.report.changes._COUNTED", 10)
    page = Page(to_html(evaluate(pair[0], against=pair[1]).document(figures=True)))
    assert "What changed" in page.words
    assert "Changes by label" not in page.words


def test_a_limit_takes_both_directions(pair: tuple[Path, Path]) -> None:
    changes = evaluate(pair[0], against=pair[1]).changes[0]
    whole = changes.rows()
    lost = sum(row["change"] == "right to wrong" for row in whole)
    assert 10 < lost < len(whole) - 10
    for limit, expected in ((10, (5, 5)), (len(whole) - 1, (len(whole) // 2, None)), (1_000, (lost, None))):
        words = [row["change"] for row in changes.rows(limit)]
        assert len(words) == min(limit, len(whole))
        if expected[1] is not None or limit >= len(whole):
            assert words.count("right to wrong") == expected[0]
    assert "text" not in whole[0]


def test_an_image_is_shown_as_a_thumbnail(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.effect_noise((400, 200), 50).save(tmp_path / "a.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    image.new("RGB", (10_000, 6_000)).save(tmp_path / "large.png")
    os.mkfifo(tmp_path / "pipe.png")
    shown = [
        "a.png",
        str(tmp_path / "a.png"),
        "damaged.png",
        "large.png",
        "pipe.png",
        "gone.png",
        "https://a.b/c.png",
        None,
    ]
    ids = [f"m{place}" for place in range(len(shown))]
    for name, answer in (("before", "no"), ("after", "yes")):
        write_predictions(tmp_path / f"{name}.tsv", ids, ["yes"] * 8, [answer] * 8, extra={"image": shown})
    found = evaluate(tmp_path / "after.tsv", against=tmp_path / "before.tsv")
    rows = found.changes[0].rows()
    assert [row["image"] for row in rows[:3]] == shown[:3]
    html = to_html(found.document(figures=True))
    small = re.findall('<img src="data:image/jpeg;base64,([^"]+)"', html)
    assert [image.open(io.BytesIO(base64.b64decode(one))).size for one in small] == [(120, 60)] * 2
    assert "<td>a.png</td>" in html
    assert "image: gone.png" in Page(html).words
    assert {group[0] for group in by_group(rows)} == {"label"}


def test_no_changes_leave_no_section(pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.tsv"
    copy.write_bytes(pair[0].read_bytes())
    found = evaluate(pair[0], against=copy)
    assert found.changes[0].rows() == []
    assert "What changed" not in to_html(found.document(figures=True))


def test_a_tie_of_a_pair_is_half_a_change(tmp_path: Path) -> None:
    ids, labels = list("abcd"), ["chosen"] * 4
    write_predictions(tmp_path / "a.tsv", ids, labels, ["chosen", "tie", "rejected", "tie"])
    write_predictions(tmp_path / "b.tsv", ids, labels, ["tie", "chosen", "chosen", "tie"])
    rows = evaluate(tmp_path / "a.tsv", against=tmp_path / "b.tsv").changes[0].rows()
    assert {row["id"]: row["change"] for row in rows} == {"a": "better", "b": "worse", "c": "right to wrong"}
    assert isinstance(evaluate(tmp_path / "a.tsv", against=tmp_path / "b.tsv").changes[0], Changes)
