import hashlib
from pathlib import Path

import pandas as pd
import pytest
from real_messages import SMS_FILE, needs_messages

from ftkit.classifier.labels import class_names, codes_of
from ftkit.classifier.messages import Quoting, content_sha256, read_messages
from ftkit.classifier.records import Messages, messages_of
from ftkit.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "sms.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(path: Path, quoting: Quoting = "literal") -> Messages:
    return messages_of(read_messages(path, quoting))


def rows(messages):
    return list(zip(messages.labels, messages.texts, strict=True))


def labelled(path, labels=("ham", "spam"), normalize_labels=False, **options) -> list[str]:
    """The class of each message, as the data module takes it."""
    messages = read(path, **options)
    names = class_names(messages, labels, normalize_labels)
    return [names[code] for code in codes_of(messages, names, normalize_labels, training=True)]


def problem(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        labelled(path, **options)
    return str(caught.value).removeprefix(str(path))


# The two readings


def test_literal_keeps_quotes_and_published_joins_lines(write):
    path = write('ham\t"Ok lar\nspam\tWIN"\nham\tsaid "hi" to\nspam\t"a ""b"" c" d\n')
    assert rows(read(path)) == [
        ("ham", '"Ok lar'),
        ("spam", 'WIN"'),
        ("ham", 'said "hi" to'),
        ("spam", '"a ""b"" c" d'),
    ]
    assert rows(read(path, "published")) == [
        ("ham", "Ok lar\nspam\tWIN"),
        ("ham", 'said "hi" to'),
        ("spam", 'a "b" c d'),
    ]


@pytest.mark.parametrize(
    "content",
    [
        'ham\t"Ok lar\nspam\tWIN"\nham\tsaid "hi" to\nspam\t"a ""b"" c" d\n',
        "ham\tone\n\nspam\ttwo\n\n",
        "ham\tone\r\nspam\ttwo",
        "\ufeffham\tone\nspam\t  two  \n",
        "spam\t\"\"\nham\t'x'\nham\tU+2028\u2028 and \x85 and \x0b stay\n",
        'spam\t"tab\tin quotes"\nham\tb"c"\n',
    ],
)
def test_published_reads_what_pandas_reads(write, content):
    path = write(content)
    frame = pd.read_csv(path, sep="\t", header=None, keep_default_na=False)
    assert rows(read(path, "published")) == list(frame.itertuples(index=False, name=None))


@needs_messages
def test_real_file_in_both_readings():
    literal, published = read(SMS_FILE), read(SMS_FILE, "published")
    assert (len(literal), literal.labels.count("ham"), literal.labels.count("spam")) == (5574, 4827, 747)
    assert (len(published), published.labels.count("ham"), published.labels.count("spam")) == (
        5572,
        4825,
        747,
    )
    frame = pd.read_csv(SMS_FILE, sep="\t", header=None, keep_default_na=False)
    assert rows(published) == list(frame.itertuples(index=False, name=None))
    assert content_sha256(SMS_FILE) == hashlib.sha256(SMS_FILE.read_bytes()).hexdigest()
    lines = SMS_FILE.read_text(encoding="utf-8").split("\n")
    assert lines[41] == f"{literal.labels[41]}\t{literal.texts[41]}"
    assert literal.ids[41] == "r00042"


# Faithful to the bytes


def test_line_ends_and_byte_order_mark_change_nothing(write):
    plain = write("ham\tone\nspam\ttwo\n", "a.tsv")
    for name, content in (("b.tsv", "ham\tone\r\nspam\ttwo\r\n"), ("c.tsv", "\ufeffham\tone\nspam\ttwo\n")):
        assert read(write(content, name)) == read(plain)
    assert read(write("ham\tone\nspam\ttwo", "d.tsv")).texts == ["one", "two"]
    same = [content_sha256(plain.with_name(name)) for name in ("a.tsv", "b.tsv", "c.tsv")]
    assert len({*same}) == 1
    assert content_sha256(write("ham\tone!\nspam\ttwo\n", "e.tsv")) != same[0]


def test_what_splitlines_would_split_stays_in_the_text(write):
    text = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g"
    assert read(write(f"ham\t{text}\nspam\t{text}\n")).texts == [text, text]


def test_later_tabs_belong_to_the_text(write):
    assert read(write("ham\ta\tb\nspam\tc\n")).texts == ["a\tb", "c"]


@pytest.mark.parametrize("start", list("=+-@"))
def test_cells_that_look_like_formulas_stay_as_they_are(write, start):
    assert read(write(f"ham\t{start}1+1\nspam\tx\n")).texts[0] == f"{start}1+1"


def test_empty_text_is_a_message(write):
    assert read(write("ham\t\nspam\t  \n")).texts == ["", "  "]


# Headers and columns


def test_header_names_columns_in_any_order(write):
    expected = [("ham", "one"), ("spam", "two")]
    assert rows(read(write("label\ttext\nham\tone\nspam\ttwo\n"))) == expected
    assert rows(read(write("text\tlabel\none\tham\ntwo\tspam\n"))) == expected
    messages = read(write("Sentence\tCategory\none\tham\ntwo\tspam\n"))
    assert rows(messages) == expected
    assert messages.ids == ["r00001", "r00002"]


def test_message_whose_text_is_a_column_name_is_no_header(write):
    assert rows(read(write("ham\ttext\nspam\tlabel\n"))) == [("ham", "text"), ("spam", "label")]


def test_own_labels(write):
    path = write("no\tone\nyes\ttwo\n")
    assert labelled(path, labels=("no", "yes")) == ["no", "yes"]
    told = ":1: labels: the option names 'ham' or 'spam', and the data have 'no' or 'yes' (got 'no'); fix: name the"
    assert problem(path).startswith(told)


def test_normalized_labels(write):
    path = write("HAM\tone\n Spam \ttwo\nham.\tthree\n\uff33pam\tfour\n")
    assert labelled(path, normalize_labels=True) == ["ham", "spam", "ham", "spam"]
    assert problem(path).endswith("use 'ham' or 'spam', or set normalize_labels: true")
    assert problem(write("ham\tone\n Spam\ttwo\n")).startswith(":2: label: unknown label (got ' Spam')")
    numbers = write("0.0\tone\n1.0\ttwo\n")
    assert labelled(numbers, labels=("0", "1"), normalize_labels=True) == ["0", "1"]


# What is refused, with the place


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("", ": is empty"),
        ("\ufeff\r\n \n", ": is empty"),
        ("label\ttext\n", ": holds a header and no message"),
        ("ham\tone\nham\ttwo\n", ": only one class: all 2 messages are labelled 'ham'"),
        ("ham\tone\nspam two\n", ":2: expected 2 columns (label and text), found 1"),
        ("ham\tone\n\nspam\ttwo\n", ":2: expected 2 columns (label and text), found 1"),
        ("ham\tone\nspan\ttwo\n", ":2: label: unknown label (got 'span')"),
        ("label\tbody\nham\tone\n", ":1: label: unknown label (got 'label')"),
        ("id\ttext\nr1\tone\n", ":1: labels: the option names 'ham' or 'spam', and the data have 'id' or 'r1' (got"),
        ("ham\tone\nspam\tt\0wo\n", ":2: a NUL byte (byte 14)"),
        (
            b"ham\tone\nspam\t\xa35 off\n",
            ":2: not UTF-8 (byte 13) (got b'\\xa3'); fix: save as UTF-8, or convert it by `iconv -f latin1 -t utf-8`",
        ),
        ("ham\tone\nspam\ttwo\n".encode("utf-16"), ": the file is UTF-16 (byte 0)"),
        ("ham\tone\nspam\t" + "x" * 1_000_000 + "\n", ":2: the row is longer than 1 MB"),
    ],
)
def test_refused_with_file_and_line(write, content, start):
    assert problem(write(content)).startswith(start)


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ('ham\tone\nspam\ttwo\nham\t"three\nham\tfour\n', ":3: a quote is opened here and never closed"),
        ("ham\tone\nspam\ttwo\tthree\n", ":2: expected 2 columns (label and text), found 3"),
        ('ham\t"one\n\ntwo"\nspan\tthree\n', ":4: label: unknown label (got 'span')"),
        ('ham\tone\nspam\t"' + "x" * 600_000 + "\n" + "x" * 600_000 + '"\n', ":2: the row is longer than"),
    ],
)
def test_quoted_reading_refuses_with_the_line_that_a_row_starts_at(write, content, start):
    assert problem(write(content), quoting="published").startswith(start)


def test_long_row_under_the_limit_is_read(write):
    text = "x" * 900_000
    assert read(write(f"ham\t{text}\nspam\ttwo\n"), "published").texts[0] == text


def test_missing_file_and_folder(tmp_path):
    assert "cannot be read: No such file" in problem(tmp_path / "none.tsv")
    assert "cannot be read: Is a directory" in problem(tmp_path)
