"""Which of the assistant's turns are supervised: the last one of a conversation, or all of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ftkit.examples.reader import Example

Supervise = Literal["last", "all"]


def earlier_answers(example: Example) -> list[int]:
    """Return the indices of the assistant's messages before the answer that follow another message."""
    if isinstance(example.prompt, str):
        return []
    return [index for index, message in enumerate(example.prompt) if index and message["role"] == "assistant"]


def turn_counts(examples: Iterable[Example], supervise: Supervise) -> dict[str, int]:
    """Count the assistant's ``turns``, and those of them that are ``supervised``.

    Example:
        >>> turn = {"role": "assistant", "content": []}
        >>> examples = [Example("a", "1+2=", "3"), Example("b", [{"role": "user", "content": []}, turn, turn], "4")]
        >>> turn_counts(examples, "last"), turn_counts(examples, "all")
        ({'supervised': 2, 'turns': 4}, {'supervised': 4, 'turns': 4})
    """
    supervised = turns = 0
    for example in examples:
        messages = [] if isinstance(example.prompt, str) else example.prompt
        turns += 1 + sum(message["role"] == "assistant" for message in messages)
        supervised += 1 + (len(earlier_answers(example)) if supervise == "all" else 0)
    return {"supervised": supervised, "turns": turns}


def supervision_line(supervise: Supervise, supervised: int, turns: int) -> str:
    """Say which turns of conversations are supervised, and how many of the assistant's turns these are.

    Example:
        >>> supervision_line("last", 412, 1020)
        'Supervised: the last assistant turn of each conversation (412 of 1,020 assistant turns)'
    """
    which = {"last": "the last assistant turn of each conversation", "all": "all assistant turns that answer something"}
    return f"Supervised: {which[supervise]} ({supervised:,} of {turns:,} assistant turns)"


def examples_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what a data module's report says of the shapes of its examples and of supervised turns."""
    lines = [f"Shape of {split} examples: {', '.join(found)}" for split, found in report.get("shapes", {}).items()]
    turns = report.get("supervised_turns")
    if turns and (turns["turns"] > turns["supervised"] or turns["supervise"] == "all"):
        lines.append(supervision_line(**turns))
    return lines
