"""Which column of a file holds what, for ftkit's own prediction files and for those of others."""

import re
from collections.abc import Callable, Iterable
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
NULLABLE = REQUIRED - {*NAMES["id"]}  # nobody has judged the example, or the model gave no answer
NEUTRAL = {"probability": 0.5, "log_odds": 0.0}  # where a score favours neither class
# Makes the error for a row of a batch, counted from 0, whose line it finds out: error(row, problem, field=...).
RowError = Callable[..., InputError]
_NAMELESS_SCORES = ("score", "probability", "prob", "log_odds", "logit", "margin")


def score_parts(name: str) -> tuple[str, str]:
    """Return the kind and the class that a score column is named after.

    Example:
        >>> score_parts("log_odds:yes")
        ('log_odds', 'yes')
    """
    match = SCORE_NAME.fullmatch(name)
    assert match is not None
    return match[1], match[2]


class Scored:
    """Something with score columns."""

    score_names: tuple[str, ...]

    @property
    def score_name(self) -> str | None:
        """The name of the score column, if there is one and no more."""
        return self.score_names[0] if len(self.score_names) == 1 else None

    @property
    def scored_classes(self) -> tuple[str, ...]:
        """The class that each score column is named after."""
        return tuple(score_parts(name)[1] for name in self.score_names)


@dataclass(frozen=True)
class Layout(Scored):
    """The place of each column, counted from 0."""

    prediction: int  # the predicted class or the model's answer
    label: int  # the true class
    id: int | None = None  # the example's id; None when examples are known by their number only
    # Of a table without a header: what a label of True and of False stands for, such as yes and no.
    words: tuple[str, str] | None = None
    truth: bool = False  # whether the labels are True and False
    # Of such a table: other columns of expected answers, which have to agree with the label.
    agreeing: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()  # the score columns: none, one, or one for each of three and more classes
    score_names: tuple[str, ...] = ()  # their names, probability:CLASS or, of one, log_odds:CLASS
    extra: dict[str, int] = field(default_factory=dict)  # the other columns by name
    names: list[str] = field(default_factory=list)  # how messages and reports call the columns
    notes: list[str] = field(default_factory=list)  # what a reader should know about the choice

    def describe(self) -> str:
        """Return the choice in words, for the report.

        Example:
            >>> layout_of_names(["id", "label", "prediction"], Path("a.tsv")).describe()
            'id = "id", label = "label", prediction = "prediction"'
        """
        names = self.names
        meant = f" (True: {self.words[0]}, False: {self.words[1]})" if self.words and self.truth else ""
        parts = [
            f"id = {names[self.id]}" if self.id is not None else "id = the example's number",
            f"label = {names[self.label]}{meant}",
            f"prediction = {names[self.prediction]}",
        ]
        if self.scores:
            shown = ", ".join(names[place] for place in self.scores)
            parts.append(f"score{'s' * (len(self.scores) > 1)} = {shown}")
        if self.words and "image" in self.extra:
            parts.append(f"image = {names[self.extra['image']]}")
        return ", ".join([*parts, *(f"{names[place]} agrees" for place in self.agreeing)])


def layout_of_names(names: list[str], path: Path, line: int | None = 1) -> Layout:
    """Return the layout that a header or the keys of a JSON object give; their order does not matter.

    Raises:
        InputError: A needed name is missing or comes twice, or there are two score columns, or several that are not
            all probabilities.
    """
    there = {kind: [name for name in wanted if name in names] for kind, wanted in NAMES.items()}
    places = {kind: names.index(found[0]) for kind, found in there.items() if found}
    missing = [kind for kind in ("label", "prediction") if kind not in places]
    if missing:
        problem, got = f"no column named {' or '.join(missing)}", ", ".join(names)
        fix = "name the columns id, label, prediction, or leave the header out and end each row with the answer"
        raise InputError(problem, file=path, line=line, field="header", got=got, fix=fix)
    for name in names:
        if names.count(name) > 1:
            raise InputError("two columns have the same name", file=path, line=line, got=name)
    scores = [place for place, name in enumerate(names) if SCORE_NAME.fullmatch(name)]
    if len(scores) == 2 or (len(scores) > 2 and not all(names[place].startswith("probability:") for place in scores)):
        problem = "two score columns" if len(scores) == 2 else "several score columns, not all of them probabilities"
        raise InputError(problem, file=path, line=line, got=", ".join(names[place] for place in scores))
    taken = {*places.values(), *scores}
    notes = [
        f'column "{name}" is not used as a score: its name does not say the kind and the positive class '
        f"(rename it to probability:CLASS or log_odds:CLASS)"
        for name in names
        if not scores and name.casefold() in _NAMELESS_SCORES
    ]
    return Layout(
        prediction=places["prediction"],
        label=places["label"],
        id=places.get("id"),
        scores=tuple(scores),
        score_names=tuple(names[place] for place in scores),
        extra={name: place for place, name in enumerate(names) if place not in taken},
        names=[f'"{name}"' for name in names],
        notes=notes,
    )


def names_columns(first: Iterable[str]) -> bool:
    """Return whether the first row of a table is a header: it has two of the names for id, label and prediction."""
    return sum(not set(names).isdisjoint(first) for names in NAMES.values()) > 1


def would_be_lost(key: str, keys: list[str]) -> bool:
    """Return whether a key of a JSON object is an id or a score, and the first object of the file has none."""
    if SCORE_NAME.fullmatch(key):
        return not any(map(SCORE_NAME.fullmatch, keys))
    return key in NAMES["id"] and not set(NAMES["id"]) & set(keys)
