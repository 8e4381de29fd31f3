"""Answers and errors in OpenAI's format."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from starlette.responses import Response

from ftkit.serving.jobs import Piece, TokenScore

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
    """Tell the client of an error: its HTTP status, what is wrong, the field at fault and a machine-readable code."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        message = f"{param}: {message}" if param else message  # clients show the message alone
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> Response:
        """Return the error as a response."""
        return Json(self.body, status_code=self.status, headers=self.headers)


class Reply:
    """Build one answer in OpenAI's format, whole or as chunks of a stream, with one id and time.

    With ``decode``, which makes a text of token ids, it holds the scores of tokens.
    """

    def __init__(self, kind: Kind, model: str, decode: Callable[[list[int]], str] | None = None) -> None:
        self.kind, self.decode = kind, decode
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self.frame = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, pieces: Sequence[Piece], prompt_tokens: int) -> dict[str, Any]:
        """Return the complete answer, one piece a choice."""
        choices = [
            self._choice(index, piece, {"message": {"role": "assistant", "content": piece.text}})
            for index, piece in enumerate(pieces)
        ]
        usage = _usage(prompt_tokens, sum(piece.tokens for piece in pieces))
        return {**self.frame, "object": self.kind, "choices": choices, "usage": usage}

    def chunk(self, index: int, piece: Piece, first: bool) -> dict[str, Any]:
        """Return a part of the answer ``index``."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if piece.text or first:
            delta["content"] = piece.text
        return {**self.frame, "object": self._chunk, "choices": [self._choice(index, piece, {"delta": delta})]}

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """Return the chunk without a choice that ends a stream whose client asked for the usage."""
        return {**self.frame, "object": self._chunk, "choices": [], "usage": _usage(prompt_tokens, completion_tokens)}

    @property
    def _chunk(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat.completion" else self.kind

    def _choice(self, index: int, piece: Piece, chat: Mapping[str, Any]) -> dict[str, Any]:
        content = chat if self.kind == "chat.completion" else {"text": piece.text}
        scores = _scores(piece.scores, self.decode) if self.decode else None
        return {"index": index, **content, "logprobs": scores, "finish_reason": piece.finish}


def _scores(scores: Sequence[TokenScore], decode: Callable[[list[int]], str]) -> dict[str, Any]:
    """Return the scores of tokens in the format of completions."""
    return {
        "tokens": [decode([score.token]) for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [_by_text(score.top, decode) if score.top else None for score in scores],
    }


def _by_text(top: Mapping[int, float], decode: Callable[[list[int]], str]) -> dict[str, float]:
    """Return values by the text of their tokens; of several with one text, such as parts of characters, by id."""
    named: dict[str, float] = {}
    for token, value in top.items():
        text = decode([token])
        named[f"token_id:{token}" if text in named else text] = value
    return named


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
