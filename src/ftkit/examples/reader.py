"""Training examples of text and image-text models: one reader for the shapes that such data comes in.

A source is what :func:`ftkit.examples.sources.open_source` reads; the shape of a record is found by its columns, see
:data:`ftkit.examples.shapes.SHAPES`. Beside those a record has ``image`` or ``images`` if it has any, ``tools``, an
``id`` and other columns. Where an image stands is said by a part ``{"type": "image"}`` or ``{"type": "image_url"}`` of
a message or by ``<image>`` in a text; images of an example that says it nowhere come before its first question.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.examples.headerless import headerless_records
from ftkit.examples.image_files import find_image, holds_image, read_bytes
from ftkit.examples.messages import PLACEHOLDER, Message, Part, Refuse, read_tools, split_places
from ftkit.examples.records import StoredImage
from ftkit.examples.shapes import OWN_NAMES, Record, find_shape, read_shape, with_question
from ftkit.examples.sources import RecordSource, open_source

# Columns that a prediction file has of its own, or makes of what a model returns.
_OF_PREDICTIONS = re.compile(r"label|prediction|score|probability|stopped|(probability|log_odds):.+", re.DOTALL)

ImageReference = Path | StoredImage | bytes


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
        file: Where it was read; of a data set with the example's number.
        line: Its line in a text file, counted from 1.
        tools: The functions that the assistant may call, as the chat template takes them.
        shape: The shape in which it was written, if not one of ftkit's own.
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
    shape: str = ""

    def error(self, problem: str, **details: Any) -> InputError:
        """Return an error about this example, which says where the example is."""
        return InputError(problem, file=self.file or None, line=self.line or None, **details)


def read_examples(
    source: Any,
    image_root: str | Path | None = None,
    *,
    question: str | None = None,
    images: bool = True,
    repeated_ids: bool = False,
) -> list[Example]:
    r"""Read all examples of a source, and check that their images are there.

    Args:
        source: What :func:`ftkit.examples.sources.open_source` takes or returns.
        image_root: The folder that paths of images start from and may not leave; None takes that of ``source``.
        question: The prompt of records with an image and an answer and no question.
        images: Whether ``<image>`` in a text stands for an image, and is refused where there is none.
        repeated_ids: Whether ids may come twice; the second one is then called ``ID#2``.

    Returns:
        The examples in order. An example without an ``id`` is named by its place: ``r00001``.

    Raises:
        InputError: The source cannot be read, or an example is of no known shape, has an image that cannot be used, or
            its numbers of images and of places for them differ. The message names the place.
        EnvironmentFault: A data set is given and the package ``datasets`` is missing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sums.jsonl"
        >>> _ = file.write_text('{"prompt": "1+2=", "completion": "3"}\n')
        >>> example = read_examples(file)[0]
        >>> example.id, example.prompt, example.completion
        ('r00001', '1+2=', '3')
    """
    source = source if isinstance(source, RecordSource) else open_source(source)
    root = source.folder if image_root is None else Path(image_root).expanduser()
    examples: dict[str, Example] = {}
    times = Counter[str]()
    for place, record in source if source.has_names else headerless_records(source, source.error):
        at = source.at(place)
        bare = Example(f"r{place:05d}", "", "", file=str(at["file"]), line=at["line"] or 0)
        example = _example(record, bare, root, question, images)
        name = example.id
        while repeated_ids and example.id in examples:
            times[name] += 1
            example = replace(example, id=f"{name}#{times[name] + 1}")
        if (first := examples.setdefault(example.id, example)) is not example:
            where = f"line {first.line}" if first.line else first.file
            raise example.error(f"the id occurs twice, first in {where}", field="id", got=example.id)
    if not examples:
        raise source.error(None, "contains no examples")
    return list(examples.values())


def _example(record: Record, bare: Example, root: Path | None, question: str | None, placed: bool) -> Example:
    """Return the example of a record; ``bare`` has its place only, and the name that it has if it says none."""
    record = {key: value for key, value in record.items() if value is not None}
    identity = record.get("id", bare.id)
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise bare.error("must be text or a whole number", field="id", got=identity)
    record = with_question(record, question, bare.error)
    shape = find_shape(record, bare.error)
    prompt, completion, rejected = read_shape(record, shape, bare.error)
    images = _images(record, prompt, root, bare.error)
    prompt = _with_places(prompt, len(images), placed or bool(images), bare.error)
    if (placed or images) and (PLACEHOLDER in completion or PLACEHOLDER in (rejected or "")):
        field = [*shape.names.values()][-1 if PLACEHOLDER in (rejected or "") else -1 - (rejected is not None)]
        raise bare.error(f"the answer contains an image, or the text {PLACEHOLDER}", field=field)
    own = {*OWN_NAMES, *shape.names.values(), shape.more}
    columns = {
        f"data_{key}" if _OF_PREDICTIONS.fullmatch(key) else key: _cell(value)
        for key, value in record.items()
        if key not in own and not _holds_images(value)
    }
    tools = read_tools(record.get("tools", []), bare.error)
    return replace(
        bare, id=str(identity), prompt=prompt, completion=completion, rejected=rejected, images=images, columns=columns,
        tools=tools, shape=shape.described,
    )  # fmt: skip


def _images(record: Record, prompt: Any, root: Path | None, refuse: Refuse) -> tuple[ImageReference, ...]:
    """Return the images of a record, which stand beside its prompt or in it, and are taken out of it."""
    if {"image", "images"} <= record.keys():
        raise refuse("the example has both image and images", field="images", fix="give one of them")
    inline = [part.pop("image") for part in _parts_of(prompt) if "image" in part]
    given = record.get("images", record.get("image", inline))
    if inline and given is not inline:
        problem = "images are given both inside the messages and beside them"
        raise refuse(problem, field="images", got=given, fix="give one of them")
    given = given if isinstance(given, list) else [given]
    return tuple(_image(value, f"images[{number}]", root, refuse) for number, value in enumerate(given))


def _with_places(prompt: str | list[Message], images: int, in_texts: bool, refuse: Refuse) -> str | list[Message]:
    """Return the prompt with a place for each image: where it says, ``in_texts`` too, or before the first question."""
    if in_texts and not isinstance(prompt, str):
        prompt = [{**message, "content": _split(message["content"])} for message in prompt]
    places = 0 if isinstance(prompt, str) and not in_texts else count_places(prompt)
    if places == images:
        return prompt
    if places:
        problem = f"{images} images for {places} places in the prompt"
        one_each = f'one {PLACEHOLDER} or {{"type": "image"}} for each image'
        fix = one_each if images else f"give them in a column image or images, or take {PLACEHOLDER} out of the text"
        raise refuse(problem, field="images", fix=fix)
    if isinstance(prompt, str):
        return PLACEHOLDER * images + prompt
    first = next((number for number, message in enumerate(prompt) if message["role"] == "user"), None)
    if first is None:
        raise refuse("there are images, but no user message to put them in", field="images")
    content = [{"type": "image"}] * images + prompt[first]["content"]
    return [*prompt[:first], {"role": "user", "content": content}, *prompt[first + 1 :]]


def _split(parts: list[Part]) -> list[Part]:
    """Return the parts of a message with ``<image>`` in texts turned into parts of their own."""
    return [one for part in parts for one in (split_places(part["text"]) if part["type"] == "text" else [part])]


def count_places(prompt: str | list[Message]) -> int:
    """Return how many places for images a prompt has."""
    if isinstance(prompt, str):
        return prompt.count(PLACEHOLDER)
    return sum(part["type"] == "image" for part in _parts_of(prompt))


def _parts_of(prompt: str | list[Message]) -> list[Part]:
    return [] if isinstance(prompt, str) else [part for message in prompt for part in message["content"]]


def _image(value: Any, name: str, root: Path | None, refuse: Refuse) -> ImageReference:
    if isinstance(value, StoredImage):
        return value
    try:
        return find_image(value, root)
    except InputError as error:
        raise refuse(str(error), field=name) from error


def image_bytes(image: ImageReference) -> bytes:
    """Return the bytes of an image's file.

    Raises:
        InputError: The file is gone, no regular file, empty, too large, or cannot be read.
    """
    if isinstance(image, bytes):
        return image
    return read_bytes(image) if isinstance(image, Path) else image.read()


@contextmanager
def naming(example: Example) -> Iterator[None]:
    """Have an error of one of its images name the example."""
    try:
        yield
    except InputError as error:
        raise example.error(f"an image cannot be used: {error}", field="images") from error


def _holds_images(value: Any) -> bool:
    """Return whether a column is of images, such as masks, which are not text."""
    return any(
        isinstance(one, StoredImage) or holds_image(one) for one in (value if isinstance(value, list) else [value])
    )


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
