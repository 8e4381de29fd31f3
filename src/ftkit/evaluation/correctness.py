"""The True/False column of a table without a header: it stands in for the expected answer, or has to agree with it."""

from __future__ import annotations

from pathlib import Path

from ftkit.errors import InputError
from ftkit.evaluation.blocks import Block
from ftkit.evaluation.fields import Fields
from ftkit.evaluation.layout import Layout, normalized, opposite_answer


def labels_of(layout: Layout, block: Block, path: Path) -> Fields:
    """The expected answers of a block: their own column, checked against a True/False column, or worked out from it.

    Args:
        layout: Which column holds what.
        block: Some rows.
        path: The file, for messages.

    Raises:
        InputError: A row contradicts itself, or its expected answer cannot be worked out.
    """
    if layout.label is None:
        return _implied(layout, block, path)
    if layout.flag is not None:
        _check_flags(layout, block, path)
    return block.columns[layout.label]


def expected_answer(flag: str, answer: str) -> str | None:
    """The yes/no label that a True/False mark and the answer imply; None when they imply none.

    Example:
        >>> expected_answer("False", "yes"), expected_answer("True", "yes"), expected_answer("False", "perhaps")
        ('no', 'yes', None)
    """
    other = opposite_answer(answer)
    if other is None or flag not in ("True", "False"):
        return None
    return answer if flag == "True" else other


def contradicts(flag: str, label: str, answer: str) -> bool:
    """Whether a mark cannot be meant for this label and answer.

    Who wrote the mark may have looked at case and full stops or not, so ``Yes.`` for ``yes`` may be marked either way.

    Example:
        >>> contradicts("True", "no", "yes"), contradicts("False", "yes", "yes"), contradicts("False", "yes", "Yes.")
        (True, True, False)
    """
    if flag == "True":
        return normalized(label) != normalized(answer)
    return flag != "False" or label == answer


def _implied(layout: Layout, block: Block, path: Path) -> Fields:
    assert layout.flag is not None
    flags, answers = block.columns[layout.flag].texts(), block.columns[layout.prediction].texts()
    labels = []
    for flag, answer, line in zip(flags, answers, block.lines.tolist(), strict=True):
        label = expected_answer(flag, answer)
        if label is None:
            raise InputError(
                "the expected answer cannot be worked out: it needs True or False, and yes or no at the end",
                file=path,
                line=line,
                got=f"{flag} ... {answer}",
                fix="add a column with the expected answer before the last one",
            )
        labels.append(label)
    return Fields.of(labels)


def _check_flags(layout: Layout, block: Block, path: Path) -> None:
    assert layout.label is not None
    assert layout.flag is not None
    places = (layout.flag, layout.label, layout.prediction)
    rows = zip(*(block.columns[place].texts() for place in places), block.lines.tolist(), strict=True)
    for flag, label, answer, line in rows:
        if contradicts(flag, label, answer):
            mark, expected, _ = (layout.names[place] for place in places)
            raise InputError(
                f"{mark} says {flag}, but {expected} expects {label} and the answer is {answer}",
                file=path,
                line=line,
                fix="correct the row, or name the columns in a header if others are meant",
            )
