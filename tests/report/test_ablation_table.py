# ruff: noqa: E501  (a table is easier to check in one piece)
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.runner import run
from ftkit.ablation.sweep import read_sweep
from ftkit.commands.ablation import ablation_status
from ftkit.commands.ablation import ablation_table as table
from ftkit.errors import InputError
from ftkit.lock import exclusive

ROWS = {
    "01_base": {},
    "02_first": {"correct": 216},
    "03_xl": {"do": "unavailable"},
    "04_odd": {"do": "raise"},
    "05_later": {},
}
ORIGIN = f"# data sha256: {'d1' * 32}\n# base: source=hub\n"
PUBLISHED = f"""{ORIGIN}# One seed, real messages.
row,train,val,test,minutes,note
1,96.63,99.33,95.00,0.28,
2,78.46,80.54,80,,typed by hand
5,100,,98,,of a row that was not run
"""


def sweep(
    tmp_path: Path, rows: str | None = "1-4", published: str | None = PUBLISHED, seeds: Sequence[int] = (123,)
) -> Path:
    folder = tmp_path / "study"
    if not folder.exists():
        make_folder(folder, ROWS, published)
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", rows, seeds=seeds)
    return tmp_path / "out"


def records(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(out, "csv"))))


def test_markdown(tmp_path: Path) -> None:
    assert table(sweep(tmp_path), "markdown", timing=False) == (
        "| row | name  | train | publ. |   val | publ. |  test |  95% int. | publ. |  in |    vs 1 | params | status                                  |\n"
        "| --: | ----- | ----: | ----: | ----: | ----: | ----: | --------: | ----: | --: | ------: | -----: | --------------------------------------- |\n"
        "|   1 | base  | 95.69 | 96.63 | 98.66 | 99.33 | 95.00 | 91.9-96.9 | 95.00 | yes |   ref.  | 7.089M | done                                    |\n"
        "|   2 | first | 95.69 | 78.46 | 98.66 | 80.54 | 72.00 | 66.7-76.8 | 80.00 |  no | -23.00* | 7.089M | done                                    |\n"
        "|   3 | xl    |       |       |       |       |       |           |       |     |         |        | skipped: gpt2-xl is not on this machine |\n"
        "|   4 | odd   |       |       |       |       |       |           |       |     |         |        | failed: ValueError: the loss went away  |\n"
        "\n"
        "- Accuracies in %; test: n = 300, 95% interval (Wilson), seed 123; data: made-up messages; device: cpu.\n"
        "- vs 1: test accuracy minus that of row 1 (base); * p < 0.05 in an exact McNemar test on the same examples, "
        "after Holm's correction for 1 comparison.\n"
        "- publ.: One seed, real messages.\n"
        "- in: whether the published test accuracy lies in our interval.\n"
        "- Row 2 (first), published: typed by hand\n"
        "- Row 3 (xl): skipped: gpt2-xl is not on this machine\n"
        "- Row 4 (odd): failed: ValueError: the loss went away\n"
        "- Not run: row 5.\n"
        "- What was run differs from row 1 in exactly:\n"
        "- Row 2 (first): correct: 285 -> 216\n"
    )  # fmt: skip


def test_text_has_the_same_cells_and_fits_a_terminal(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    text, markdown = table(out, "text"), table(out, "markdown")
    lines = text.split("\n\n")[0].split("\n")
    assert max(map(len, lines)) <= 150
    first = [cell.strip() for cell in markdown.split("\n")[2].strip("|").split("|")]
    assert lines[2].split() == first
    assert first[0] == "1"
    assert "|" not in text


def test_a_failed_row_gives_its_reason_in_short_and_below_in_full(tmp_path: Path) -> None:
    """Only the status gives way where a terminal has no room: figures and the reason in the footer are never cut."""
    out, reason = sweep(tmp_path), "RuntimeError: " + "mat1 and mat2 shapes cannot be multiplied " * 4
    ledger = (out / "ledger.jsonl").read_text().replace("ValueError: the loss went away", reason.strip())
    (out / "ledger.jsonl").write_text(ledger)
    markdown, text = table(out, "markdown"), table(out, "text")
    assert "| failed: RuntimeError: mat1 and mat2 shapes cannot be multip… |" in markdown
    lines = text.split("\n\n")[0].split("\n")
    assert max(map(len, lines)) == 150
    assert "  failed: RuntimeError: mat1" in next(line for line in lines if "odd" in line)
    for whole in (markdown, text):
        assert f"Row 4 (odd): failed: {reason.strip()}\n" in whole


def test_csv_is_unrounded_and_its_first_column_is_the_row(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    rows = records(out)
    assert [row["row"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert next(iter(rows[0])) == "row"
    assert float(rows[0]["train"]) == 1000 / 1045
    assert float(rows[0]["test"]) == 0.95
    # Wilson's interval of 285 of 300, worked out by hand from his formula with z = 1.959964
    assert float(rows[0]["test_low"]) == pytest.approx(0.919153, abs=1e-6)
    assert float(rows[0]["test_high"]) == pytest.approx(0.969468, abs=1e-6)
    assert (rows[0]["published_inside"], rows[1]["published_inside"]) == ("True", "False")
    assert rows[1]["published_test_percent"] == "80.0"
    assert (rows[2]["status"], rows[2]["test"]) == ("skipped", "")
    raw = json.loads((out / "01_base/seed-123/result.json").read_text())
    assert float(rows[0]["seconds"]) == raw["seconds"]["fit"] + raw["seconds"]["test"]
    assert float(rows[0]["peak_memory_mb"]) == raw["peak_memory_mb"]
    assert rows[0]["trainable_parameters"] == "7089410"


def test_seeds_are_averaged_with_their_spread(tmp_path: Path) -> None:
    out = sweep(tmp_path, "1", seeds=(123, 125))  # 285 and 287 of 300
    row = records(out)[0]
    assert float(row["test"]) == pytest.approx(286 / 300)
    assert float(row["test_spread"]) == pytest.approx(2 / 300 / 2**0.5)  # of two values: their distance by root 2
    assert row["n"] == "300"
    assert row["seeds"] == "123 125"
    text = table(out, "text")
    assert "95% interval (over examples and seeds), seeds 123, 125;" in text
    assert "95.33  0.47  92.3-97.2" in text


def test_the_noise_floor_says_which_rows_another_seed_explains(tmp_path: Path) -> None:
    out = sweep(tmp_path, "1-2", seeds=(123, 125))
    floor = 12.7062 * 2 / 300  # Student's t with one degree of freedom times root 2 times the spread
    assert [float(row["noise_floor"]) for row in records(out)[:2]] == pytest.approx([floor, floor], rel=1e-4)
    text = table(out, "text")
    said = "Noise floor: two runs of row 1 with different seeds are up to 8.47 points apart, two means over 2 seeds up to 5.99"
    assert f"{said} (95%, by the spread of 2 seeds).\n" in text  # row 2 lies 23 points away
    assert float(records(out)[1]["probability_ahead"]) < 1e-6
    assert "Noise floor" not in table(sweep(tmp_path / "one", "1-2"), "text")


def test_one_row_is_a_row_and_two_are_rows(tmp_path: Path) -> None:
    origin = f"# data sha256: {'0' * 64}\n# base: source=hub\n"
    text = table(sweep(tmp_path, "1", published=PUBLISHED.replace(ORIGIN, origin)), "text")
    assert "seed 123;" in text
    assert "not comparable with the published figures: row 1 (" in text


def test_a_row_of_which_a_seed_failed_says_so(tmp_path: Path) -> None:
    out = sweep(tmp_path, "1")
    (tmp_path / "study/rows/01_base.yaml").write_text("do: raise\n")
    sweep(tmp_path, "1", seeds=(124,))
    assert records(out)[0]["status"] == "1 of 2 seeds"
    assert "Row 1 (base): seed 124: failed: ValueError: the loss went away" in table(out, "text")


def test_without_published_figures_there_are_no_columns_for_them(tmp_path: Path) -> None:
    text = table(sweep(tmp_path, published=None), "text")
    assert "publ" not in text
    assert "inside" not in text


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (f"# data sha256: {'0' * 64}\n# base: source=hub\n", "other data (made-up messages)"),
        (f"# data sha256: {'d1' * 32}\n# base: source=demo\n", "another base model (source=hub)"),
        (
            f"# data sha256: {'0' * 64}\n# base: size=small revision=1a2b\n",
            "other data (made-up messages); another base model (size=small revision=unknown)",
        ),
        (f"# data sha256: {'d1' * 32}\n", "published.csv does not say its base model (# base: NAME=VALUE)"),
        ("# base: source=hub\n", "published.csv does not say its data (# data sha256: HASH)"),
        (
            f"# data sha256: {'0' * 64}\n",
            "other data (made-up messages); published.csv does not say its base model (# base: NAME=VALUE)",
        ),
    ],
)
def test_published_figures_of_another_origin_are_no_judges(tmp_path: Path, origin: str, reason: str) -> None:
    out = sweep(tmp_path, published=PUBLISHED.replace(ORIGIN, origin))
    assert [row["published_inside"] for row in records(out)] == [""] * 5
    text = table(out, "markdown")
    assert f"in: not comparable with the published figures: rows 1-2 ({reason}).\n" in text
    assert "in: whether" not in text
    assert "95.00 |     |" in table(out, "markdown", timing=False)


def test_a_result_that_was_changed_is_not_shown(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    (out / "01_base/seed-123/result.json").write_text('{"splits": {"test": {"n": 300, "correct": 300}}}')
    row = records(out)[0]
    assert (row["status"], row["test"]) == ("unfinished", "")
    assert "result.json is missing or was changed" in row["notes"]


def test_what_is_no_output_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the output of an ablation"):
        table(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": ',
        '{"format": 2}',
        "[]",
        "null",
        '{"format": 2, "name": "a", "rows": {}, "published": []}',
        '{"format": 2, "name": "a", "rows": [1], "published": {"rows": {}}}',
        '{"format": 2, "name": "a", "rows": [], "published": {"rows": {"1": {"trian": 1}}}}',
        '{"format": 2, "name": "a", "rows": [], "published": {"rows": {"one": {}}}}',
        "[" * 100_000,
    ],
)
def test_a_description_that_is_damaged_or_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ablation.json").write_text(text)
    with pytest.raises(InputError, match=r"ablation\.json: damaged; fix: run the same"):
        table(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"format": 1}', '{"name": "a", "rows": [], "published": {"rows": {}}}'])
def test_an_output_folder_of_another_format_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "ablation.json").write_text(text)
    with pytest.raises(InputError, match=r"ablation\.json: was written in .*and this ftkit reads format 2; fix: use"):
        table(tmp_path)


def test_status_tells_of_every_cell_and_of_a_cut_ledger(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    ledger = out / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-5])
    assert [line.split(maxsplit=2) for line in ablation_status(out).split("\n")[:5]] == [
        ["1", "base", "seed 123   done"],
        ["2", "first", "seed 123   done"],
        ["3", "xl", "seed 123   skipped: gpt2-xl is not on this machine"],
        ["4", "odd", "seed 123   unfinished: it was interrupted"],
        ["5", "later", "not run"],
    ]
    assert "ledger.jsonl:8: cut or damaged line" in ablation_status(out)


def test_every_cell_that_started_since_the_folder_was_taken_is_running(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    started = [Entry(f"{label}/seed-123", number, 123, "started") for number, label in enumerate(list(ROWS)[:4], 1)]
    Ledger(out).append(started[3])  # by a run that was killed
    with exclusive(out):
        for entry in started[:2]:  # both at work, as Ray's workers are
            Ledger(out).append(entry)
        assert [row.runs[0].status for row in read_sweep(out).rows[:4]] == [
            "running",
            "running",
            "skipped",
            "unfinished",
        ]
    assert [row.runs[0].status for row in read_sweep(out).rows[:2]] == ["unfinished", "unfinished"]


def test_what_measures_is_left_out_on_request_and_the_status_when_all_is_done(tmp_path: Path) -> None:
    out = sweep(tmp_path, "1-3")
    assert "status" in table(out, "text")
    assert " front " in table(out, "text").split("\n")[0]
    for word in ("front", "sec.", "peak MB", "ckpt MB"):
        assert word not in table(out, "text", timing=False)
    for name in ("seconds", "frozen_seconds", "peak_memory_mb", "checkpoint_mb", "on_front"):
        assert name in records(out)[0]
        assert name not in table(out, "csv", timing=False)
    (tmp_path / "study/rows/03_xl.yaml").unlink()
    assert "status" not in table(sweep(tmp_path, "1-2"), "text")


def test_what_peak_memory_is_depends_on_the_machine(tmp_path: Path) -> None:
    here = table(sweep(tmp_path, "1-2"), "text")
    assert "peak MB: most resident memory of the whole process during training, libraries included." in here
    assert "For figures that compare closely, run each row in a process of its own." in here
    assert "allocated" not in here
    (tmp_path / "study/rows/01_base.yaml").write_text("result: {device: 'cuda:0'}\n")
    (tmp_path / "study/rows/02_first.yaml").write_text("result: {device: 'cuda:0', peak_memory_mb: null}\n")
    there = table(sweep(tmp_path, "1-2"), "text")
    assert "peak MB: most memory allocated on the GPU during training." in there
    assert "resident" not in there
    (tmp_path / "study/rows/01_base.yaml").write_text("result: {peak_memory_mb: null}\n")
    assert "peak MB:" not in table(sweep(tmp_path, "1-2"), "text")


def test_a_spreadsheet_runs_no_cell(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    description = out / "ablation.json"
    description.write_text(description.read_text(encoding="utf-8").replace('"name": "first"', '"name": "=1+1"'))
    plain, safe = (list(csv.DictReader(io.StringIO(table(out, format)))) for format in ("csv", "spreadsheet"))
    assert (plain[1]["name"], safe[1]["name"]) == ("=1+1", "'=1+1")
    assert [{**row, "name": ""} for row in safe] == [{**row, "name": ""} for row in plain]
