"""Read labelled texts from any source of records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ftkit.classifier.messages import named_columns
from ftkit.errors import InputError
from ftkit.examples.records import RecordSource
from ftkit.examples.sources import open_source
from ftkit.results.layout import SCORE_NAME

_OWN = ("id", "label", "text")


@dataclass(frozen=True)
class Messages:
    """Labelled texts with stable names.

    Args:
        ids: One unique name each: that in the column ``id``, or its row in the source as it was read, counted from 1,
            e.g. ``r00017``.
        labels: One class name each, as in the source.
        texts: One text each.
        columns: The other columns of each, as text.
        places: The place of each in the source.
        at: Makes the error about a place, or about the source as a whole.
    """

    ids: list[str]
    labels: list[str]
    texts: list[str]
    columns: list[dict[str, str | None]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    at: Callable[..., InputError] = field(default=lambda place, *said, **more: InputError(*said, **more), compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    def error(self, index: int | None, problem: str, **details: Any) -> InputError:
        """Return the error about a message, or about all where ``index`` is None."""
        return self.at(self.places[index] if index is not None and self.places else None, problem, **details)


def labelled(source: RecordSource, needed: Sequence[str] = ("text", "label")) -> RecordSource:
    """Return a source with the needed columns, found by their usual names if they are called otherwise.

    Raises:
        InputError: A column is missing, or several could be meant; the columns that there are are listed.
    """
    if not source.columns:
        raise source.error(None, "contains no examples", fix="give a label and a text in each row")
    names = named_columns(source.columns)
    if missing := [ours for ours in needed if ours not in names]:
        raise source.error(
            None, f"it is not clear which column is the {' and which the '.join(missing)}",
            field="columns", got=", ".join(source.columns),
            fix=f"name {'them' if missing[1:] else 'it'}: columns: "
            f"{{{', '.join(f'{ours}: NAME' for ours in missing)}}}",
        )  # fmt: skip
    renamed = {ours: theirs for ours, theirs in names.items() if ours != theirs}
    if not renamed:
        return source
    said = ", ".join(f"{ours} = {theirs!r}" for ours, theirs in renamed.items())
    rank_zero_info(f"{source.title}: {said}; `columns` names others")
    return open_source(source, columns={**source.chosen, **renamed})


def messages_of(source: RecordSource, labeled: bool = True) -> Messages:
    """Read the records of a source with the columns ``label``, ``text``, perhaps ``id``, and others to slice by.

    Where they are not ``labeled``, labels are neither needed nor read, and are empty.

    Raises:
        InputError: A label is empty or no single class, a text is none, an id is missing or comes twice, or there are
            no records.
    """
    found = Messages([], [], [], at=source.error)
    ids: dict[str, int] = {}
    identified = "id" in source.columns
    names = [name for name in source.columns if name and name not in _OWN and source.columns.count(name) == 1]
    others = {_renamed(name, names): name for name in names}
    for number, (place, record) in enumerate(source.hashed(), start=1):
        identity = str(record.get("id") or "") if identified else f"r{number:05d}"
        if not identity or ids.setdefault(identity, place) != place:
            problem = f"occurs twice, first at {ids[identity]}" if identity else "missing"
            raise source.error(place, problem, field="id", got=identity, fix="give each example an id of its own")
        found.labels.append(_label(record.get("label"), source, place) if labeled else "")
        found.texts.append(_text(record.get("text"), source, place))
        found.ids.append(identity)
        found.places.append(place)
        values = {ours: record.get(theirs) for ours, theirs in others.items()}
        found.columns.append({name: None if value is None else str(value) for name, value in values.items()})
    if not found.ids:
        raise source.error(None, "contains no examples", fix="give a label and a text in each row")
    return found


def _renamed(name: str, names: Sequence[str]) -> str:
    """Return another name, which no column has, for one that prediction files have of their own."""
    own = name in ("prediction", "score", "probability") or SCORE_NAME.fullmatch(name)
    while own and name in names:
        name = f"data_{name}"
    return name


def _label(value: Any, source: RecordSource, place: int) -> str:
    """Return a label as text, as the data write it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise several_labels(source.error, place, value)
    if value is None or not str(value).strip() or value != value:  # the last: NaN
        if all(record.get("label") is None for _, record in source):
            raise no_labels(source.error)
        raise source.error(place, "the label is empty", field="label", fix="give it a class, or leave the example out")
    return str(value)


def no_labels(error: Callable[..., InputError]) -> InputError:
    """Return the error for data whose labels are kept back, as those of the test split of many a data set."""
    fix = "use a file or split that has some; test: validation, for instance, tests on the split of that name"
    return error(None, "no example has a label", field="label", fix=fix)


def several_labels(error: Callable[..., InputError], place: int | None, got: Any) -> InputError:
    """Return the error for an example with several labels."""
    return error(
        place, "several labels for one example: multi-label classification is not supported", field="label", got=got,
        fix="give one label each, or train a classifier of yes and no for each label",
    )  # fmt: skip


def _text(value: Any, source: RecordSource, place: int) -> str:
    if value is not None and (not isinstance(value, (str, int, float)) or isinstance(value, bool)):
        raise source.error(place, "is not a text", field="text", got=value)
    return "" if value is None or value != value else str(value)
