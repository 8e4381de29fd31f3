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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.examples.files import StoredImage, json_records, saved_records
from ftkit.examples.image_files import image_path, read_bytes
from ftkit.examples.tools import read_tools, tool_fields

PLACEHOLDER = "<image>"  # in the texts of an example, whatever the model's own image token is
ROLES = ("system", "user", "assistant", "tool")
Part = dict[str, str]  # {"type": "text", "text": ...} or {"type": "image"}
Message = dict[str, Any]  # {"role": str, "content": list[Part]}, and what tool_fields returns

_SHAPES = ({"messages"}, {"prompt", "completion"}, {"chosen", "rejected"}, {"prefix", "suffix"})
_OWN = {"id", "image", "images", "tools", "prompt", *(name for shape in _SHAPES for name in shape)}
# Columns that a prediction file has of its own, or makes of what a model returns.
_OF_PREDICTIONS = re.compile(r"label|prediction|score|probability|stopped|(probability|log_odds):.+", re.DOTALL)

ImageReference = Path | StoredImage


@dataclass(frozen=True)
class Example:
    """One example to train on, whatever shape it came in.

    Args:
        id: Its unique name.
        prompt: The messages before the answer, with parts as content; or a text with ``<image>`` for each image.
        completion: The answer to learn; of a preference example the chosen one.
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
        """An error about this example, which says where the example is."""
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
            ``image_root`` or an address, or other numbers of images and places for them. The message names the line.
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
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for line, record in saved_records(path) if saved else json_records(path):
        example = _example(record, str(path), line, root)
        if (first := seen.setdefault(example.id, line)) != line:
            raise example.error(f"the id comes twice, first in line {first}", field="id", got=example.id)
        examples.append(example)
    if not examples:
        raise InputError("holds no examples", file=path)
    return examples


def _example(record: dict[str, Any], file: str, line: int, root: Path) -> Example:
    bare = Example("", "", "", file=file, line=line)  # for its errors
    record = {key: value for key, value in record.items() if value is not None}
    identity = record.get("id", f"r{line:05d}")
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise bare.error("must be a text or a whole number", field="id", got=identity)
    prompt, completion, rejected = _by_shape(record, bare)
    prompt, inline = _placed_images(prompt)
    if {"image", "images"} <= record.keys():
        raise bare.error("the example has both image and images", field="images", fix="give one of them")
    given = record.get("images", record.get("image", inline))
    if inline and given is not inline:
        raise bare.error(
            "images inside the messages and beside them", field="images", got=given, fix="give one of them"
        )
    given = given if isinstance(given, list) else [given]
    images = tuple(_image(value, number, root, bare) for number, value in enumerate(given))
    columns = {
        f"data_{key}" if _OF_PREDICTIONS.fullmatch(key) else key: _cell(value)
        for key, value in record.items()
        if key not in _OWN and not _holds_images(value)
    }
    bare = replace(
        bare, id=str(identity), images=images, columns=columns, tools=read_tools(record.get("tools", []), bare.error)
    )
    example = replace(bare, completion=completion, rejected=rejected, prompt=prompt)
    return replace(example, prompt=_with_places(example))


def _by_shape(record: dict[str, Any], example: Example) -> tuple[Any, str, str | None]:
    """The prompt (not yet with places for images), the answer and the rejected answer of a record."""
    found = [shape for shape in _SHAPES if shape <= record.keys()]
    if len(found) != 1:
        shapes = ", ".join(" + ".join(sorted(shape)) for shape in _SHAPES)
        problem = "the example has no known shape" if not found else "the example has several shapes"
        raise example.error(problem, got=sorted(record), fix=f"give one of: {shapes}")
    if "messages" in found[0]:
        *before, answer = _messages(record["messages"], "messages", example)
        _check_asked(before, "messages", example)
        return before, _answer([answer], "messages", example), None
    if "prefix" in found[0]:
        return _text(record["prefix"], "prefix", example), _answer(record["suffix"], "suffix", example), None
    if "completion" in found[0]:
        return _prompt(record["prompt"], example), _answer(record["completion"], "completion", example), None
    chosen, rejected = record["chosen"], record["rejected"]
    if "prompt" in record:
        prompt = _prompt(record["prompt"], example)
    else:
        *prompt, chosen = _messages(chosen, "chosen", example)
        *other, rejected = _messages(rejected, "rejected", example)
        if prompt != other:
            raise example.error("chosen and rejected differ before the last message", fix="give the prompt apart")
        _check_asked(prompt, "chosen", example)
        chosen, rejected = [chosen], [rejected]
    return prompt, _answer(chosen, "chosen", example), _answer(rejected, "rejected", example)


def _check_asked(before: list[Message], name: str, example: Example) -> None:
    if not before:
        raise example.error(
            "there is no message before the answer", field=name, fix="begin with a question of the user"
        )


def _prompt(value: Any, example: Example) -> str | list[Message]:
    return _text(value, "prompt", example) if isinstance(value, str) else _messages(value, "prompt", example)


def _answer(value: Any, name: str, example: Example) -> str:
    """The text of an answer, given as such or as one message of the assistant."""
    if isinstance(value, str):
        text = _text(value, name, example)
    else:
        messages = _messages(value, name, example)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            got = [message["role"] for message in messages]
            raise example.error("the answer must be one message of the assistant", field=name, got=got)
        if "tool_calls" in messages[0]:
            problem = "the answer is a call of a function, which only earlier turns may be"
            raise example.error(problem, field=name, fix="write the call as the text that the model is to say")
        if any(part["type"] != "text" for part in messages[0]["content"]):
            raise example.error("the answer holds an image", field=name)
        text = "".join(part["text"] for part in messages[0]["content"])
    if not text.strip():
        raise example.error("the answer is empty", field=name)
    if PLACEHOLDER in text:
        raise example.error(f"the answer holds {PLACEHOLDER}", field=name)
    return text


def _messages(value: Any, name: str, example: Example) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise example.error("must be a list of messages", field=name, got=value)
    messages = []
    for number, message in enumerate(value):
        where = f"{name}[{number}]"
        given = {key: part for key, part in message.items() if part is not None} if isinstance(message, dict) else {}
        if given.get("role", ROLES[0]) not in ROLES:
            raise example.error("unknown role", field=where, got=given["role"], fix=f"use {', '.join(ROLES)}")
        calls = tool_fields(given, where, example.error) if "role" in given else {}
        if "tool_calls" in calls:
            given.setdefault("content", [])
        if given.keys() - calls.keys() != {"role", "content"}:
            raise example.error("a message has a role and a content, nothing else", field=where, got=message)
        messages.append({"role": given["role"], "content": _parts(given["content"], where, example), **calls})
    return messages


def _parts(content: Any, where: str, example: Example) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": _text(content, where, example)}]
    if not isinstance(content, list):
        raise example.error("the content must be a text or a list of parts", field=where, got=content)
    parts: list[dict[str, Any]] = []
    for part in content:
        known = {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
        if known.keys() == {"type", "text"} and known["type"] == "text":
            parts.append({"type": "text", "text": _text(known["text"], where, example)})
        elif known.get("type") == "image" and known.keys() <= {"type", "image"}:
            parts.append(known)
        else:
            raise example.error("unknown part of a message", field=where, got=part, fix="use the types text and image")
    return parts


def _text(value: Any, name: str, example: Example) -> str:
    if not isinstance(value, str):
        raise example.error("must be a text", field=name, got=value)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise example.error("holds half of a surrogate pair, which is no character", field=name, got=value)
    return value


def _placed_images(prompt: str | list[Message]) -> tuple[str | list[Message], list[Any]]:
    """The prompt with bare places for images, and the images that were given inside it."""
    if isinstance(prompt, str):
        return prompt, []
    inline = [part["image"] for message in prompt for part in message["content"] if "image" in part]
    return [{**message, "content": list(_split_parts(message["content"]))} for message in prompt], inline


def _split_parts(parts: list[dict[str, Any]]) -> Iterator[Part]:
    """The parts with ``<image>`` in texts turned into parts of their own."""
    for part in parts:
        yield from [{"type": "image"}] if part["type"] == "image" else split_places(part["text"])


def split_places(text: str) -> list[Part]:
    """The parts of a text with ``<image>`` in it.

    Example:
        >>> split_places("<image>How many?")
        [{'type': 'image'}, {'type': 'text', 'text': 'How many?'}]
    """
    parts: list[Part] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        parts += [{"type": "image"}] * bool(number)
        parts += [{"type": "text", "text": piece}] * (bool(piece) or PLACEHOLDER not in text)
    return parts


def _with_places(example: Example) -> str | list[Message]:
    """The prompt with a place for each image: where it says, or before the first question."""
    places = count_places(example.prompt)
    if places == len(example.images):
        return example.prompt
    if places:
        problem = f"{len(example.images)} images for {places} places in the prompt"
        raise example.error(problem, field="images", fix=f'one {PLACEHOLDER} or {{"type": "image"}} for each image')
    if isinstance(example.prompt, str):
        return PLACEHOLDER * len(example.images) + example.prompt
    first = next((number for number, message in enumerate(example.prompt) if message["role"] == "user"), None)
    if first is None:
        raise example.error("images, and no message of the user to put them in", field="images")
    prompt = list(example.prompt)
    prompt[first] = {"role": "user", "content": [{"type": "image"}] * len(example.images) + prompt[first]["content"]}
    return prompt


def count_places(prompt: str | list[Message]) -> int:
    """How many places for images a prompt has."""
    if isinstance(prompt, str):
        return prompt.count(PLACEHOLDER)
    return sum(part["type"] == "image" for message in prompt for part in message["content"])


def _image(value: Any, number: int, root: Path, example: Example) -> ImageReference:
    name = f"images[{number}]"
    if isinstance(value, StoredImage):
        return value
    if not isinstance(value, str) or not value:
        raise example.error("must be the path of an image", field=name, got=value)
    try:
        return image_path(value, root)
    except InputError as error:
        raise example.error(str(error), field=name) from error


def image_bytes(image: ImageReference) -> bytes:
    """The bytes of an image's file.

    Raises:
        InputError: The file is gone, no regular file, empty, too large, or cannot be read.
    """
    return read_bytes(image) if isinstance(image, Path) else image.read()


def _holds_images(value: Any) -> bool:
    """Whether a column of a saved data set is of images, such as masks, which are no text."""
    return any(isinstance(one, StoredImage) for one in (value if isinstance(value, list) else [value]))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
