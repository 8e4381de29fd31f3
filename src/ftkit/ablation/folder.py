"""An ablation is a folder: ``base.yaml``, ``rows/NN_name.yaml``, perhaps ``published.csv`` and ``claim.yaml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ftkit.ablation.claims import CLAIM_FILE, Claim
from ftkit.ablation.published import PublishedTable, read_published
from ftkit.ablation.setting import Setting, setting_name, short_setting
from ftkit.config_files import read_config, where_shipped
from ftkit.errors import InputError

Format = Literal["text", "markdown", "csv", "json", "spreadsheet"]  # how a table can be printed
_LABEL = re.compile(r"(\d+)_([A-Za-z0-9][A-Za-z0-9_.-]*)")
_ROW_FILE = re.compile(_LABEL.pattern + r"\.ya?ml")
SELECTION = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Row:
    """One variant: the few settings in which it differs from the base."""

    number: int  # the number in the file name, counted as the publication counts
    name: str  # the rest of the file name
    path: Path  # the YAML file
    question: str = ""  # what the row asks, from the comment on its first line

    @property
    def label(self) -> str:
        """Return the file name without its ending, which also names the row's folder in the output."""
        return self.path.stem


@dataclass(frozen=True)
class Run:
    """A training and a test: one row with one seed, and perhaps a setting that a search tries."""

    row: Row
    seed: int
    setting: Setting = ()

    @property
    def id(self) -> str:
        """Return the run's folder, relative to the output folder, such as ``02_first_token/seed-123``."""
        return f"{self.place}/seed-{self.seed}"

    @property
    def place(self) -> str:
        """Return the folder of its row, or of its setting, such as ``02_first_token/lr-0.001``."""
        return f"{self.row.label}/{setting_name(self.setting)}" if self.setting else self.row.label

    def __str__(self) -> str:
        setting = f", {short_setting(dict(self.setting))}" if self.setting else ""
        return f"{self.row.label}{setting} (seed {self.seed})"


@dataclass(frozen=True)
class AblationFolder:
    """A folder that was read and found to be an ablation."""

    folder: Path  # where it lies
    rows: tuple[Row, ...]  # its rows, sorted by number
    published: PublishedTable = field(default_factory=PublishedTable)  # the published figures, if there are any
    claim: Claim | None = None  # what is claimed about the rows, if anything is

    @classmethod
    def load(cls, folder: str | Path) -> AblationFolder:
        """Read an ablation folder.

        Raises:
            InputError: A file is missing, misnamed, not YAML, or not UTF-8; or two rows share a number.
        """
        folder = Path(folder)
        if not folder.is_dir():
            problem = "not a folder" if folder.exists() else "there is no such folder"
            fix = where_shipped(folder) or "name a folder with base.yaml and rows/; `ftkit init NAME` writes one"
            raise InputError(problem, file=folder, fix=fix)
        read_config(folder / "base.yaml")
        paths = sorted(path for path in (folder / "rows").glob("*.y*ml") if not path.name.startswith("."))
        if not paths:
            raise InputError("there are no rows", file=folder / "rows", fix="add files such as rows/01_name.yaml")
        rows = sorted((_read_row(path) for path in paths), key=lambda row: row.number)
        for first, second in pairwise(rows):
            if first.number == second.number:
                problem = f"two rows have the number {first.number}: {first.path.name} and {second.path.name}"
                raise InputError(problem, file=second.path, fix="give each row its own number")
        there = {row.number for row in rows}
        claim = Claim.read(folder / CLAIM_FILE, there)
        return cls(folder, tuple(rows), read_published(folder / "published.csv", there), claim)

    def select(self, rows: str | None) -> tuple[Row, ...]:
        """Return the rows that a selection such as ``"1-5,10"`` names, in the order of their numbers; None is all.

        Raises:
            InputError: The text is no selection, or it names a row that is not there.
        """
        if rows is None:
            return self.rows
        there = [row.number for row in self.rows]
        chosen: set[int] = set()
        for part in rows.split(","):
            match = SELECTION.fullmatch(part.strip())
            if not match:
                fix = "write numbers and ranges, such as 1-5,10"
                raise InputError("not a selection of rows", field="rows", got=rows, fix=fix)
            first, last = int(match[1]), int(match[2] or match[1])
            unknown = [str(end) for end in dict.fromkeys((first, last)) if end not in there]
            if unknown:
                problem = f"there is no row {' or '.join(unknown)}; the rows are {format_numbers(there)}"
                raise InputError(problem, field="rows", got=rows)
            if first > last:
                raise InputError("the range runs backwards", field="rows", got=part, fix=f"write {last}-{first}")
            chosen.update(number for number in there if first <= number <= last)
        return tuple(row for row in self.rows if row.number in chosen)

    def seed(self, rows: Sequence[Row], overlays: Sequence[Path] = ()) -> int:
        """Return the ``seed_everything`` of base and overlays, later ones winning; 123 if none has one.

        Raises:
            InputError: It is no number, or a row says another one: rows are compared seed by seed.
        """
        seed = 123
        for path in (self.folder / "base.yaml", *overlays):
            seed = _seed_in(path, seed)
        for row in rows:
            if (own := _seed_in(row.path, seed)) != seed:
                problem = "a row may not have a seed of its own, for rows are compared seed by seed"
                fix = "set it in base.yaml, or give --seeds"
                raise InputError(problem, file=row.path, field="seed_everything", got=own, fix=fix)
        return seed

    def configs(self, row: Row, overlays: Sequence[Path] = ()) -> list[Path]:
        """Return the config files of a row, later ones winning: base, overlays, row.

        The row comes last, so an overlay (smaller, on a GPU) can never undo what the row is about.
        """
        return [self.folder / "base.yaml", *overlays, row.path]


def row_configs(source: Path, overlays: Sequence[Path] = (), rows: str | None = None) -> dict[str, list[Path]]:
    """Return the config files of selected rows of an ablation folder, by their labels; of a config file, by its name.

    Raises:
        InputError: The folder is no ablation, or there is no such row; a config file has none.
    """
    if source.is_file():
        if rows is not None:
            raise InputError("a config file has no rows", field="rows", got=rows, fix="leave it out, or name a folder")
        return {source.stem: [source, *overlays]}
    folder = AblationFolder.load(source)
    return {row.label: folder.configs(row, overlays) for row in folder.select(rows)}


def label_parts(label: str) -> tuple[int, str]:
    """Return number and name of a row from its label.

    Example:
        >>> label_parts("02_first_token")
        (2, 'first_token')

    Raises:
        InputError: It is no label.
    """
    if not (match := _LABEL.fullmatch(label)):
        raise InputError("not the label of a row", field="row", got=label, fix="write NN_name, such as 40_trainer")
    return int(match[1]), match[2]


def format_numbers(numbers: Sequence[int]) -> str:
    """Write sorted numbers as a selection.

    Example:
        >>> format_numbers([1, 2, 3, 5, 7, 8])
        '1-3,5,7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _seed_in(path: Path, otherwise: int) -> int:
    """Return the seed that a config file sets, else ``otherwise``."""
    seed = read_config(path).get("seed_everything")
    if seed is None:
        return otherwise
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        problem, fix = "not a seed that can be repeated", "write a whole number"
        raise InputError(problem, file=path, field="seed_everything", got=seed, fix=fix)
    return seed


def _read_row(path: Path) -> Row:
    match = _ROW_FILE.fullmatch(path.name)
    if not match:
        raise InputError("not a row's file name", file=path, fix="call it NN_name.yaml, such as 02_first_token.yaml")
    read_config(path)
    first_line = path.read_text(encoding="utf-8-sig").split("\n", 1)[0].strip()
    question = first_line.lstrip("#").strip() if first_line.startswith("#") else ""
    return Row(int(match[1]), match[2], path, question)
