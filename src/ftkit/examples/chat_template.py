"""Conversations as text, by a model's chat template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from jinja2 import TemplateError

from ftkit.examples.affixes import Affixes
from ftkit.examples.reader import Example, Message, Part, split_places

Supervise = Literal["last", "all"]
_PROBES = ("A", "B")  # two answers without a character in common


class ChatTemplate:
    """Renders conversations for one model.

    Args:
        processor: The model's tokenizer, or its processor.
        takes_parts: Whether its templates take the parts of a message, images among them; otherwise they take texts.

    Attributes:
        default: The Jinja template of plain conversations; None if there is none.
    """

    def __init__(self, processor: Any, takes_parts: bool) -> None:
        self.processor, self.takes_parts = processor, takes_parts
        # A processor may hold the template itself or leave it to its tokenizer.
        holders = (processor, getattr(processor, "tokenizer", processor))
        found = next(filter(None, (getattr(holder, "chat_template", None) for holder in holders)), None)
        # Some models have several by name: for tools, for retrieval, and for plain conversations.
        named = found if isinstance(found, dict) else {"default": found}
        self.default: str | None = named.get("default")
        self._with_tools: str | None = named.get("tool_use", self.default)

    def prompt(self, example: Example) -> str:
        """Return everything up to where the model goes on.

        Raises:
            InputError: The template refuses the messages, or leaves out the example's tools.
        """
        prompt = self._asked(example)
        if example.tools and prompt == self._asked(replace(example, tools=[])):
            raise example.error(
                "the model's chat template does not write tools, so it would be tuned without them",
                field="tools",
                fix="use a model whose template knows tools, or leave them out",
            )
        return prompt

    def completions(self, example: Example, prompt: str, answers: list[str]) -> list[str]:
        """Return each answer with all that the template writes behind the prompt, the end of the turn among it.

        Raises:
            InputError: The template refuses the messages, or renders the conversation otherwise than its prompt.
        """
        return [self._completion(example, prompt, answer) for answer in answers]

    def affixes(self, example: Example) -> Affixes:
        """Return what the template writes around an answer to an example, found by rendering two answers.

        Raises:
            InputError: See :meth:`completions`.
        """
        return Affixes.of(*self.completions(example, self._asked(example), list(_PROBES)))

    def earlier_turns(self, example: Example, prompt: str) -> list[tuple[int, int]]:
        """Return where the assistant's turns before the answer stand in the prompt, with the ends of their turns.

        A turn with nothing before it answers nothing and is not among them.

        Args:
            example: The example.
            prompt: Its prompt, as rendered.

        Returns:
            Start and stop of each, in characters.

        Raises:
            InputError: A turn is empty or holds an image, or the template writes it otherwise than it would write the
                same answer at the end of a conversation, as Qwen3 does, which leaves out the thoughts of earlier turns.
        """
        asked, spans = _messages(example), []
        for place in earlier_answers(example):
            if not _says_something(asked[place]):
                raise _unlearnable(example, place, "is empty or holds an image")
            start = self._render(asked[:place], example, add_generation_prompt=True)
            until = self._render(asked[: place + 1], example)
            if not until.startswith(start) or not prompt.startswith(until):
                raise _unlearnable(example, place, "is not what the chat template writes of it as the last answer")
            spans.append((len(start), len(until)))
        return spans

    def _asked(self, example: Example) -> str:
        return self._render(_messages(example), example, add_generation_prompt=True)

    def _completion(self, example: Example, prompt: str, answer: str) -> str:
        parts: list[Part] = [{"type": "text", "text": answer}]
        whole = self._render([*_messages(example), {"role": "assistant", "content": parts}], example)
        if not whole.startswith(prompt):
            raise example.error(
                "the chat template renders the conversation otherwise than its prompt, so what is to be learnt is "
                "not known",
                got=prompt[-40:],
                fix="use a chat template whose generation prompt is what it writes before an answer",
            )
        return whole[len(prompt) :]

    def _render(self, messages: list[Message], example: Example, **options: Any) -> str:
        if not self.takes_parts:
            messages = [{**message, "content": _joined(message["content"], example)} for message in messages]
        template = self._with_tools if example.tools else self.default
        if example.tools:
            options["tools"] = example.tools
        try:
            return self.processor.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        except (TemplateError, TypeError) as error:  # such as: roles must alternate
            raise example.error(f"the chat template refuses the messages: {error}") from error


def earlier_answers(example: Example) -> list[int]:
    """Return the places of the assistant's messages before the answer that follow another message."""
    if isinstance(example.prompt, str):
        return []
    return [place for place, message in enumerate(example.prompt) if place and message["role"] == "assistant"]


def supervision_line(supervise: Supervise, supervised: int, turns: int) -> str:
    """Say which turns of conversations a model learns.

    Args:
        supervise: The option.
        supervised: The number of turns that are learnt.
        turns: The number of the assistant's turns.

    Example:
        >>> supervision_line("last", 412, 1020)
        'Supervised: the last assistant turn of each conversation (412 of 1,020 assistant turns)'
    """
    which = {"last": "the last assistant turn of each conversation", "all": "all assistant turns that answer something"}
    return f"Supervised: {which[supervise]} ({supervised:,} of {turns:,} assistant turns)"


def _messages(example: Example) -> list[Message]:
    if isinstance(example.prompt, str):
        return [{"role": "user", "content": split_places(example.prompt)}]
    return example.prompt


def _joined(parts: list[Part], example: Example) -> str:
    if any(part["type"] != "text" for part in parts):
        raise example.error("the model takes no images", field="images", got=len(example.images))
    return "".join(part["text"] for part in parts)


def _says_something(message: Message) -> bool:
    """Whether a message has text or calls functions, and shows no image."""
    parts = message["content"]
    if any(part["type"] == "image" for part in parts):
        return False
    return "tool_calls" in message or bool("".join(part["text"] for part in parts).strip())


def _unlearnable(example: Example, place: int, problem: str) -> Exception:
    return example.error(
        f"the assistant turn in message {place + 1} {problem}, so it cannot be learnt in its place",
        field="supervise",
        got="all",
        fix="use supervise: last; to learn earlier turns, write a record for each that ends with it",
    )
