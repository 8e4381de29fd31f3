"""Edited copies planted in made-up messages: which of them the audit finds, and which have another label."""

from bench_duplicates import EDITS, figures, lone, planted
from ftkit.classifier.spam import SpamDataModule


def test_planted_copies_and_conflicts_are_found() -> None:
    messages = lone(SpamDataModule("demo").read()["train"])
    train, rest = messages[::2], messages[1::2]
    copies, halves = planted(train, each=40)
    assert len({one["id"] for one in copies}) == len(copies) == 40 * len(EDITS)
    found = figures(train, copies, [*halves, *rest], 0.6)
    assert found["recall_by_edit"]["none"] == found["recall_by_edit"]["case_and_spaces"] == 1
    assert found["precision"] == found["conflicts_precision"] == 1
