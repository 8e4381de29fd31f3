"""Decode token ids as they come: whole characters only, nothing behind a stop string, nothing of the template."""

from collections.abc import Sequence
from typing import Any

from ftkit.examples.affixes import NO_AFFIXES, Affixes

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Decode the tokens of one answer piece by piece; the pieces joined are the whole answer.

    Tokens that end inside a character, and text that may be the beginning of a stop string or of what is left out, are
    held back. Each call decodes a few last tokens only: the text of a token can depend on the one before (a
    leading space), never on more.

    Args:
        tokenizer: A transformers tokenizer.
        stop: The answer ends before the first of these strings.
        affixes: What the chat template writes around an answer, as the model generates it; it is left out.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), affixes: Affixes = NO_AFFIXES) -> None:
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._before, self._after = affixes
        self.stopped = False
        self._ids: list[int] = []
        self._context = self._read = 0  # the tokens decoded as context, and those whose text was returned
        self._held = ""

    def push(self, token: int) -> str:
        """Take the next token; return the text that is now certain."""
        self._ids.append(token)
        known = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        if len(text) <= len(known) or text.endswith(_INCOMPLETE):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._until_stop(text[len(known) :])

    def finish(self) -> str:
        """Return the text that was held back, when no more tokens come."""
        if self.stopped:
            return ""
        known = self._decode(self._ids[self._context : self._read])
        rest = self._until_stop(self._decode(self._ids[self._context :])[len(known) :])
        held, self._held = self._held, ""
        return rest if self.stopped else (rest + held).removesuffix(self._after)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _until_stop(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if self._before:
            if len(text) < len(self._before) and self._before.startswith(text):
                self._held = text
                return ""
            text, self._before = text.removeprefix(self._before), ""
        found = [index for index in map(text.find, self.stop) if index >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        held = max(_overlap(text, ending) for ending in (*self.stop, self._after))
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:size])), 0)
