"""Every file that cannot be used is refused with the place, the value found and the way out."""

import errno
import math
import os
from pathlib import Path

import pytest

from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import ExitCode, InputError
from ftkit.results.predictions import read_predictions, write_predictions

HEADER = "id\tlabel\tprediction\tprobability:yes\n"

UNREADABLE = {
    "empty": ("", "{f}: the file is empty; fix: give a file with one row per example"),
    "only a byte order mark": ("\ufeff", "{f}: the file is empty; fix: give a file with one row per example"),
    "blank lines only": ("\n\r\n\n", "{f}: the file is empty; fix: give a file with one row per example"),
    "no header, and a score behind the answer": (
        "a\tyes\tyes\t0.3\nb\tno\tno\t0.1\n",
        "{f}:1: no header, and the last column holds no answers (got '0.3'); fix: put the answer last, or start with a "
        "header that names id, label, prediction and probability:CLASS",
    ),
    "no header, and no answers": (
        "1\tTrue\tcat\timages/1.jpg\n2\tFalse\tcat\timages/2.jpg\n",
        "{f}:1: no header, and the last column holds no answers (got 'images/1.jpg'); fix: put the answer last, or "
        "start with a header that names id, label, prediction and probability:CLASS",
    ),
    "header only": (HEADER, "{f}: the file has a header but no rows; fix: give one row per example"),
    "one column too few": (
        HEADER + "a\tyes\tno\t0.5\nb\tyes\tno\nc\tyes\tno\t0.5\t1\n",
        "{f}:3: expected 4 columns, found 3; fix: every row needs as many columns as the first line",
    ),
    "one column too many": (
        HEADER + "a\tyes\tno\t0.5\nb\tye\ts\tno\t0.5\n",
        "{f}:3: expected 4 columns, found 5; fix: every row needs as many columns as the first line",
    ),
    "columns moved between rows": (
        HEADER + "a\tyes\tno\t0.5\t1\nb\tyes\tno\n",
        "{f}:2: expected 4 columns, found 5; fix: every row needs as many columns as the first line",
    ),
    "blank lines count": (
        HEADER + "\n\na\tyes\tno\n",
        "{f}:4: expected 4 columns, found 3; fix: every row needs as many columns as the first line",
    ),
    "renamed header": (
        "id\tgold\tpred\na\tyes\tno\n",
        "{f}:1: header: no column named label or prediction (got 'id, gold, pred'); fix: name the columns id, label, "
        "prediction, or leave the header out and end each row with the answer",
    ),
    "one name missing": (
        "id\tlabel\tpred\na\tyes\tno\n",
        "{f}:1: header: no column named prediction (got 'id, label, pred'); fix: name the columns id, label, "
        "prediction, or leave the header out and end each row with the answer",
    ),
    "a name twice": (
        "id\tlabel\tlabel\tprediction\na\tyes\tno\tno\n",
        "{f}:1: two columns have the same name (got 'label')",
    ),
    "two scores": (
        "id\tlabel\tprediction\tprobability:yes\tlog_odds:yes\na\tyes\tno\t0.5\t0\n",
        "{f}:1: two score columns (got 'probability:yes, log_odds:yes')",
    ),
    "UTF-16": (
        HEADER.encode("utf-16"),
        "{f}: the file is UTF-16 (byte 0) (got b'\\xff\\xfe'); fix: save as UTF-8",
    ),
    "cp1252": (
        HEADER.encode() + b"a\tyes\tno\t0.5\ncaf\xe9\tyes\tno\t0.5\n",
        "{f}:3: not UTF-8 (byte 52) (got b'\\xe9'); fix: save as UTF-8, or convert it by `iconv -f latin1 -t utf-8`",
    ),
    "NUL": (
        HEADER + "a\tyes\tno\t0.5\nb\0\tyes\tno\t0.5\n",
        "{f}:3: a NUL byte (byte 50); fix: the file is damaged or UTF-16: save as UTF-8 text",
    ),
    "long row": (
        HEADER + "a\tyes\tno\t0.5\n" + "b" * 1_000_001 + "\tyes\tno\t0.5\n",
        "{f}:3: the row is longer than 1 MB; fix: is this a table of rows?",
    ),
    "endless row": (
        HEADER + "b" * 9_000_000,
        "{f}:2: the row is longer than 1 MB; fix: is this a table of rows?",
    ),
    "score NaN": (
        HEADER + "a\tyes\tno\tnan\n",
        "{f}:2: probability:yes: the score is not a probability in [0, 1] (got 'nan')",
    ),
    "score above 1": (
        HEADER + "a\tyes\tno\t1\nb\tyes\tno\t1.5\n",
        "{f}:3: probability:yes: the score is not a probability in [0, 1] (got '1.5')",
    ),
    "score below 0": (
        HEADER + "a\tyes\tno\t-0.1\n",
        "{f}:2: probability:yes: the score is not a probability in [0, 1] (got '-0.1')",
    ),
    "score empty": (
        HEADER + "a\tyes\tno\t0.5\nb\tyes\tno\t\n",
        "{f}:3: probability:yes: the score is not a probability in [0, 1] (got '')",
    ),
    "score with a comma": (
        HEADER + "a\tyes\tno\t0,5\n",
        "{f}:2: probability:yes: the score is not a probability in [0, 1] (got '0,5')",
    ),
    "two numbers in a cell": (
        HEADER + "a\tyes\tno\t0.5 0.5\nb\tyes\tno\t\n",
        "{f}:2: probability:yes: the score is not a probability in [0, 1] (got '0.5 0.5')",
    ),
    "log-odds NaN": (
        "id\tlabel\tprediction\tlog_odds:yes\na\tyes\tno\tNaN\n",
        "{f}:2: log_odds:yes: the score is not a number (got 'NaN')",
    ),
    "id twice": (
        HEADER + "a\tyes\tno\t0.5\nb\tyes\tno\t0.5\na\tno\tno\t0.5\n",
        "{f}:4: id: the id occurs twice, first in line 2 (got 'a'); fix: keep one row per example",
    ),
    "no header, no expected answer": (
        "a.jpg\tx\tyes\nb.jpg\ty\tno\n",
        "{f}:1: no header, and no column before the last one is True/False or yes/no throughout (got "
        "'a.jpg\\tx\\tyes'); fix: start the file with a header that names id, label and prediction",
    ),
}  # fmt: skip


def _refusal(path):
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    assert caught.value.exit_code == ExitCode.INPUT
    return str(caught.value)


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_tables(text_file, case):
    content, message = UNREADABLE[case]
    path = text_file(content)
    assert _refusal(path) == message.format(f=path)
    # The evaluator reads by other code, and says the same.
    with pytest.raises(InputError) as caught:
        evaluate([path])
    assert str(caught.value) == message.format(f=path)


JSON = {
    "not JSON": ('{"id": 1\n', "{f}:1: not JSON: Expecting ',' delimiter: line 1 column 9 (char 8)"),
    "a number of thousands of digits": (
        '{"id": 1, "label": "yes", "answer": ' + "1" * 5_000 + "}\n",
        "{f}:1: not JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use "
        "sys.set_int_max_str_digits() to increase the limit",
    ),
    "no object": ("[1]\n", '{f}:1: not a JSON object (got [1]); fix: write {{"id": ..., ...}}'),
    "missing key": (
        '{"id": 1, "label": "yes", "answer": "no"}\n\n{"id": 2, "label": "yes"}\n',
        "{f}:3: answer: missing; fix: give it in every object",
    ),
    "null id": (
        '{"id": null, "label": "yes", "answer": "no"}\n',
        "{f}:1: id: missing; fix: give it in every object",
    ),
    "half a surrogate pair": (
        '{"id": 1, "label": "yes", "answer": "\\ud800"}\n',
        "{f}:1: answer: not valid text: half of a surrogate pair (got '\\ud800')",
    ),
    "no answer": (
        '{"image": "a.jpg", "prefix": "", "suffix": "no"}\n',
        "{f}:1: header: no column named prediction (got 'image, prefix, suffix'); fix: name the columns id, label, "
        "prediction, or leave the header out and end each row with the answer",
    ),
    "a score from the second line on": (
        '{"id": 1, "label": "yes", "answer": "no"}\n{"id": 2, "label": "yes", "answer": "no", "log_odds:yes": 1}\n',
        "{f}:2: log_odds:yes: not in the first object; fix: give it in every object",
    ),
    "an id from the second line on": (
        '{"label": "yes", "answer": "no"}\n{"label": "yes", "answer": "no", "id": 2}\n',
        "{f}:2: id: not in the first object; fix: give it in every object",
    ),
    "two numbers in a score": (
        '{"id": 1, "label": "yes", "answer": "no", "log_odds:yes": "1\\t2"}\n',
        "{f}:1: log_odds:yes: the score is not a number (got '1\\t2')",
    ),
    "NaN score": (
        '{"id": 1, "label": "yes", "answer": "no", "probability:yes": NaN}\n',
        "{f}:1: probability:yes: the score is not a probability in [0, 1] (got 'NaN')",
    ),
}


@pytest.mark.parametrize("case", JSON)
def test_unreadable_json_lines(text_file, case):
    content, message = JSON[case]
    path = text_file(content, "a.jsonl")
    assert _refusal(path) == message.format(f=path)


CSV = {
    "open quote": ('id,label,prediction\na,yes,no\n"b,yes,no\n', "{f}:3: not readable as CSV: unexpected end of data"),
    "columns after a cell of two lines": (
        'id,label,prediction\n"a\nb",yes,no\nc,yes\n',
        "{f}:4: expected 3 columns, found 2; fix: every row needs as many columns as the first line",
    ),
    "two numbers in a score": (
        "id,label,prediction,log_odds:yes\na,yes,no,1\t2\n",
        "{f}:2: log_odds:yes: the score is not a number (got '1\\t2')",
    ),
    "lone CR": (
        'id,label,prediction\n"a",yes,n\ro\n',
        "{f}:3: expected 3 columns, found 1; fix: every row needs as many columns as the first line",
    ),
}


@pytest.mark.parametrize("case", CSV)
def test_unreadable_csv(text_file, case):
    content, message = CSV[case]
    path = text_file(content, "a.csv")
    assert _refusal(path).startswith(message.format(f=path))


LABELS = {
    "unknown label": (
        HEADER + "a\tyes\tno\t0.5\nb\tno\tno\t0.5\nc\t Yes\tno\t0.5\nd\tyes\tno\t0.5\ne\tno\tno\t0.5\n",
        {},
        "{f}:4: label: unknown label (got ' Yes'); fix: use no or yes, or give --normalize-labels to ignore how "
        "labels are spelled",
    ),
    "a label in another spelling, however frequent": (
        "id\tlabel\tprediction\n"
        + "".join(f"{k}\t{'no' if k == 7 else 'yes' if k % 2 else 'Yes'}\tno\n" for k in range(10)),
        {},
        "{f}:3: label: unknown label (got 'yes'); fix: use Yes or no, or give --normalize-labels to ignore how labels "
        "are spelled",
    ),
    "no usual positive": (
        "id\tlabel\tprediction\na\tcat\tcat\nb\tdog\tdog\n",
        {},
        "{f}: positive: which class is the positive one? (got 'cat, dog'); fix: give --positive cat or --positive dog",
    ),
    "no such positive": (
        "id\tlabel\tprediction\na\tcat\tcat\nb\tdog\tdog\n",
        {"positive": "bird"},
        "{f}: positive: no label is the positive class (got 'bird'); fix: use cat or dog",
    ),
    "score of another class": (
        "id\tlabel\tprediction\tprobability:bird\na\tyes\tno\t0.1\nb\tno\tno\t0.1\n",
        {"positive": "yes"},
        "{f}: probability:bird: the score's class is not one of the labels (got 'bird'); fix: name the column "
        "probability:yes",
    ),
    "no such slice": (
        "id\tlabel\tprediction\tsite\na\tyes\tno\tx\n",
        {"slice": "place"},
        "{f}: place: no such column to slice by; fix: use one of: site",
    ),
    "too many slices": (
        "id\tlabel\tprediction\tsite\n" + "".join(f"{k}\tyes\tno\t{k}\n" for k in range(51)),
        {"slice": "site"},
        "{f}: site: more than 50 different values to slice by; fix: slice by a column with few values",
    ),
    "too many labels for a positive class": (
        "id\tlabel\tprediction\n" + "".join(f"{k}\t{k}\tno\n" for k in range(51)),
        {"positive": "1"},
        "{f}: label: more than 50 different labels; fix: a yes/no evaluation needs two: is this the right column?",
    ),
    "too many labels for a score": (
        HEADER + "".join(f"{k}\t{k}\tno\t0.5\n" for k in range(51)),
        {},
        "{f}: label: more than 50 different labels; fix: a yes/no evaluation needs two: is this the right column?",
    ),
    "a slip of the pen among yes and no": (
        "id\tlabel\tprediction\n" + "".join(f"{k}\t{'maybe' if k == 7 else 'yes'}\tno\n" for k in range(10)),
        {},
        "{f}:9: label: unknown label (got 'maybe'); fix: use no or yes; a third class is one that comes at least twice "
        "and is answered, or has a score column",
    ),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_do_not_fit(text_file, case):
    content, options, message = LABELS[case]
    path = text_file(content)
    with pytest.raises(InputError) as caught:
        evaluate([path], **options)
    assert str(caught.value) == message.format(f=path)


def test_options_that_do_not_fit(count_file):
    path = count_file("a.tsv", 1, 1, 1, 1)
    for options, message in (
        ({"level": 95}, "level: must lie between 0 and 1 (got 95)"),
        ({"beta": 0}, "beta: must be positive and finite (got 0)"),
        ({"beta": math.nan}, "beta: must be positive and finite (got nan)"),
        ({"beta": math.inf}, "beta: must be positive and finite (got inf)"),
        ({"json": True, "markdown": True}, "choose one of --json and --markdown"),
        ({"seed": -1}, "seed: must be at least 0 (got -1)"),
        (
            {"save_threshold": path, "threshold_from": path},
            f"save_threshold: the ending tells a saved threshold from a validation file (got '{path}'); "
            "fix: name a file that ends in .json",
        ),
        ({"save_threshold": path}, "save_threshold: there is no threshold to save; fix: give --threshold_from as well"),
        ({"costs": (5, 1)}, "costs: there is no threshold to choose; fix: give --threshold_from as well"),
        (
            {"threshold_metric": "mcc"},
            "threshold_metric: there is no threshold to choose; fix: give --threshold_from as well",
        ),
        (
            {"threshold_metric": "mcc", "costs": (5, 1), "threshold_from": path},
            "choose one of --costs and --threshold_metric",
        ),
        (
            {"costs": (5, 1), "threshold_from": Path("t.json")},
            "costs: t.json is a threshold that was chosen before; fix: leave --costs out, or give --threshold_from a "
            "validation file",
        ),
        (
            {"threshold_metric": "balanced_accuracy", "threshold_from": Path("t.json")},
            "threshold_metric: t.json is a threshold that was chosen before; fix: leave --threshold_metric out, or "
            "give --threshold_from a validation file",
        ),
    ):
        with pytest.raises(InputError) as caught:
            evaluate([path], **options)
        assert str(caught.value) == message
    with pytest.raises(InputError, match="no prediction file given"):
        evaluate([])


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_a_file_that_cannot_be_read_is_bad_input(tmp_path, name, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text(HEADER)
    real = Path.open

    def forbidden(path, *args, **options):  # root may read everything, so the modes of the file would not do
        if path.parent.name == "mine":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    for path, why in (
        (tmp_path / name, "No such file or directory"),
        (tmp_path / "folder" / name, "Is a directory; fix: name a file in it"),
        (tmp_path / "mine" / name, "Permission denied"),
    ):
        with pytest.raises(InputError) as caught:
            evaluate([path])
        assert str(caught.value) == f"{path}: cannot be read: {why}"
        assert caught.value.exit_code == ExitCode.INPUT
        assert _refusal(path) == str(caught.value)


LISTS = {
    '[{"id": 1, "label": "yes"}, {"id": 2}]': r"p\.json:1: header: no column named prediction",
    '[{"id": 1, "label": "yes", "prediction": "no"}, 2]': r"p\.json: item 2 is not a JSON object \(got 2\)",
    '[{"id": 1, "label": "yes", "prediction": "no"}': r"p\.json:1: not JSON: the list does not go on \(item 2 of",
    '[{"id": 1, "label": "yes", "prediction": "no"}] 3': r"p\.json:1: not JSON: the list does not go on \(item 2 of",
    '[{"id": 1, "label": "yes", "prediction": "no"},]': r"p\.json:1: not JSON: Expecting value \(item 2 of the list\)",
    '[{"id": 1, "label": "yes", "prediction": }]': r"p\.json:1: not JSON: Expecting value \(item 1 of the list\)",
    "[]": r"p\.json: the file is empty",
}


@pytest.mark.parametrize("text", LISTS)
def test_a_json_list_that_cannot_be_used(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match=LISTS[text]):
        read_predictions(tmp_path / "p.json")


def test_labels_are_normalized_on_request(text_file):
    path = text_file("id\tlabel\tprediction\na\tyes\tYes.\nb\tno\t NO \nc\tYES\tno!\n")
    assert str(evaluate([path], normalize_labels=True).reports[0].counts) == "Tp=1 Tn=1 Fp=0 Fn=1"


@pytest.mark.parametrize(
    ("scores", "name", "message"),
    [
        ([0.5], "score", "score_name: the name must say the scores' kind and positive class (got 'score')"),
        ([0.5], None, "score_name: the name must say the scores' kind and positive class (got None)"),
        ([1.5], "probability:yes", "a.tsv:2: probability:yes: the score is not a probability in [0, 1] (got 1.5)"),
        ([float("nan")], "log_odds:yes", "a.tsv:2: log_odds:yes: the score is not a number (got nan)"),
    ],
)
def test_the_writer_refuses_scores_that_say_nothing(tmp_path, scores, name, message):
    with pytest.raises(InputError) as caught:
        write_predictions(tmp_path / "a.tsv", ["a"], ["yes"], ["no"], scores, name)
    assert message in str(caught.value)
    assert not (tmp_path / "a.tsv").exists()


def test_a_relative_path_that_leads_nowhere_says_where_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^a.tsv: cannot be read: .*; fix: relative paths .* {tmp_path}$"):
        evaluate([Path("a.tsv")])
    with pytest.raises(InputError, match=r"cannot be read: No such file or directory$"):
        evaluate([tmp_path / "a.tsv"])
