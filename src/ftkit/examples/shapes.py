"""Shapes of training records: which columns hold the prompt and the answer, found by their names."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

from ftkit.examples.messages import Message, Part, Refuse, read_messages, read_text, text_of

Record = dict[str, Any]
_QUESTIONS, _ANSWERS = ("question", "query"), ("answer", "response")


class Shape(NamedTuple):
    """Name the columns of one way to write examples.

    Attributes:
        names: The columns: of ``messages``; or of ``prompt`` with ``completion`` or with ``chosen`` and ``rejected``;
            or of the last two without a prompt.
        title: Whose shape it is, if not ftkit's own.
        more: A column that belongs to the prompt, if there is one.
    """

    names: Mapping[str, str]
    title: str = ""
    more: str = ""

    def __str__(self) -> str:
        return " + ".join(self.names.values())

    @property
    def described(self) -> str:
        """Return what reports call the shape; empty for ftkit's own."""
        return f"{self.title} ({self})" if self.title else ""


def _own(*names: str) -> Shape:
    return Shape({name: name for name in names})


SHAPES = (
    _own("messages"),
    _own("prompt", "completion"),
    _own("prompt", "chosen", "rejected"),
    _own("chosen", "rejected"),
    Shape({"prompt": "prefix", "completion": "suffix"}),
    Shape({"messages": "conversations"}, "ShareGPT"),
    Shape({"prompt": "instruction", "completion": "output"}, "Alpaca", "input"),
    *(Shape({"prompt": one, "completion": two}, "question and answer") for one, two in product(_QUESTIONS, _ANSWERS)),
    Shape({"prompt": "query", "completion": "label"}, "ChartQA"),
    Shape({"prompt": "question", "chosen": "chosen", "rejected": "rejected"}, "RLAIF-V"),
)
# Columns that are not passed on to predictions, whatever the shape.
OWN_NAMES = {"id", "image", "images", "tools", *(name for shape in SHAPES[:5] for name in shape.names.values())}
_PROMPTS = {name for shape in SHAPES for own, name in shape.names.items() if own in ("messages", "prompt")}
_COMPLETIONS = {shape.names["completion"] for shape in SHAPES if "completion" in shape.names}


def find_shape(record: Record, refuse: Refuse) -> Shape:
    """Return the shape of a record; one whose columns are among those of another does not count.

    Raises:
        InputError: The record has no known shape, or several.
    """
    found = [shape for shape in SHAPES if record.keys() >= set(shape.names.values())]
    if record.get("messages") == record.get("chosen"):  # UltraFeedback has the chosen conversation twice
        found = [shape for shape in found if "messages" not in shape.names.values()]
    keys = [set(shape.names.values()) for shape in found]
    found = [shape for shape, own in zip(found, keys, strict=True) if not any(own < other for other in keys)]
    if len(found) == 1:
        return found[0]
    problem, fix = "the example has no known shape", f"give one of: {', '.join(map(str, SHAPES))}"
    if found:
        problem = f"the example has several shapes: {', '.join(map(str, found))}"
        fix = "leave out or rename the other columns"
    elif record.keys() & {"image", "images"} and record.keys() & _COMPLETIONS:
        problem = "the example has an image and an answer, but no question"
        fix = "give a column of questions, or one question for all images: --data.question"
    raise refuse(problem, got=sorted(record), fix=fix)


def with_question(record: Record, question: str | None, refuse: Refuse) -> Record:
    """Return a record of an image and an answer, and no question, with the one that is asked of every image.

    Raises:
        InputError: Several columns could be the answer.
    """
    answers = sorted(record.keys() & _COMPLETIONS)
    asked = any(str(record.get(name, "")).strip() for name in _PROMPTS)
    if question is None or asked or not answers or not record.keys() & {"image", "images"}:
        return record
    if len(answers) > 1:
        raise refuse("several columns could be the answer", got=answers, fix="rename those that are not")
    rest = {name: value for name, value in record.items() if name not in (*answers, *_PROMPTS)}
    return {**rest, "prefix": question, "suffix": record[answers[0]]}


def read_shape(record: Record, shape: Shape, refuse: Refuse) -> tuple[Any, str, str | None]:
    """Return the prompt, the answer and the rejected answer of a record.

    Returns:
        A text or messages, which still hold the images given inside them and have no places for those beside them; a
        text; and a text, or None where there is no preference.

    Raises:
        InputError: A value is not what its column holds, or chosen and rejected answer different prompts.
    """
    names = shape.names
    if "messages" in names:
        return *_conversation(record[names["messages"]], names["messages"], refuse), None
    asked = None
    if "prompt" in names:
        name = names["prompt"]
        read: Callable[..., Any] = read_messages if isinstance(record[name], list) and not shape.more else read_text
        asked = read(record[name], name, refuse)
        if shape.more and (more := read_text(record.get(shape.more, ""), shape.more, refuse)).strip():
            asked = f"{asked}\n\n{more}"
    if "completion" in names:
        return asked, _answer(record[names["completion"]], names["completion"], refuse), None
    chosen, rejected = record[names["chosen"]], record[names["rejected"]]
    if asked is not None and not (isinstance(chosen, list) and len(chosen) > 1):
        return asked, _answer(chosen, names["chosen"], refuse), _answer(rejected, names["rejected"], refuse)
    prompt, chosen = _conversation(chosen, names["chosen"], refuse)
    other, rejected = _conversation(rejected, names["rejected"], refuse)
    if prompt != other:
        raise refuse("chosen and rejected differ before the last message", fix="give the prompt separately")
    told = [text_of(message["content"]).strip() for message in prompt if message["role"] == "user"]
    if asked not in (None, prompt) and not (isinstance(asked, str) and asked.strip() in told):
        raise refuse("the prompt is not that of the conversation in chosen", field=names["prompt"], got=asked)
    return prompt, chosen, rejected


def _conversation(value: Any, name: str, refuse: Refuse) -> tuple[list[Message], str]:
    """Return the messages before the answer, and the answer."""
    *before, answer = read_messages(value, name, refuse)
    if not before:
        raise refuse("there is no message before the answer", field=name, fix="begin with a user message")
    return before, _answer([answer], name, refuse)


def _answer(value: Any, name: str, refuse: Refuse) -> str:
    """Return the text of an answer, given as such or as one message of the assistant."""
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        value = value[0]  # of several answers
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        value = json.dumps(value)
    if not value or not isinstance(value, str | list):
        raise refuse("must be a text, a number or a message of the assistant", field=name, got=value)
    parts: list[Part] = [{"type": "text", "text": str(value)}]
    if not isinstance(value, str):
        messages = read_messages(value, name, refuse)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            got = [message["role"] for message in messages]
            raise refuse("the answer must be one assistant message", field=name, got=got)
        if "tool_calls" in messages[0]:
            problem = "the answer is a function call, which is allowed in earlier turns only"
            raise refuse(problem, field=name, fix="write the call as the text that the model is to generate")
        parts = messages[0]["content"]
    if any(part["type"] == "image" for part in parts):
        raise refuse("the answer contains an image", field=name)
    text = read_text(text_of(parts), name, refuse)
    if not text.strip():
        raise refuse("the answer is empty", field=name)
    return text
