"""Truncate or skip examples that are too long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ftkit.errors import InputError
from ftkit.examples.reader import Example

TooLong = Literal["cut", "skip"]


@dataclass(frozen=True)
class LengthRule:
    """Say what is done with an example that is too long. A prompt is never cut, so neither is an image.

    Examples of evaluation have a rule of their own: none is left out, whatever is done in training, so that all models
    are judged by the same ones. See :meth:`for_evaluation`.

    Args:
        max_length: Largest number of tokens of prompt and answer together; None for any.
        too_long: ``cut`` shortens the answer, which then has no end, and leaves out examples of which nothing would
            remain; ``skip`` leaves the example out.
        room: Tokens that a prompt has to leave for the answer; where it does not, the example is an error and not left
            out.

    Raises:
        InputError: ``max_length`` is smaller than 2.

    Example:
        >>> example = Example("r00001", "1+2=", "12345")
        >>> LengthRule(5).fit(example, 3, [1, 2, 9])
        [[1, 2]]
        >>> LengthRule(5, "skip").fit(example, 3, [1, 2, 9]) is None
        True
    """

    max_length: int | None = None
    too_long: TooLong = "cut"
    room: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 2:
            raise InputError("must be at least 2 tokens", field="max_length", got=self.max_length)

    @classmethod
    def for_evaluation(cls, context_length: int, max_new_tokens: int) -> LengthRule:
        """Return the rule of evaluation: the model's context alone cuts the answer that the loss is computed on.

        Raises:
            InputError: The longest answer that is generated would leave no room for a prompt.
        """
        if max_new_tokens >= context_length:
            raise InputError(
                f"leaves no room for a prompt in the model's context of {context_length:,} tokens",
                field="max_new_tokens",
                got=max_new_tokens,
            )
        return cls(context_length, "cut", room=max_new_tokens)

    def within(self, context_length: int) -> LengthRule:
        """Return the same rule for a model that takes no more than so many tokens."""
        return replace(self, max_length=min(self.max_length or context_length, context_length))

    def leaves_whole(self, prompt_length: int, *answers: list[int]) -> bool:
        """Return whether an example fits without being cut."""
        longest = max(self.room or 0, *map(len, answers))
        return self.max_length is None or prompt_length + longest <= self.max_length

    def fit(self, example: Example, prompt_length: int, *answers: list[int]) -> list[list[int]] | None:
        """Return the answers cut to the length that is allowed, or None if the example is to be left out.

        A prompt that does not leave the room that it has to is refused.
        """
        if self.max_length is None:
            return list(answers)
        room = self.max_length - prompt_length
        if self.room is not None and room < self.room:
            raise example.error(
                f"the prompt has {prompt_length} tokens, but only {self.max_length - self.room} fit",
                fix="shorten it, or set a smaller max_new_tokens",
            )
        if room < 1 or (self.too_long == "skip" and max(map(len, answers)) > room):
            return None
        return [answer[:room] for answer in answers]
