"""Which tokens are learnt: the answer's, by construction.

The prompt is rendered with the chat template's generation prompt, then the whole conversation; what the conversation
has more is the answer, with the end of turn that the template puts behind it. Both parts become tokens apart, as they
do when an answer is generated, so no token belongs to both and nothing is searched for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.examples.chat_template import ChatTemplate, Supervise, earlier_answers
from ftkit.examples.reader import PLACEHOLDER, Example
from ftkit.models.losses import IGNORE_INDEX

TooLong = Literal["cut", "skip"]
Spans = Sequence[tuple[int, int]]  # starts and stops


class Rendered(NamedTuple):
    """An example as a model's texts, before they become tokens.

    Attributes:
        prompt: Everything up to where the model goes on.
        completion: The answer with its end.
        rejected: The rejected answer with its end, of a preference example.
    """

    prompt: str
    completion: str
    rejected: str | None = None


class Encoded(NamedTuple):
    """An example as token ids.

    Attributes:
        prompt: Those that are read only.
        completion: Those that are learnt, the end among them.
        rejected: Those of the rejected answer, of a preference example.
        turns: Where in the prompt earlier turns stand that are learnt, too.
    """

    prompt: list[int]
    completion: list[int]
    rejected: list[int] | None = None
    turns: Spans = ()


class Piece(NamedTuple):
    """A part of a prompt's text.

    Attributes:
        text: The part.
        learnt: Whether it is an earlier turn that is learnt.
    """

    text: str
    learnt: bool


class Renderer:
    """Examples as the texts of one model: by its chat template, or plainly if it has none.

    Args:
        processor: The model's tokenizer, or its processor, which holds one.
        chat: Whether to use the chat template; None uses it if there is one. A plain text takes its prompt as it is.
        supervise: Whether the ``last`` turn of the assistant or ``all`` of its turns are learnt.

    Raises:
        InputError: A chat template is asked for and missing, the tokenizer has no end token, or a processor no image
            token.
    """

    def __init__(self, processor: Any, chat: bool | None = None, supervise: Supervise = "last") -> None:
        self.processor = processor
        self.tokenizer: PreTrainedTokenizerBase = getattr(processor, "tokenizer", processor)
        images = self.tokenizer is not processor
        self.image_token: str | None = getattr(processor, "image_token", None) if images else None
        if images and self.image_token is None:
            raise InputError(
                "the model's processor has no image token, so an image has no place in a prompt",
                field="model",
                got=type(processor).__name__,
            )
        self._template = ChatTemplate(processor, takes_parts=self.image_token is not None)
        self.template, self.supervise = self._template.default, supervise
        self.chat = bool(self.template) if chat is None else chat
        if self.chat and not self.template:
            raise InputError("the model has no chat template", field="chat", got=chat, fix="use chat: null")
        if self.tokenizer.eos_token is None:
            raise InputError("the tokenizer has no end-of-sequence token, so an answer could not end")

    def __call__(self, example: Example) -> Rendered:
        """The texts of an example.

        Raises:
            InputError: The template renders the conversation otherwise than the prompt, the model cannot take such a
                example, or its own image token stands where no image was given.
        """
        answers = [example.completion] if example.rejected is None else [example.completion, example.rejected]
        prompt, *completions = self._chat(example, answers) if self.chat else self._plain(example, answers)
        found = 0 if self.image_token is None else prompt.count(self.image_token)
        if found != len(example.images) or any(self.image_token and self.image_token in text for text in completions):
            if self.image_token is None:
                raise example.error("the model takes no images", field="images", got=len(example.images))
            raise example.error(f"the text itself holds the model's image token {self.image_token}")
        return Rendered(prompt, *(self._ended(text) for text in completions))

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt without images; a template writes its own special tokens."""
        return self.completion_ids(prompt) if self.chat else self.text_ids(prompt)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text to go on with, behind the tokenizer's own beginning."""
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        return ids[self.unended(ids)]

    def unended(self, ids: list[int]) -> slice:
        """Where a text to go on with stands among its tokens with all that the tokenizer adds by itself.

        An end token behind every text is no part of it, and a beginning that the text has already does not come twice.
        """
        before, after = self._added
        twice = bool(before) and ids[: 2 * len(before)] == before * 2
        ended = bool(after) and ids[-len(after) :] == after
        return slice(len(before) * twice, len(ids) - len(after) * ended)

    def completion_ids(self, completion: str) -> list[int]:
        """Token ids of a rendered answer, or of an inner part of a rendered conversation."""
        return self.tokenizer(completion, add_special_tokens=False)["input_ids"]

    def encode(self, example: Example) -> Encoded:
        """Token ids of an example without images.

        Raises:
            InputError: The prompt has no tokens, or see :meth:`__call__` and :meth:`pieces`.
        """
        prompt, completion, rejected = self(example)
        (first, _), *rest = self.pieces(example, prompt)
        prompt_ids, turns = self.prompt_ids(first), list[tuple[int, int]]()
        if not prompt_ids:
            raise example.error("the prompt is empty", field="prompt", fix="begin it with some text")
        for text, learnt in rest:
            start = len(prompt_ids)
            prompt_ids += self.completion_ids(text)
            turns += [(start, len(prompt_ids))] * learnt
        rejected_ids = None if rejected is None else self.completion_ids(rejected)
        return Encoded(prompt_ids, self.completion_ids(completion), rejected_ids, turns)

    def pieces(self, example: Example, prompt: str) -> list[Piece]:
        """A rendered prompt in parts that become tokens apart: earlier turns that are learnt, and what is around them.

        Raises:
            InputError: See :meth:`ftkit.examples.chat_template.ChatTemplate.earlier_turns`.
        """
        found = self._template.earlier_turns(example, prompt) if self.chat and self.supervise == "all" else []
        bounds = [0, *(place for span in found for place in span), len(prompt)]
        return [
            Piece(prompt[start:stop], learnt=bool(number % 2)) for number, (start, stop) in enumerate(pairwise(bounds))
        ]

    def affixes(self, example: Example) -> Affixes:
        """What is written around an answer to an example.

        Raises:
            InputError: See :meth:`__call__`.
        """
        found = self._template.affixes(example) if self.chat else NO_AFFIXES
        return found._replace(after=self._ended(found.after))

    def reference(self, example: Example, affixes: Affixes) -> str:
        """The answer that a generated one is compared with.

        It is the example's, unless the template writes it otherwise: then what the model learns. Special tokens are
        left out, as they are of what is generated.
        """
        text = self(example).completion.removeprefix(affixes.before).removesuffix(affixes.after)
        text = example.completion if text.strip() == example.completion.strip() else text
        return self._special_tokens.sub("", text)

    @cached_property
    def _special_tokens(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        special = {*self.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
        return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind every text by itself."""
        bare, whole = (self.tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
        start = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]

    def _chat(self, example: Example, answers: list[str]) -> list[str]:
        prompt = self._template.prompt(example)
        return [prompt, *self._template.completions(example, prompt, answers)]

    def _plain(self, example: Example, answers: list[str]) -> list[str]:
        if example.tools:
            raise example.error("the model has no chat template, so its prompts hold no tools", field="tools")
        prompt = example.prompt
        if not isinstance(prompt, str):
            if len(prompt) != 1 or prompt[0]["role"] != "user":
                roles = [message["role"] for message in prompt]
                raise example.error("the model has no chat template: one question of the user at most", got=roles)
            prompt = "".join(PLACEHOLDER if part["type"] == "image" else part["text"] for part in prompt[0]["content"])
        return [prompt.replace(PLACEHOLDER, self.image_token) if self.image_token else prompt, *answers]

    def _ended(self, completion: str) -> str:
        """The answer, or its end, with the tokenizer's end token, which the template may have written already."""
        ended = completion.rstrip().endswith(self.tokenizer.eos_token)
        return completion if ended else f"{completion}{self.tokenizer.eos_token}"


@dataclass(frozen=True)
class LengthRule:
    """What becomes of an example that is too long. A prompt is never cut, so neither is an image.

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

        Args:
            context_length: Largest number of tokens that the model takes.
            max_new_tokens: Longest answer that is generated.

        Raises:
            InputError: Such an answer would leave no room for a prompt.
        """
        if max_new_tokens >= context_length:
            raise InputError(
                f"leaves no room for a prompt in the model's {context_length:,} tokens",
                field="max_new_tokens",
                got=max_new_tokens,
            )
        return cls(context_length, "cut", room=max_new_tokens)

    def within(self, context_length: int) -> LengthRule:
        """The same rule for a model that takes no more than so many tokens."""
        return replace(self, max_length=min(self.max_length or context_length, context_length))

    def leaves_whole(self, prompt_length: int, *answers: list[int]) -> bool:
        """Whether an example stays as it is."""
        longest = max(self.room or 0, *map(len, answers))
        return self.max_length is None or prompt_length + longest <= self.max_length

    def fit(self, example: Example, prompt_length: int, *answers: list[int]) -> list[list[int]] | None:
        """The answers as they may be learnt, or None if the example is to be left out.

        Raises:
            InputError: The prompt does not leave the room that it has to.
        """
        if self.max_length is None:
            return list(answers)
        room = self.max_length - prompt_length
        if self.room is not None and room < self.room:
            raise example.error(
                f"the prompt has {prompt_length} tokens, room is for {self.max_length - self.room}",
                fix="shorten it, or set a smaller max_new_tokens",
            )
        if room < 1 or (self.too_long == "skip" and max(map(len, answers)) > room):
            return None
        return [answer[:room] for answer in answers]


def turn_counts(examples: Iterable[Example], supervise: Supervise) -> dict[str, int]:
    """How many of the assistant's turns there are, and how many of them are learnt.

    Returns:
        ``supervised`` and ``turns``.

    Example:
        >>> turn = {"role": "assistant", "content": []}
        >>> examples = [Example("a", "1+2=", "3"), Example("b", [{"role": "user", "content": []}, turn, turn], "4")]
        >>> turn_counts(examples, "last"), turn_counts(examples, "all")
        ({'supervised': 2, 'turns': 4}, {'supervised': 4, 'turns': 4})
    """
    supervised = turns = 0
    for example in examples:
        messages = [] if isinstance(example.prompt, str) else example.prompt
        turns += 1 + sum(message["role"] == "assistant" for message in messages)
        supervised += 1 + (len(earlier_answers(example)) if supervise == "all" else 0)
    return {"supervised": supervised, "turns": turns}


def supervised_batch(
    examples: Sequence[tuple[list[int], list[int]]], pad_id: int, turns: Sequence[Spans] | None = None
) -> dict[str, Tensor]:
    """Prompts with their answers as a right padded batch.

    Args:
        examples: Token ids of the prompt and of the answer, a pair an example.
        pad_id: Token id of the padding; it may be that of the end token.
        turns: Where in each example's prompt earlier turns stand that are learnt, too; None for none.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each (B, T) int64; labels are -100 but at the answer and at
        those turns.

    Raises:
        InputError: An example has no token to learn, or none to read.

    Example:
        >>> supervised_batch([([5, 6], [7, 2]), ([5], [2])], pad_id=2)["labels"].tolist()
        [[-100, -100, 7, 2], [-100, 2, -100, -100]]
    """
    for prompt, answer in examples:
        if not answer:
            raise InputError("an example has no supervised token: nothing would be learnt", got=prompt)
        if not prompt:
            raise InputError("all tokens of an example are supervised: the prompt is empty", got=answer)
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    input_ids = torch.full((len(examples), width), pad_id)
    labels = torch.full((len(examples), width), IGNORE_INDEX)
    attention_mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for index, ((prompt, answer), spans) in enumerate(zip(examples, turns or [()] * len(examples), strict=True)):
        length = len(prompt) + len(answer)
        input_ids[index, :length] = torch.tensor([*prompt, *answer])
        for start, stop in (*spans, (len(prompt), length)):
            labels[index, start:stop] = input_ids[index, start:stop]
        attention_mask[index, :length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def prompt_batch(prompts: Sequence[list[int]], pad_id: int) -> dict[str, Tensor]:
    """Prompts as a left padded batch, to generate from.

    Returns:
        ``input_ids`` and ``attention_mask``, each (B, T) int64.

    Example:
        >>> prompt_batch([[5, 6], [7]], pad_id=0)["input_ids"].tolist()
        [[5, 6], [0, 7]]
    """
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros((len(prompts), width), dtype=torch.int64)
    for index, prompt in enumerate(prompts):
        input_ids[index, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[index, width - len(prompt) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
