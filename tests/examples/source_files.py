"""Training data as people have it: each source written by the tool that is used for it."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDS = [
    {"prompt": "1 + 1 =", "completion": " 2", "note": "plain"},
    {"prompt": "say \"a;b\", 'c' | d", "completion": " 007", "note": "NA"},
    {"prompt": "two\nlines", "completion": " None", "note": None},
    {"prompt": "Größe =", "completion": " 3,5", "note": "größer"},
]
OTHERS = [{"prompt": "9 + 9 =", "completion": " 18", "note": None}]


def frame(records: list[dict[str, Any]]) -> Any:
    import pandas

    return pandas.DataFrame(records)


def by_writer(separator: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "completion", "note"], delimiter=separator, **options)
            writer.writeheader()
            writer.writerows(RECORDS)
        return folder / "train.csv"

    return write


def by_pandas(name: str, method: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        getattr(frame(RECORDS), method)(folder / name, **options)
        return folder / name

    return write


def spreadsheet(folder: Path) -> Path:
    """What LibreOffice and a German Excel export: a byte order mark, semicolons, quotes where needed, CRLF."""
    cells = [[record[name] or "" for name in record] for record in RECORDS]
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if set(cell) & set(';"\n') else cell for cell in row] for row in cells
    ]
    lines = ["prompt;completion;note", *map(";".join, quoted)]
    (folder / "train.csv").write_bytes("\ufeff".encode() + "".join(f"{line}\r\n" for line in lines).encode())
    return folder / "train.csv"


def zipped_lines(folder: Path) -> Path:
    with gzip.open(folder / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in RECORDS)
    return folder / "train.jsonl.gz"


def indented_list(folder: Path) -> Path:
    (folder / "train.json").write_text(json.dumps(RECORDS, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder / "train.json"


def data_set() -> Any:
    import datasets

    return datasets.Dataset.from_list(RECORDS)


def saved(folder: Path) -> Path:
    data_set().save_to_disk(folder / "saved")
    return folder / "saved"


def data_sets() -> Any:
    import datasets

    return datasets.DatasetDict({"train": data_set(), "validation": datasets.Dataset.from_list(OTHERS)})


def saved_splits(folder: Path) -> Path:
    data_sets().save_to_disk(folder / "splits")
    return folder / "splits"


# What a data module is given of each source; where it is a file, what is written.
SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    name: lambda folder, write=write: {"train": write(folder)}
    for name, write in {
        "TSV by pandas": by_pandas("train.tsv", "to_csv", sep="\t", index=False),
        "CSV by pandas": by_pandas("train.csv", "to_csv", index=False),
        "CSV by pandas, with its index": by_pandas("train.csv", "to_csv"),
        "CSV by pandas, gzipped": by_pandas("train.csv.gz", "to_csv", index=False),
        "CSV with semicolons": by_writer(";"),
        "CSV with bars, all quoted": by_writer("|", quoting=csv.QUOTE_ALL),
        "CSV of a spreadsheet": spreadsheet,
        "JSON lines by pandas": by_pandas("train.jsonl", "to_json", orient="records", lines=True),
        "JSON lines, gzipped": zipped_lines,
        "JSON list by pandas": by_pandas("train.json", "to_json", orient="records"),
        "JSON list, indented": indented_list,
        "Parquet by pandas": by_pandas("train.parquet", "to_parquet"),
        "saved Dataset": saved,
        "Dataset": lambda folder: data_set(),
        "data frame": lambda folder: frame(RECORDS),
        "list of dicts": lambda folder: RECORDS,
    }.items()
}
SOURCES["saved DatasetDict"] = lambda folder: {"dataset": saved_splits(folder)}
SOURCES["DatasetDict"] = lambda folder: {"dataset": data_sets()}
