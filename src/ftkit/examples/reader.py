"""Training examples of text and image-text models: one reader for the shapes that such data comes in.

A source is a file of JSON lines, or a folder that ``datasets.Dataset.save_to_disk`` wrote. An example has one of the
shapes

- ``messages``: a conversation whose last message is the assistant's answer, and whose earlier ones may hold
  ``tool_calls`` and, in the role ``tool``, their results;
- ``prompt`` and ``completion``: two texts, or two lists of messages;
- ``chosen`` and ``rejected``: two answers to ``prompt``, or two conversations that differ in the last message only;
- ``prefix`` and ``suffix``: two texts;

each with ``image`` or ``images`` (paths below the data root) if it has any, possibly ``tools`` (functions that the
assistant may call, as JSON schemas or as a text that holds them), possibly an ``id``, and other columns.
Where an image stands is said by a part ``{"type": "image"}`` of a message or by ``<image>`` in a text; images of an
example that says it nowhere come before its first question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.examples.image_files import image_path, read_bytes
from ftkit.examples.messages import (
    PLACEHOLDER,
    Message,
    Part,
    Refuse,
    read_messages,
    read_text,
    read_tools,
    text_of,
)
from ftkit.examples.records import StoredImage, json_records, saved_records

_SHAPES = (("messages",), ("prompt", "completion"), ("chosen", "rejected"), ("prefix", "suffix"))
_OWN = {"id", "image", "images", "tools", *(name for shape in _SHAPES for name in shape)}
# Columns that a prediction file has of its own, or makes of what a model returns.
_OF_PREDICTIONS = re.compile(r"label|prediction|score|probability|stopped|(probability|log_odds):.+", re.DOTALL)

ImageReference = Path | StoredImage


@dataclass(frozen=True)
class Example:
    """Hold one example to train on, whatever shape it came in.

    Args:
        id: Its unique name.
        prompt: The messages before the answer, with parts as content; or a text with ``<image>`` for each image.
        completion: The answer to train on; of a preference example the chosen one.
        rejected: The answer to avoid, of a preference example.
        images: Its images, in the order of their places in the prompt.
        columns: The other columns, as text; none of images.
        file: Where it was read.
        line: Its line, or its place in a data set, counted from 1.
        tools: The functions that the assistant may call, as the chat template takes them.
    """

    id: str
    prompt: str | list[Message]
    completion: str
    rejected: str | None = None
    images: tuple[ImageReference, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    line: int = 0
    tools: list[dict[str, Any]] = field(default_factory=list)

    def error(self, problem: str, **details: Any) -> InputError:
        """Return an error about this example, which says where the example is."""
        return InputError(problem, file=self.file or None, line=self.line or None, **details)


def read_examples(source: str | Path, image_root: str | Path | None = None) -> list[Example]:
    r"""Read all examples of a file or a saved data set, and check that their images are there.

    Args:
        source: A file of JSON lines, or a folder that ``datasets.Dataset.save_to_disk`` wrote.
        image_root: The folder that paths of images start from and may not leave; None takes that of ``source``.

    Returns:
        The examples in order. An example without an ``id`` is named by its line: ``r00001``.

    Raises:
        InputError: The source cannot be read, or an example is of no known shape, has an image that is missing, outside
            ``image_root`` or an address, or its numbers of images and of places for them differ. The message names the
            line.
        EnvironmentFault: A data set is given and the package ``datasets`` is missing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sums.jsonl"
        >>> _ = file.write_text('{"prompt": "1+2=", "completion": "3"}\n')
        >>> example = read_examples(file)[0]
        >>> example.id, example.prompt, example.completion
        ('r00001', '1+2=', '3')
    """
    path = Path(source).expanduser()
    saved = path.is_dir()
    root = Path(image_root).expanduser() if image_root is not None else path if saved else path.parent
    examples: dict[str, Example] = {}
    for line, record in saved_records(path) if saved else json_records(path):
        example = _example(record, Example("", "", "", file=str(path), line=line), root)
        if (first := examples.setdefault(example.id, example)) is not example:
            raise example.error(f"the id comes twice, first in line {first.line}", field="id", got=example.id)
    if not examples:
        raise InputError("holds no examples", file=path)
    return list(examples.values())


def _example(record: dict[str, Any], bare: Example, root: Path) -> Example:
    """Return the example of a record; ``bare`` has its place only."""
    record = {key: value for key, value in record.items() if value is not None}
    identity = record.get("id", f"r{bare.line:05d}")
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise bare.error("must be text or a whole number", field="id", got=identity)
    prompt, completion, rejected = _by_shape(record, bare.error)
    if {"image", "images"} <= record.keys():
        raise bare.error("the example has both image and images", field="images", fix="give one of them")
    inline = [part.pop("image") for part in _parts_of(prompt) if "image" in part]
    given = record.get("images", record.get("image", inline))
    if inline and given is not inline:
        problem = "images are given both inside the messages and beside them"
        raise bare.error(problem, field="images", got=given, fix="give one of them")
    given = given if isinstance(given, list) else [given]
    images = tuple(_image(value, f"images[{number}]", root, bare.error) for number, value in enumerate(given))
    columns = {
        f"data_{key}" if _OF_PREDICTIONS.fullmatch(key) else key: _cell(value)
        for key, value in record.items()
        if key not in _OWN and not _holds_images(value)
    }
    prompt = _with_places(prompt, len(images), bare.error)
    tools = read_tools(record.get("tools", []), bare.error)
    return replace(
        bare, id=str(identity), prompt=prompt, completion=completion, rejected=rejected, images=images, columns=columns,
        tools=tools,
    )  # fmt: skip


def _by_shape(record: dict[str, Any], refuse: Refuse) -> tuple[Any, str, str | None]:
    """Return the prompt (not yet with places for images), the answer and the rejected answer of a record."""
    found = [shape for shape in _SHAPES if set(shape) <= record.keys()]
    if len(found) != 1:
        problem = "the example has several shapes" if found else "the example has no known shape"
        raise refuse(problem, got=sorted(record), fix=f"give one of: {', '.join(' + '.join(one) for one in _SHAPES)}")
    names = found[0]
    if "messages" in names:
        return *_conversation(record["messages"], "messages", refuse), None
    if "chosen" in names and "prompt" not in record:
        prompt, chosen = _conversation(record["chosen"], "chosen", refuse)
        other, rejected = _conversation(record["rejected"], "rejected", refuse)
        if prompt != other:
            raise refuse("chosen and rejected differ before the last message", fix="give the prompt separately")
        return prompt, chosen, rejected
    if "prefix" in names:
        return read_text(record["prefix"], "prefix", refuse), _answer(record["suffix"], "suffix", refuse), None
    asked = record["prompt"]
    asked = read_text(asked, "prompt", refuse) if isinstance(asked, str) else read_messages(asked, "prompt", refuse)
    answers = [_answer(record[name], name, refuse) for name in names if name != "prompt"]
    return asked, answers[0], answers[1] if len(answers) == 2 else None


def _conversation(value: Any, name: str, refuse: Refuse) -> tuple[list[Message], str]:
    """Return the messages before the answer, and the answer."""
    *before, answer = read_messages(value, name, refuse)
    if not before:
        raise refuse("there is no message before the answer", field=name, fix="begin with a user message")
    return before, _answer([answer], name, refuse)


def _answer(value: Any, name: str, refuse: Refuse) -> str:
    """Return the text of an answer, given as such or as one message of the assistant."""
    parts: list[Part] = [{"type": "text", "text": value}]
    if not isinstance(value, str):
        messages = read_messages(value, name, refuse)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            got = [message["role"] for message in messages]
            raise refuse("the answer must be one assistant message", field=name, got=got)
        if "tool_calls" in messages[0]:
            problem = "the answer is a function call, which is allowed in earlier turns only"
            raise refuse(problem, field=name, fix="write the call as the text that the model is to generate")
        parts = messages[0]["content"]
    text = read_text(text_of(parts), name, refuse)
    if not text.strip():
        raise refuse("the answer is empty", field=name)
    if PLACEHOLDER in text:
        raise refuse(f"the answer holds an image, or the text {PLACEHOLDER}", field=name)
    return text


def _with_places(prompt: str | list[Message], images: int, refuse: Refuse) -> str | list[Message]:
    """Return the prompt with a place for each image: where it says, or before the first question."""
    places = count_places(prompt)
    if places == images:
        return prompt
    if places:
        problem = f"{images} images for {places} places in the prompt"
        raise refuse(problem, field="images", fix=f'one {PLACEHOLDER} or {{"type": "image"}} for each image')
    if isinstance(prompt, str):
        return PLACEHOLDER * images + prompt
    first = next((number for number, message in enumerate(prompt) if message["role"] == "user"), None)
    if first is None:
        raise refuse("there are images, but no user message to put them in", field="images")
    content = [{"type": "image"}] * images + prompt[first]["content"]
    return [*prompt[:first], {"role": "user", "content": content}, *prompt[first + 1 :]]


def count_places(prompt: str | list[Message]) -> int:
    """Return how many places for images a prompt has."""
    return prompt.count(PLACEHOLDER) if isinstance(prompt, str) else text_of(_parts_of(prompt)).count(PLACEHOLDER)


def _parts_of(prompt: str | list[Message]) -> list[Part]:
    return [] if isinstance(prompt, str) else [part for message in prompt for part in message["content"]]


def _image(value: Any, name: str, root: Path, refuse: Refuse) -> ImageReference:
    if isinstance(value, StoredImage):
        return value
    if not isinstance(value, str) or not value:
        raise refuse("must be the path of an image", field=name, got=value)
    try:
        return image_path(value, root)
    except InputError as error:
        raise refuse(str(error), field=name) from error


def image_bytes(image: ImageReference) -> bytes:
    """Return the bytes of an image's file.

    Raises:
        InputError: The file is gone, no regular file, empty, too large, or cannot be read.
    """
    return read_bytes(image) if isinstance(image, Path) else image.read()


def _holds_images(value: Any) -> bool:
    """Return whether a column of a saved data set is of images, such as masks, which are not text."""
    return any(isinstance(one, StoredImage) for one in (value if isinstance(value, list) else [value]))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
