"""Find what a chat template writes around an answer, and remove it from generated answers.

Qwen3 puts an empty block of thoughts before an answer, other templates end a turn with plain text. A model that was
tuned on such a target writes the same, so a generated answer can equal the expected one only without it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import takewhile
from typing import Any, NamedTuple

from ftkit.models.generation import text_until_end


class Affixes(NamedTuple):
    """Hold the text around an answer: from the end of the prompt to it, and up to the end of the turn."""

    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, one: str, other: str) -> Affixes:
        """Return what is around two answers, given both with it; the answers differ in the first and last character."""
        if one == other:  # the template leaves answers out
            return NO_AFFIXES
        return cls(_shared(one, other), _shared(one[::-1], other[::-1])[::-1])

    def generated(self, tokenizer: Any, ends: Collection[int]) -> Affixes:
        """Return them as a model generates them: nothing behind its end tokens ``ends``, and no special tokens."""
        tokens = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in self)
        return Affixes(*(text_until_end(ids, ends, tokenizer)[0] for ids in tokens))

    def taken_off(self, text: str) -> str:
        """Return a generated answer without them, as :meth:`generated` returns them, and without outer whitespace."""
        text = text.strip().removeprefix(self.before.strip())
        return text.removesuffix(self.after.strip()).strip()


NO_AFFIXES = Affixes()


def _shared(one: str, other: str) -> str:
    """Return what two texts begin with."""
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
