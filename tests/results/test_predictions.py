import gzip
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftkit.errors import InputError
from ftkit.results import table_files
from ftkit.results.prediction_file import ROW, SCORE, PredictionFile, identities
from ftkit.results.predictions import read_predictions, write_predictions

HEADER = "id\tlabel\tprediction\tprobability:yes\n"
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ROWS = st.lists(
    st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT, st.floats(0, 1), ANY_TEXT), min_size=1, max_size=8, unique_by=lambda r: r[0]
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_reading_gives_back_what_was_written(tmp_path, rows):
    ids, labels, predictions, scores, extra = (list(column) for column in zip(*rows, strict=True))
    write_predictions(tmp_path / "a.tsv", ids, labels, predictions, scores, "probability:yes", {"slice": extra})
    found = read_predictions(tmp_path / "a.tsv")
    assert (found.ids, found.labels, found.predictions, found.extra["slice"]) == (ids, labels, predictions, extra)
    assert found.scores.tolist() == scores
    assert found.score_name == "probability:yes"


@pytest.mark.parametrize(
    "cell",
    ["a\tb", "a\nb", "\r", "ends in\r", "\rstarts", 'json:"x"', 'json:"broken', '"quoted', "=1+1", "@x", "-1",
     "\u2028", "\x85", "\x0b\x0c", "", " blank ", "\ufeff", "\\t", "日本語"],
)  # fmt: skip
def test_odd_cells_survive_in_every_column(tmp_path, cell):
    write_predictions(tmp_path / "a.tsv", [cell], [cell], [cell], extra={"x": [cell]})
    found = read_predictions(tmp_path / "a.tsv")
    assert (found.ids, found.labels, found.predictions, found.extra) == ([cell], [cell], [cell], {"x": [cell]})


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_log_odds_keep_every_bit(tmp_path, scores):
    names = [str(k) for k in range(len(scores))]
    write_predictions(tmp_path / "a.tsv", names, names, names, scores, "log_odds:yes")
    found = read_predictions(tmp_path / "a.tsv").scores
    assert all(
        a == b and math.copysign(1, a) == math.copysign(1, b) for a, b in zip(found.tolist(), scores, strict=True)
    )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.tsv"
    write_predictions(path, ["a"], ["yes"], ["no"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="the id occurs twice"):
        write_predictions(path, ["a", "a"], ["yes", "no"], ["no", "no"])
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["a.tsv"]


def test_columns_of_different_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "a.tsv", ["a", "b"], ["yes", "no"], ["no"])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_make_no_difference(text_file, start, end, last):
    rows = ["id\tprobability:yes\tlabel\tprediction", "a\t0.25\tyes\tno", "b\t0.5\tno\tno"]
    found = read_predictions(text_file(start + end.join(rows) + (end if last else "")))
    assert (found.ids, found.labels, found.scores.tolist()) == (["a", "b"], ["yes", "no"], [0.25, 0.5])
    assert (found.predictions, found.score_name) == (["no", "no"], "probability:yes")
    assert found.columns == 'id = "id", label = "label", prediction = "prediction", score = "probability:yes"'


def test_order_of_columns_does_not_matter_and_others_are_kept(text_file):
    found = read_predictions(text_file("probability:yes\tsite\tprediction\tid\tlabel\n0.5\tx\tno\ta\tyes\n"))
    assert (found.ids, found.labels, found.predictions, found.extra) == (["a"], ["yes"], ["no"], {"site": ["x"]})
    assert found.columns == 'id = "id", label = "label", prediction = "prediction", score = "probability:yes"'


def test_quotes_have_the_same_meaning_in_tsv_as_in_csv(text_file):
    found = read_predictions(text_file('id\tlabel\tprediction\n"a"\tyes\t"say ""no""\t"\nb\tyes\t5" wide\n'))
    assert (found.ids, found.predictions) == (["a", "b"], ['say "no"\t', '5" wide'])


def test_pandas_reads_what_is_written(tmp_path):
    texts = ["007", "1.0", "NA", "None", "", 'a "b"', "two\nlines", "a\tb", "c\rd", "é"]
    write_predictions(tmp_path / "a.tsv", texts, texts, texts, extra={"more": texts})
    table = pd.read_csv(tmp_path / "a.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["id", "label", "prediction", "more"]
    assert all(table[name].tolist() == texts for name in table)


def test_what_no_text_file_holds_is_replaced(tmp_path):
    write_predictions(tmp_path / "a.tsv", ["a"], ["\0"], ["\ud800b"])
    found = read_predictions(tmp_path / "a.tsv")
    assert (found.labels, found.predictions) == (["\ufffd"], ["\ufffdb"])


def test_texts_that_look_like_something_else_stay_texts(tmp_path, text_file):
    texts = ["007", "1.0", "NA", "None", "nan", "true", "1e5", "-", "2024-01-01"]
    write_predictions(tmp_path / "a.tsv", texts, texts, texts)
    pd.DataFrame({"id": texts, "label": texts, "prediction": texts}).to_parquet(tmp_path / "a.parquet")
    lines = "".join(f"{json.dumps({'id': text, 'label': text, 'prediction': text})}\n" for text in texts)
    for path in (tmp_path / "a.tsv", tmp_path / "a.parquet", text_file(lines, "a.jsonl")):
        found = read_predictions(path)
        assert found.ids == found.labels == found.predictions == texts


def test_missing_is_not_empty_in_any_format(tmp_path, text_file):
    ids, labels, predictions = ["a", "b", "c"], ["yes", None, ""], [None, "", "no"]
    write_predictions(tmp_path / "a.tsv", ids, labels, predictions, extra={"site": ["", None, "x"]})
    columns = {"id": ids, "label": labels, "prediction": predictions, "site": ["", None, "x"]}
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    table = 'id,label,prediction,site\na,yes,,""\nb,,"",\nc,"",no,x\n'
    for path in (
        tmp_path / "a.tsv", tmp_path / "a.parquet", text_file(table, "a.csv"),
        text_file("".join(f"{json.dumps(row)}\n" for row in rows), "a.jsonl"),
    ):  # fmt: skip
        found = read_predictions(path)
        assert (found.labels, found.predictions, found.extra) == (labels, predictions, {"site": ["", None, "x"]})
        assert found.correct.tolist() == [False, False, False]


def test_parquet_of_any_types(tmp_path):
    frame = pd.DataFrame({
        "id": [3, 7], "label": pd.Categorical(["yes", "no"]), "prediction": [1.0, None], "flag": [True, False],
        "tags": [["a"], []], "log_odds:yes": [0.1, -np.inf],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "a.bin")
    found = read_predictions(tmp_path / "a.bin")
    assert (found.ids, found.labels, found.predictions) == (["3", "7"], ["yes", "no"], ["1.0", None])
    assert (found.scores.tolist(), found.score_name) == ([0.1, -np.inf], "log_odds:yes")
    assert found.extra == {"flag": ["True", "False"], "tags": ['["a"]', "[]"]}


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.jsonl.gz"])
def test_gzipped_text_is_read(tmp_path, name):
    row = (
        '{"id": "a", "label": "yes", "prediction": "no"}\n' if "json" in name else "id\tlabel\tprediction\na\tyes\tno\n"
    )
    (tmp_path / name).write_bytes(gzip.compress(row.encode()))
    assert read_predictions(tmp_path / name).predictions == ["no"]
    (tmp_path / name).write_bytes(gzip.compress(row.encode() * 9)[:-12])
    with pytest.raises(InputError, match=f"{name}: cannot be read: "):
        read_predictions(tmp_path / name)


def test_rows_that_an_open_quote_would_swallow_are_refused(text_file):
    """Arrow reads on behind the closing quote, and pandas too: two rows would become one without a word."""
    path = text_file('id\tlabel\tprediction\na\tyes\t"no\nb\tno\t"yes\n')
    with pytest.raises(InputError, match=r"a.tsv:2: not readable as CSV: '\t' expected after '\"'"):
        read_predictions(path)


def test_a_quote_that_is_still_open_at_the_end_of_a_long_file_is_refused(text_file):
    rows = "".join(f"{k}\tyes\tno\n" for k in range(3000))
    with pytest.raises(InputError, match=r"a.tsv:3002: not readable as CSV: unexpected end of data"):
        read_predictions(text_file(f'id\tlabel\tprediction\n{rows}x\tyes\t"no\n'))
    assert read_predictions(text_file(f'id\tlabel\tprediction\n{rows}x\tyes\t5"\n')).predictions[-1] == '5"'


def test_csv_with_quoted_cells(text_file):
    text = 'id,label,prediction,comment\n"a,1",yes,"no","two\nlines, ""quoted"""\nb,no,no,\n'
    found = read_predictions(text_file(text, "a.csv"))
    assert (found.ids, found.labels) == (["a,1", "b"], ["yes", "no"])
    assert found.extra["comment"] == ['two\nlines, "quoted"', None]


def test_csv_without_quotes_and_without_ending(text_file):
    assert read_predictions(text_file("id,label,prediction\na,yes,no\n", "scores")).predictions == ["no"]


def test_json_lines_of_an_image_question(text_file):
    records = [
        {"prefix": "", "suffix": "no", "image": "images/NG_101.jpg", "answer": "yes"},
        {"image": "images/OK_102.jpg", "suffix": "yes", "answer": "I cannot\nsay", "reason": "blank", "prefix": "q"},
    ]
    found = read_predictions(text_file("\n".join(map(json.dumps, records)) + "\n", "a.jsonl"))
    assert (found.ids, found.labels) == (["images/NG_101.jpg", "images/OK_102.jpg"], ["no", "yes"])
    assert found.predictions == ["yes", "I cannot\nsay"]
    assert found.columns == 'id = "image", label = "suffix", prediction = "answer"'


@pytest.mark.parametrize(
    "cells",
    [["two\nlines", "b"], ["a\tb", "b"], ['json:"x"', "b"], ["\\", "b"], [" ", ""]],
)
def test_a_text_is_the_same_in_every_format(text_file, tmp_path, cells):
    """Hashes are what files are compared by."""
    write_predictions(tmp_path / "a.tsv", ["1", "2"], cells, cells)
    rows = [{"id": str(k), "label": cell, "prediction": cell} for k, cell in enumerate(cells, 1)]
    lines = text_file("".join(f"{json.dumps(row)}\n" for row in rows), "a.jsonl")
    quoted = "".join(f'{k},"{cell}","{cell}"\n' for k, cell in enumerate(cells, 1)).replace('json:"x"', 'json:""x""')
    table = text_file("id,label,prediction\n" + quoted, "a.csv")
    bare = text_file("id,label,prediction\n" + quoted.replace('"', ""), "b.csv")
    files = [tmp_path / "a.tsv", lines, table] + ([bare] if cells[0] in ("a\tb", "\\") else [])
    for path in files:
        (batch,) = PredictionFile(path).batches(labeled=False)
        (other,) = PredictionFile(tmp_path / "a.tsv").batches(labeled=False)
        assert batch["label"].to_pylist() == cells
        assert identities(batch["label"]).tolist() == identities(other["label"]).tolist(), path
        assert identities(batch["id"]).tolist() == identities(other["id"]).tolist()


def test_a_cell_of_a_csv_may_be_as_long_as_in_a_tsv(text_file):
    long = "x" * 200_000
    path = text_file(f'id,label,prediction\n1,"a, b",{long}\n', "a.csv")
    assert read_predictions(path).predictions == [long]


def test_predictions_are_not_written_under_the_name_of_another_format(tmp_path):
    for name in ("a.csv", "a.JSONL"):
        with pytest.raises(InputError, match="predictions are written as TSV"):
            write_predictions(tmp_path / name, ["a"], ["yes"], ["no"])
    assert not list(tmp_path.iterdir())


def test_json_lines_may_have_other_keys_now_and_then(text_file):
    first, second = ({"id": k, "label": "yes", "prediction": "no"} for k in (1, 2))
    lines = "\n".join(map(json.dumps, [first, {**second, "error": "timeout", "image": "a.jpg"}]))
    assert read_predictions(text_file(lines, "a.jsonl")).ids == ["1", "2"]


def test_json_lines_with_scores(text_file):
    line = '{"id": 7, "label": "yes", "prediction": "no", "log_odds:yes": -1.5}\n'
    found = read_predictions(text_file(line, "a.txt"))
    assert (found.ids, found.scores.tolist(), found.score_name) == (["7"], [-1.5], "log_odds:yes")


# Each case: the rows, how their columns are said to be read, and the expected answers.
HEADERLESS = {
    "the moderation record": (
        "1\tTrue\tcat\timages/1.jpg\tyes\n2\tTrue\tcat\timages/2.jpg\tno\n3\tFalse\tdog\timages/1.jpg\tno\n",
        "id = column 1, label = column 2 (True: yes, False: no), prediction = column 5 (the last), image = column 4",
        ["yes", "yes", "no"],
    ),
    "with an address": (
        "7\tFALSE\thttps://a.b/1.jpg\tcat\timages/1.jpg\tno\n8\tTRUE\thttps://a.b/1.jpg\tdog\timages/2.jpg\tno\n",
        "id = column 1, label = column 2 (True: yes, False: no), prediction = column 6 (the last), image = column 5",
        ["no", "yes"],
    ),
    "free answers first, and an example that nobody has judged": (
        "1\t\tcat\timages/1.jpg\tI see a cat\n2\tfalse\tcat\timages/2.jpg\tI cannot say\n3\ttrue\ta\tb.gif\tyes\n",
        "id = column 1, label = column 2 (True: yes, False: no), prediction = column 5 (the last), image = column 4",
        [None, "no", "yes"],
    ),
    "answers in capitals": (
        "is it?\tads/a.jpg\tFalse\tYes\nis it?\tads/b.jpg\tTrue\tYes\n",
        "id = column 2, label = column 3 (True: Yes, False: No), prediction = column 4 (the last)",
        ["No", "Yes"],
    ),
    "answers in another language": (
        "1\tTrue\tnon\n2\tFalse\tOui\n3\tFalse\tNon\n",
        "id = column 1, label = column 2 (True: Oui, False: non), prediction = column 3 (the last)",
        ["Oui", "non", "non"],
    ),
    "answers of the same words": (
        "1\tTrue\ttrue\n2\tFalse\ttrue\n",
        "id = column 1, label = column 2 (True: true, False: false), prediction = column 3 (the last)",
        ["true", "false"],
    ),
    "yes and no instead of True and False": (
        "a.jpg\tno\tyes\nb.jpg\tyes\tyes\n",
        "id = column 1, label = column 2, prediction = column 3 (the last)",
        ["no", "yes"],
    ),
    "both": (
        "images/a.jpg\tno\tFalse\tyes\nimages/b.jpg\tyes\tTrue\tyes\n",
        "id = column 1, label = column 3 (True: yes, False: no), prediction = column 4 (the last), column 2 agrees",
        ["no", "yes"],
    ),
    "no ids": (
        "True\tyes\nFalse\tyes\nFalse\tno\nFalse\tno\n",
        "id = the example's number, label = column 1 (True: yes, False: no), prediction = column 2 (the last)",
        ["yes", "no", "no", "no"],
    ),
    "no ids but categories": (
        "True\tcat\tyes\nFalse\tcat\tyes\nFalse\tcat\tno\n",
        "id = the example's number, label = column 1 (True: yes, False: no), prediction = column 3 (the last)",
        ["yes", "no", "no"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERLESS)
def test_tables_without_a_header_end_in_the_answer(text_file, case):
    text, columns, labels = HEADERLESS[case]
    found = read_predictions(text_file(text))
    assert found.columns == columns
    assert found.labels == labels
    assert len(set(found.ids)) == len(labels)


def test_any_line_of_a_table_without_a_header_may_come_first(text_file):
    rows = [
        "1\tTrue\tcat\timages/1.jpg\tyes\n",
        "2\tFalse\tdog\timages/2.jpg\tI cannot say\n",
        "3\t\tx\t3.jpg\tsorry\n",
    ]
    read = [read_predictions(text_file("".join(rows[k:] + rows[:k]))) for k in range(3)]
    assert {one.columns for one in read} == {read[0].columns}
    assert [one.ids[0] for one in read] == ["1", "2", "3"]


def test_an_id_that_comes_twice_in_a_table_without_a_header_is_refused(text_file):
    """The images differ, so that they could be taken for ids instead."""
    rows = [f"{k}\tTrue\tcat\timages/{k}.jpg\tyes\n" for k in range(4)]
    with pytest.raises(InputError, match=r"a.tsv:5: id: the id occurs twice, first in line 3 \(got '2'\)"):
        read_predictions(text_file("".join(rows) + rows[2].replace("images/2", "images/4")))


@pytest.mark.parametrize("before", [1, 2000])  # the columns are found from the first rows, the check is of all
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("True\tno\tyes", "two expected answers: column 1 says True and column 2 says no; fix: correct the row"),
        ("False\tyes\tno", "two expected answers: column 1 says False and column 2 says yes; fix: correct the row"),
        ("maybe\tno\tyes", "column 1: this is no expected answer (got 'maybe'); fix: write True or False, yes or no"),
    ],
)
def test_expected_answers_that_contradict_each_other_are_refused(text_file, row, problem, before):
    """Whatever a second such column means, such as whether the answer is right, it is not read as this one."""
    good = "True\tyes\tyes\nFalse\tno\tyes\nFALSE\tno\tsorry\nTrue\tYes\tYes.\n\t\tyes\n" * before
    path = text_file(good + row + "\n" + good)
    if row.startswith("maybe") and before == 1:
        good += "True\tyes\tyes\n" * 2000
        path = text_file(good + row + "\n")
    line = good.count("\n") + 1
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}:{line}: {problem}")


def test_blocks_join_to_the_same_rows_whatever_their_size(text_file, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [f"id-{k}é\t{'yes' if k % 3 else 'no'}\tno\t{rng.random()!r}\n" for k in range(400)]
    path = text_file(HEADER + "".join(rows) + "\n\n")
    whole = read_predictions(path)
    for size in (64, 65, 97, 1000):
        monkeypatch.setattr(table_files, "BLOCK_BYTES", size)
        parts = list(PredictionFile(path).batches())
        assert len(parts) > 5
        assert [text for part in parts for text in part["id"].to_pylist()] == whole.ids
        assert np.concatenate([part[ROW] for part in parts]).tolist() == list(range(2, 402))
        assert np.concatenate([part[SCORE] for part in parts]).tolist() == whole.scores.tolist()


def test_places_count_from_the_start_of_the_file(text_file, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 64)
    good = HEADER + "".join(f"{k}\tyes\tno\t0.5\n" for k in range(100, 120))
    for start in ("", "\ufeff"):
        place = len((start + good).encode()) + 1
        for bad, message in ((b"b\xe9", f":22: not UTF-8 (byte {place})"), (b"b\0", f":22: a NUL byte (byte {place})")):
            with pytest.raises(ValueError, match=re.escape(message)):
                read_predictions(text_file((start + good).encode() + bad + b"\tyes\tno\t0.5\n"))
        with pytest.raises(ValueError, match=re.escape(":22: expected 4 columns, found 2")):
            read_predictions(text_file(start + good + "b\tyes\n"))


def test_a_score_column_without_kind_is_noted_not_used(text_file):
    file = PredictionFile(text_file("id\tlabel\tprediction\tscore\na\tyes\tno\t0.2\n"))
    assert SCORE not in next(file.batches()).column_names
    assert file.layout.notes == [
        'column "score" is not used as a score: its name does not say the kind and the positive class (rename it to '
        "probability:CLASS or log_odds:CLASS)"
    ]


PROBABILITIES = [f"probability:{name}" for name in ("bad", "so: so", "good")]


@pytest.mark.parametrize("size", [160, table_files.BLOCK_BYTES])
@pytest.mark.parametrize("kind", [np.float32, np.float64, list])
def test_probabilities_of_several_classes_are_written_and_read(tmp_path, monkeypatch, size, kind):
    monkeypatch.setattr(table_files, "BLOCK_BYTES", size)
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    scores = scores.astype(kind) if kind is not list else scores.tolist()
    ids, sites = [str(k) for k in range(20)], ["x"] * 20
    write_predictions(tmp_path / "a.tsv", ids, ["bad"] * 20, ["good"] * 20, scores, PROBABILITIES, {"site": sites})
    head = (tmp_path / "a.tsv").read_text().splitlines()[0]
    assert head == "id\tlabel\tprediction\tprobability:bad\tprobability:so: so\tprobability:good\tsite"
    found = read_predictions(tmp_path / "a.tsv")
    assert found.scores.dtype == np.float64
    assert found.scores.tolist() == np.asarray(scores).astype(float).tolist()
    assert (found.score_names, found.score_name, found.extra) == (tuple(PROBABILITIES), None, {"site": sites})
    assert found.columns.endswith('scores = "probability:bad", "probability:so: so", "probability:good"')


def test_probabilities_of_several_classes_are_read_in_every_format(tmp_path, text_file):
    frame = pd.DataFrame({"probability:c": [0.5, 0.125], "label": ["a", "b"], "prediction": ["c", "c"]})
    frame["probability:a"], frame["probability:b"] = [0.25, 0.75], [0.25, 0.125]
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for path in (tmp_path / "a.parquet", tmp_path / "a.csv", tmp_path / "a.jsonl"):
        found = read_predictions(path)
        assert found.score_names == ("probability:c", "probability:a", "probability:b")
        assert found.scores.tolist() == [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0.5, 0.5, 0.002), ":3: the probabilities do not sum to 1 (got 1.002)"),
        ((0.5, 0.25, 0.248), ":3: the probabilities do not sum to 1 (got 0.998)"),
        ((1.5, -0.25, -0.25), ":3: probability:bad: the score is not a probability in [0, 1] (got "),
        ((0.5, 0.5, float("nan")), ":3: probability:good: the score is not a probability in [0, 1] (got "),
    ],
)
def test_probabilities_of_several_classes_that_are_none_are_refused(tmp_path, row, message):
    rows = [(0.5, 0.4995, 0.001), row]
    frame = pd.DataFrame(rows, columns=PROBABILITIES).assign(id=["a", "b"], label="bad", prediction="good")
    frame.to_csv(tmp_path / "read.tsv", sep="\t", index=False, na_rep="nan")
    with pytest.raises(InputError) as read:
        read_predictions(tmp_path / "read.tsv")
    with pytest.raises(InputError) as written:
        write_predictions(tmp_path / "w.tsv", ["a", "b"], ["bad"] * 2, ["bad"] * 2, rows, PROBABILITIES)
    assert f"read.tsv{message}" in str(read.value)
    assert f"w.tsv{message}" in str(written.value)
    assert not (tmp_path / "w.tsv").exists()


def test_several_scores_that_do_not_go_together_are_refused(tmp_path):
    odds = ["log_odds:a", "probability:b", "probability:c"]
    for names, row, message in (
        (odds, (0.1, 0.5, 0.5), "several score columns, not all of them probabilities (got 'log_odds:a, prob"),
        (PROBABILITIES[:2], (0.5, 0.5), "two score columns (got 'probability:bad, probability:so: so')"),
        (["probability:a", "b", "probability:c"], (0, 0, 1), "kind and positive class (got 'b')"),
        ([], (), "kind and positive class (got [])"),
    ):
        with pytest.raises(InputError) as caught:
            write_predictions(tmp_path / "a.tsv", ["a"], ["b"], ["c"], [row], names)
        assert message in str(caught.value)
    for row in ((0.5, 0.5), (0.5, 0.25, 0.25, 0)):
        with pytest.raises(ValueError, match="zip"):
            write_predictions(tmp_path / "a.tsv", ["a"], ["b"], ["c"], [row], PROBABILITIES)
    with pytest.raises(ValueError, match="zip"):
        write_predictions(tmp_path / "a.tsv", ["a", "b"], ["b"] * 2, ["c"] * 2, [(0, 1, 0)], PROBABILITIES)
    assert not (tmp_path / "a.tsv").exists()
