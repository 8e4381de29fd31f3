"""Messages of conversations: their parts, the images in them, and the functions that an assistant may call."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from ftkit.errors import InputError

PLACEHOLDER = "<image>"  # in the texts of an example, whatever the model's own image token is
ROLES = ("system", "user", "assistant", "tool")
Part = dict[str, str]  # {"type": "text", "text": ...} or {"type": "image"}
Message = dict[str, Any]  # {"role": str, "content": list[Part]}, and where functions are called what _CALLS names
Refuse = Callable[..., InputError]  # makes an error that names the example

# What others call the roles, and the parts of a message.
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "observation": "tool"}
_PARTS = {"input_text": "text", "output_text": "text", "input_image": "image", "image_url": "image"}
_CALLS = {"assistant": {"tool_calls"}, "tool": {"tool_call_id", "name"}}
_TOOLS = 'give a JSON schema for each, [{"type": "function", "function": {"name": ...}}], or rename the column'


def read_messages(value: Any, name: str, refuse: Refuse) -> list[Message]:
    """Return the messages of a conversation with their contents as parts.

    They are objects with ``role`` and ``content``, a text or a list of parts; or, as ShareGPT has them, with ``from``
    and ``value``.

    Raises:
        InputError: It is not such a list.
    """
    if not isinstance(value, list) or not value:
        raise refuse("must be a list of messages", field=name, got=value)
    messages = []
    for number, message in enumerate(value):
        where = f"{name}[{number}]"
        given = _without_null(message) if isinstance(message, dict) else {}
        if given.keys() >= {"from", "value"}:
            given = {"role": given.pop("from"), "content": given.pop("value"), **given}
        if isinstance(given.get("role"), str):
            given["role"] = _ROLES.get(given["role"], given["role"])
        if given.get("role", ROLES[0]) not in ROLES:
            raise refuse("unknown role", field=where, got=given["role"], fix=f"use {', '.join(ROLES)}")
        calls = _calls(given, where, refuse) if "role" in given else {}
        if "tool_calls" in calls:
            given.setdefault("content", [])
        if given.keys() - calls.keys() != {"role", "content"}:
            raise refuse("a message must have a role and a content, and nothing else", field=where, got=message)
        messages.append({"role": given["role"], "content": _parts(given["content"], where, refuse), **calls})
    return messages


def read_text(value: Any, name: str, refuse: Refuse) -> str:
    """Return a text, if it is one that can be written as UTF-8.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, str):
        raise refuse("must be text", field=name, got=value)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise refuse("contains half of a surrogate pair, which is not a character", field=name, got=value)
    return value


def split_places(text: str) -> list[Part]:
    """Return the parts of a text with ``<image>`` in it.

    Example:
        >>> split_places("<image>How many?")
        [{'type': 'image'}, {'type': 'text', 'text': 'How many?'}]
    """
    parts: list[Part] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        parts += [{"type": "image"}] * bool(number)
        parts += [{"type": "text", "text": piece}] * (bool(piece) or PLACEHOLDER not in text)
    return parts


def text_of(parts: Iterable[Part]) -> str:
    """Return the parts of a message as one text, with ``<image>`` for each image.

    Example:
        >>> text_of(split_places("<image>How many?"))
        '<image>How many?'
    """
    return "".join(PLACEHOLDER if part["type"] == "image" else part["text"] for part in parts)


def read_tools(value: Any, refuse: Refuse) -> list[dict[str, Any]]:
    """Return the functions of an example: a list of JSON schemas, or a text that holds one, as a table's columns must.

    Raises:
        InputError: It is not such a list.
    """
    try:
        tools = json.loads(value) if isinstance(value, str) else _without_null(value)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON: {error}", field="tools", got=value, fix=_TOOLS) from error
    if not _are_objects(tools):
        raise refuse("must be a list of functions", field="tools", got=value, fix=_TOOLS)
    return tools


def _parts(content: Any, where: str, refuse: Refuse) -> list[Part]:
    """Return the parts of a message; an image may be beside it, in ``image`` or in OpenAI's ``image_url``."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise refuse("the content must be text or a list of parts", field=where, got=content)
    parts: list[Part] = []
    for part in content:
        known = part if isinstance(part, dict) else {}
        kind = _PARTS.get(str(known.get("type")), known.get("type"))
        if kind == "text" and known.keys() == {"type", "text"}:
            parts.append({"type": "text", "text": read_text(known["text"], where, refuse)})
        elif kind == "image" and known.keys() <= {"type", "image"}:
            parts.append(dict(known))
        elif kind == "image" and known.keys() <= {"type", "image_url", "detail"}:
            address: Any = known.get("image_url")
            address = address.get("url") if isinstance(address, dict) else address
            parts.append({"type": "image", "image": address})
        else:
            raise refuse("unknown part of a message", field=where, got=part, fix="use the types text and image_url")
    return parts


def _calls(message: dict[str, Any], where: str, refuse: Refuse) -> dict[str, Any]:
    """Return what a message has where functions are called: the calls, or what a result belongs to."""
    found = {name: message[name] for name in _CALLS.get(str(message["role"]), ()) if name in message}
    for name, value in found.items():
        if name == "tool_calls" and not (value and _are_objects(value)):
            raise refuse("must be a list of calls", field=f"{where}.{name}", got=value)
        if name != "tool_calls" and not isinstance(value, str):
            raise refuse("must be text", field=f"{where}.{name}", got=value)
    return found


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and one for one in value)


def _without_null(value: Any) -> Any:
    """Return a value without the nulls that a saved data set adds, because all its examples have the same keys."""
    if isinstance(value, dict):
        return {key: _without_null(part) for key, part in value.items() if part is not None}
    return [_without_null(part) for part in value] if isinstance(value, list) else value
