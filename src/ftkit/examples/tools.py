"""The functions that an assistant may call, and its calls, as examples hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ftkit.errors import InputError

Refuse = Callable[..., InputError]  # makes an error that names the example

_FIX = 'give a JSON schema for each, [{"type": "function", "function": {"name": ...}}], or rename the column'
_FIELDS = {"assistant": {"tool_calls"}, "tool": {"tool_call_id", "name"}}


def read_tools(value: Any, refuse: Refuse) -> list[dict[str, Any]]:
    """Return the functions of an example.

    Args:
        value: A list of JSON schemas, or a text that holds one, because a table's columns cannot hold schemas.
        refuse: Makes an error that names the example.

    Raises:
        InputError: It is not such a list.
    """
    try:
        tools = json.loads(value) if isinstance(value, str) else _without_null(value)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON: {error}", field="tools", got=value, fix=_FIX) from error
    if not _are_objects(tools):
        raise refuse("must be a list of functions", field="tools", got=value, fix=_FIX)
    return tools


def tool_fields(message: dict[str, Any], where: str, refuse: Refuse) -> dict[str, Any]:
    """Return what a message has where functions are called: the calls, or what a result belongs to.

    Args:
        message: The message.
        where: Its place in the example.
        refuse: Makes an error that names the example.

    Raises:
        InputError: A field is not what chat templates take.
    """
    found = {name: _without_null(message[name]) for name in _FIELDS.get(str(message["role"]), ()) if name in message}
    for name, value in found.items():
        if name == "tool_calls" and not (value and _are_objects(value)):
            raise refuse("must be a list of calls", field=f"{where}.{name}", got=value)
        if name != "tool_calls" and not isinstance(value, str):
            raise refuse("must be a text", field=f"{where}.{name}", got=value)
    return found


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and one for one in value)


def _without_null(value: Any) -> Any:
    """Return a value without the nulls that a saved data set adds, because all its examples have the same keys."""
    if isinstance(value, dict):
        return {key: _without_null(part) for key, part in value.items() if part is not None}
    return [_without_null(part) for part in value] if isinstance(value, list) else value
