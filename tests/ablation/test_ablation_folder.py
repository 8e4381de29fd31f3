from pathlib import Path

import pytest

from fake_engine import make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.published import Published
from ftkit.errors import InputError

ROWS = {"01_base": {}, "02_first": {"model": {"pooling": "first"}}, "03_mean": {"model": {"pooling": "mean"}}}
HEADER = "row,train,val,test,minutes,note\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "study", {**ROWS, "10_random": {}, "12_lora": {}})


def test_rows_are_read_with_number_name_and_question_and_sorted_by_number(folder: Path) -> None:
    (folder / "rows/9_nine.yaml").write_text("model: {}\n")
    (folder / "rows/notes.txt").write_text("not a row")
    (folder / "rows/.01_base.yaml").write_text("left by an editor")
    rows = AblationFolder.load(folder).rows
    assert [row.number for row in rows] == [1, 2, 3, 9, 10, 12]
    assert (rows[1].name, rows[1].label, rows[1].question) == ("first", "02_first", "What does 02_first do?")
    assert rows[3].question == ""


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [(None, [1, 2, 3, 10, 12]), ("10, 1-2", [1, 2, 10]), ("3", [3]), ("2-12", [2, 3, 10, 12]), ("1,1", [1])],
)
def test_selection(folder: Path, selection: str | None, numbers: list[int]) -> None:
    assert [row.number for row in AblationFolder.load(folder).select(selection)] == numbers


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("4", "there is no row 4; the rows are 1-3,10,12"),
        ("1-11", "there is no row 11; the rows are 1-3,10,12"),
        ("3-1", "fix: write 1-3"),
        ("", "not a selection"),
        ("one", "not a selection"),
        ("1,", "not a selection"),
    ],
)
def test_a_wrong_selection_says_what_would_be_right(folder: Path, selection: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AblationFolder.load(folder).select(selection)


def test_overlays_lie_between_base_and_row(folder: Path) -> None:
    ablation = AblationFolder.load(folder)
    configs = ablation.configs(ablation.rows[1], [Path("demo.yaml")])
    assert configs == [folder / "base.yaml", Path("demo.yaml"), folder / "rows/02_first.yaml"]


def test_the_seed_is_that_of_the_base_or_of_a_later_overlay(folder: Path, tmp_path: Path) -> None:
    ablation, overlay = AblationFolder.load(folder), tmp_path / "overlay.yaml"
    assert ablation.seed(ablation.rows) == 123
    (folder / "base.yaml").write_text("seed_everything: 7\n")
    (folder / "rows/02_first.yaml").write_text("seed_everything: 7\n")
    assert ablation.seed(ablation.rows) == 7
    overlay.write_text("seed_everything: 0\n")
    assert ablation.seed(ablation.rows[:1], [overlay]) == 0
    with pytest.raises(
        InputError, match=r"02_first.yaml: seed_everything: a row may not have .* \(got 7\); fix: set it"
    ):
        ablation.seed(ablation.rows, [overlay])


@pytest.mark.parametrize("seed", ["true", "-1", "4294967296", "1.5", "new"])
def test_a_seed_that_cannot_be_repeated_is_refused(seed: str, folder: Path) -> None:
    (folder / "base.yaml").write_text(f"seed_everything: {seed}\n")
    ablation = AblationFolder.load(folder)
    with pytest.raises(InputError, match=r"base.yaml: seed_everything: not a seed that can be repeated"):
        ablation.seed(ablation.rows)


def test_two_rows_with_one_number_are_refused(folder: Path) -> None:
    (folder / "rows/2_second.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"two rows have the number 2: 02_first.yaml and 2_second.yaml"):
        AblationFolder.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# ?\nmodel:\n  pooling: [first\n", r"02_first.yaml:4: not valid YAML"),
        (b"# only a question\n", "a config file is a mapping of settings"),
        (b"- a\n- b\n", "a config file is a mapping"),
        (b"# caf\xe9\na: 1\n", "not UTF-8 at byte 5"),
        (b"a: \x00\n", "not valid YAML"),
    ],
)
def test_a_row_that_is_no_config_is_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "rows/02_first.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        AblationFolder.load(folder)
    assert "02_first.yaml" in str(caught.value)


def test_missing_parts_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        AblationFolder.load(tmp_path / "nowhere")
    (file := tmp_path / "base.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"base.yaml: not a folder; fix: name a folder with base.yaml and rows/"):
        AblationFolder.load(file)
    (folder / "rows/extra.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match="not a row's file name"):
        AblationFolder.load(folder)
    for path in (folder / "rows").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="there are no rows"):
        AblationFolder.load(folder)
    (folder / "base.yaml").unlink()
    with pytest.raises(InputError, match=r"base.yaml: there is no such file"):
        AblationFolder.load(folder)


def test_published_figures_with_source_data_and_note(tmp_path: Path) -> None:
    text = f"# One seed,\n# data sha256: {'ab' * 32}\n# base: source=hub size=small\n# real data.\n{HEADER}"
    text += '1,96.63,99.33,95.00,0.28,\n3,,,72,,"odd, really"\n'
    for content in (text, "\ufeff" + text.replace("\n", "\r\n")):
        folder = make_folder(tmp_path / str(len(content)), ROWS)
        (folder / "published.csv").write_bytes(content.encode())
        published = AblationFolder.load(folder).published
        assert published.source == "One seed, real data."
        assert published.data_sha256 == "ab" * 32
        assert published.base == {"source": "hub", "size": "small"}
        assert published.rows == {
            1: Published(96.63, 99.33, 95.0, 0.28, ""),
            3: Published(None, None, 72.0, None, "odd, really"),
        }


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ("", "the file is empty"),
        ("row,train\n", r"published.csv:1: missing column 'test'"),
        ("row,test,accuracy\n", r":1: unknown column 'accuracy'"),
        ("row,test,test\n", r":1: repeated column 'test'"),
        ("row,test\n1,95,3\n", r":2: 3 columns where the header has 2"),
        ("# x\nrow,test\n1,95\n\n1,96\n", r":5: row 1 was already given on line 3"),
        ("row,test\n7,95\n", r":2: row: the ablation has no row 7"),
        ("row,test\none,95\n", r":2: row: not a row number \(got 'one'\)"),
        ("row,test\n1,95%\n", r":2: test: not a number \(got '95%'\)"),
        ("row,test\n1,950\n", r":2: test: not a percentage"),
        ("row,test\n1,nan\n", r":2: test: not a percentage"),
        ("row,test,minutes\n1,95,-1\n", r":2: minutes: not a time"),
    ],
)
def test_wrong_published_figures_name_the_line(tmp_path: Path, published: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AblationFolder.load(make_folder(tmp_path / "study", ROWS, published))


def test_published_figures_in_another_encoding_are_refused_by_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", ROWS, "row,test\n")
    (folder / "published.csv").write_bytes("# of a café\nrow,test\n1,90\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"published.csv:1: not UTF-8 \(byte 10\)"):
        AblationFolder.load(folder)
