"""Which column of a file holds what, for ftkit's own prediction files and for those of others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.errors import InputError

SCORE_NAME = re.compile(r"(probability|log_odds):(.+)", re.DOTALL)
NAMES = {
    "id": ("id", "image"),
    "label": ("label", "suffix", "expected"),
    "prediction": ("prediction", "answer", "predict"),
}
REQUIRED = frozenset(name for names in NAMES.values() for name in names)
_ANSWERS = {"yes": "no", "no": "yes", "Yes": "No", "No": "Yes", "YES": "NO", "NO": "YES"}
_NAMELESS_SCORES = ("score", "probability", "prob", "log_odds", "logit", "margin")


@dataclass(frozen=True)
class Layout:
    """The place of each column, counted from 0.

    Attributes:
        prediction: The predicted class or the model's answer.
        label: The true class; None when it follows from ``flag`` and ``prediction``.
        id: The example's id; None when rows are known by their line only.
        flag: A True/False column that says whether the prediction is right.
        score: The score column.
        score_name: Its name, ``probability:CLASS`` or ``log_odds:CLASS``.
        extra: The other columns by name.
        names: How messages and reports call the columns.
        notes: What a reader should know about the choice.
    """

    prediction: int
    label: int | None = None
    id: int | None = None
    flag: int | None = None
    score: int | None = None
    score_name: str | None = None
    extra: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """The choice in words, for the report.

        Example:
            >>> layout_of_names(["id", "label", "prediction"], Path("a.tsv")).describe()
            'id = "id", label = "label", prediction = "prediction"'
        """
        parts = [f"id = {self._name(self.id)}" if self.id is not None else "id = the line number"]
        if self.label is None:
            parts.append(f"label = worked out from {self._name(self.flag)} (True: the answer is right) and the answer")
        else:
            parts.append(f"label = {self._name(self.label)}")
        parts.append(f"prediction = {self._name(self.prediction)}")
        if self.score is not None:
            parts.append(f"score = {self._name(self.score)}")
        if self.label is not None and self.flag is not None:
            parts.append(f"{self._name(self.flag)} (True/False) agrees")
        return ", ".join(parts)

    def _name(self, column: int | None) -> str:
        assert column is not None
        return self.names[column]


def layout_of_names(names: list[str], path: Path, line: int = 1) -> Layout:
    """The layout that a header or the keys of a JSON object give; their order does not matter.

    Raises:
        InputError: A needed name is missing or comes twice, or there are two score columns.
    """
    places = {kind: _first(names, wanted) for kind, wanted in NAMES.items()}
    missing = [kind for kind in ("label", "prediction") if places[kind] is None]
    if missing:
        raise InputError(
            f"no column named {' or '.join(missing)}",
            file=path,
            line=line,
            field="header",
            got=", ".join(names),
            fix="name the columns id, label, prediction, or leave the header out and end each row with the answer",
        )
    for name in names:
        if names.count(name) > 1:
            raise InputError("two columns have the same name", file=path, line=line, got=name)
    scores = [place for place, name in enumerate(names) if SCORE_NAME.fullmatch(name)]
    if len(scores) > 1:
        raise InputError("two score columns", file=path, line=line, got=", ".join(names[s] for s in scores))
    taken = {*places.values(), *scores}
    notes = [
        f'column "{name}" is not used as a score: its name does not say the kind and the positive class '
        f"(rename it to probability:CLASS or log_odds:CLASS)"
        for name in names
        if not scores and name.casefold() in _NAMELESS_SCORES
    ]
    assert places["prediction"] is not None
    return Layout(
        prediction=places["prediction"],
        label=places["label"],
        id=places["id"],
        score=scores[0] if scores else None,
        score_name=names[scores[0]] if scores else None,
        extra={name: place for place, name in enumerate(names) if place not in taken},
        names=[f'"{name}"' for name in names],
        notes=notes,
    )


def is_header(row: list[str]) -> bool:
    """Whether the first row of a table names its columns, as far as that can be seen."""
    known = sum(_first(row, names) is not None for names in NAMES.values())
    looks_like_data = {"True", "False"} & set(row[:-1]) or row[-1] in _ANSWERS
    return known >= 2 or not looks_like_data


def layout_of_rows(rows: list[list[str]], path: Path) -> Layout:
    """The layout of a table without a header, whose last column is the answer, found from its first rows.

    A True/False column says whether the answer is right; a yes/no column before the last one is the expected answer.

    Args:
        rows: The first rows, all of the same width.
        path: The file, for messages.

    Raises:
        InputError: Neither the expected answer nor a True/False column is there.
    """
    columns = list(zip(*rows, strict=True))
    last = len(columns) - 1
    flag = next((c for c in range(last) if set(columns[c]) <= {"True", "False"}), None)
    label = next((c for c in reversed(range(last)) if set(columns[c]) <= set(_ANSWERS)), None)
    if flag is None and label is None:
        raise InputError(
            "no header, and no column before the last one is True/False or yes/no throughout",
            file=path,
            line=1,
            got="\t".join(rows[0]),
            fix="start the file with a header that names id, label and prediction",
        )
    free = [c for c in range(last) if c not in (flag, label)]
    paths = [c for c in free if re.search(r"[\\/]|\.\w+$", columns[c][0])]
    identity = next(iter(paths + free), None)
    names = [f"column {c + 1}" if c < last else f"column {c + 1} (the last)" for c in range(last + 1)]
    extra = {names[c]: c for c in free if c != identity}
    return Layout(prediction=last, label=label, id=identity, flag=flag, extra=extra, names=names)


def opposite_answer(answer: str) -> str | None:
    """The other one of yes and no, written alike; None for anything else.

    Example:
        >>> opposite_answer("Yes"), opposite_answer("maybe")
        ('No', None)
    """
    return _ANSWERS.get(answer)


def normalized(text: str) -> str:
    """A class name without case, outer blanks and a final full stop or exclamation mark.

    Example:
        >>> normalized(" Yes. ")
        'yes'
    """
    return text.strip().rstrip(".!").rstrip().casefold()


def opposite(name: str) -> str | None:
    """The other class, for names that come in pairs.

    Example:
        >>> opposite("yes"), opposite("cat")
        ('no', None)
    """
    pairs = (("spam", "ham"), ("true", "false"), ("True", "False"), ("1", "0"), ("positive", "negative"))
    return {**_ANSWERS, **dict(pairs), **{second: first for first, second in pairs}}.get(name)


def _first(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)
