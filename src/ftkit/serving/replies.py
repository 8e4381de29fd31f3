"""Answers and errors in OpenAI's format."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from starlette.responses import Response

Kind = Literal["text_completion", "chat.completion"]


class Json(Response):
    """Send a JSON body; what cannot be written as UTF-8, such as half a surrogate pair, becomes ``?``."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode ``content``."""
        return encoded(content)


def encoded(content: Any) -> bytes:
    """Return ``content`` as JSON in UTF-8."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


class ApiError(Exception):
    """Tell the client of an error.

    Args:
        status: HTTP status.
        message: What is wrong.
        param: The field at fault.
        code: A machine-readable code.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> Response:
        """Return the error as a response."""
        return Json(self.body, status_code=self.status, headers=self.headers)


class Reply:
    """Builds one answer in OpenAI's format, whole or as chunks of a stream, with one id and time.

    Args:
        kind: Completion or chat.
        model: The model's name.
    """

    def __init__(self, kind: Kind, model: str) -> None:
        self.kind = kind
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self.frame = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, texts: Sequence[str], finishes: Sequence[str | None], usage: Mapping[str, int]) -> dict[str, Any]:
        """Return the complete answer."""
        choices = [
            self._choice(index, finish, {"message": {"role": "assistant", "content": text}}, text)
            for index, (text, finish) in enumerate(zip(texts, finishes, strict=True))
        ]
        return {**self.frame, "object": self.kind, "choices": choices, "usage": usage}

    def chunk(self, index: int, text: str, finish: str | None, first: bool) -> dict[str, Any]:
        """Return a part of the answer ``index``."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if text or first:
            delta["content"] = text
        return {**self._chunk_frame, "choices": [self._choice(index, finish, {"delta": delta}, text)]}

    def usage_chunk(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """Return the chunk without a choice that ends a stream whose client asked for the usage."""
        return {**self._chunk_frame, "choices": [], "usage": usage}

    @property
    def _chunk_frame(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        return {**self.frame, "object": kind}

    def _choice(self, index: int, finish: str | None, chat: Mapping[str, Any], text: str) -> dict[str, Any]:
        content = chat if self.kind == "chat.completion" else {"text": text}
        return {"index": index, **content, "logprobs": None, "finish_reason": finish}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return the counts of tokens.

    Example:
        >>> usage(3, 4)
        {'prompt_tokens': 3, 'completion_tokens': 4, 'total_tokens': 7}
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
