"""Examples as the tokens of one model.

Prompt and answer are tokenized separately, as they are when an answer is generated, so no token belongs to both and
nothing is searched for.
"""

from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from ftkit.examples.chat_template import ChatTemplate
from ftkit.examples.padding import Spans
from ftkit.examples.reader import Example
from ftkit.examples.supervision import Supervise


class Encoded(NamedTuple):
    """Hold an example as token ids; supervised are those of the answer with its end, and ``turns`` of the prompt."""

    prompt: list[int]
    completion: list[int]
    turns: Spans = ()


class Renderer(ChatTemplate):
    """Render examples as texts and tokens for one model.

    Supervised are the ``last`` turn of the assistant or ``all`` of its turns; see
    :class:`ftkit.examples.chat_template.ChatTemplate` for the rest.
    """

    def __init__(self, processor: Any, chat: bool | None = None, supervise: Supervise = "last") -> None:
        super().__init__(processor, chat)
        self.supervise = supervise

    def encode(self, example: Example) -> Encoded:
        """Return token ids of an example without images.

        Raises:
            InputError: The prompt has no tokens, or see :meth:`__call__` and :meth:`pieces`.
        """
        prompt, completion, _ = self(example)
        (first, _), *rest = self.pieces(example, prompt)
        prompt_ids, turns = self.prompt_ids(first), list[tuple[int, int]]()
        if not prompt_ids:
            raise example.error("the prompt is empty", field="prompt", fix="begin it with some text")
        for text, supervised in rest:
            start = len(prompt_ids)
            prompt_ids += self.completion_ids(text)
            turns += [(start, len(prompt_ids))] * supervised
        return Encoded(prompt_ids, self.completion_ids(completion), turns)

    def pieces(self, example: Example, prompt: str) -> list[tuple[str, bool]]:
        """Return a rendered prompt in parts that are tokenized separately, and whether each is supervised.

        The supervised ones are earlier turns; the others are what is around them.

        Raises:
            InputError: See :meth:`ftkit.examples.chat_template.ChatTemplate.earlier_turns`.
        """
        found = self.earlier_turns(example, prompt) if self.supervise == "all" else []
        bounds = [0, *(index for span in found for index in span), len(prompt)]
        return [(prompt[start:stop], bool(number % 2)) for number, (start, stop) in enumerate(pairwise(bounds))]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return token ids of a rendered prompt without images; a template writes its own special tokens."""
        return self.completion_ids(prompt) if self.chat else self.text_ids(prompt)

    def completion_ids(self, completion: str) -> list[int]:
        """Return token ids of a rendered answer, or of an inner part of a rendered conversation."""
        return self.tokenizer(completion, add_special_tokens=False)["input_ids"]

    def text_ids(self, text: str) -> list[int]:
        """Return token ids of a text to be continued, behind what the tokenizer itself puts before every text."""
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        return ids[self.unended(ids)]

    def unended(self, ids: list[int]) -> slice:
        """Return where a text to be continued stands among its tokens with all that the tokenizer adds by itself.

        An end token behind every text is no part of it, and a beginning that the text has already does not come twice.
        """
        before, after = self._added
        twice = bool(before) and ids[: 2 * len(before)] == before * 2
        ended = bool(after) and ids[-len(after) :] == after
        return slice(len(before) * twice, len(ids) - len(after) * ended)

    @property
    def beginning(self) -> str:
        """Return the special tokens that the tokenizer puts before every text, as text."""
        return "".join(self.tokenizer.convert_ids_to_tokens(self._added[0]))

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer adds before and after every text."""
        bare, whole = (self.tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
        start = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]
