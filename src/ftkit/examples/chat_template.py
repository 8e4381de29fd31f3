"""Examples as the texts of one model: with its chat template, or plainly if it has none.

The prompt is rendered with the chat template's generation prompt, then the whole conversation; what the conversation
has more is the answer, with the end of turn that the template puts behind it.
"""

import re
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ftkit.errors import InputError
from ftkit.examples.affixes import Affixes
from ftkit.examples.messages import PLACEHOLDER, Message, split_places, text_of
from ftkit.examples.padding import Spans
from ftkit.examples.reader import Example
from ftkit.examples.supervision import earlier_answers

_PROBES = ("A", "B")  # two answers without a character in common


class Rendered(NamedTuple):
    """Hold an example as texts: everything up to where the model continues, and the answers with their ends."""

    prompt: str
    completion: str
    rejected: str | None = None


class ChatTemplate:
    """Render examples as texts for one model.

    Args:
        processor: The model's tokenizer, or its processor, which holds one.
        chat: Whether to use the chat template; None uses it if there is one. A plain text takes its prompt as it is.

    Attributes:
        template: The Jinja template of conversations without tools; None if there is none.
        image_token: What stands for an image in a prompt; None for a model of text.

    Raises:
        InputError: A chat template is asked for and missing, the tokenizer has no end token, or a processor no image
            token.
    """

    def __init__(self, processor: Any, chat: bool | None = None) -> None:
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
        # A processor may hold the template itself or leave it to its tokenizer.
        found = getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        # Some models have several by name: for tools, for retrieval, and for plain conversations.
        named = found if isinstance(found, dict) else {"default": found}
        self.template: str | None = named.get("default")
        self._with_tools: str | None = named.get("tool_use", self.template)
        self.chat = bool(self.template) if chat is None else chat
        if self.chat and not self.template:
            raise InputError("the model has no chat template", field="chat", got=chat, fix="use chat: null")
        if self.tokenizer.eos_token is None:
            raise InputError("the tokenizer has no end-of-sequence token, so an answer could not end")

    def __call__(self, example: Example) -> Rendered:
        """Return the texts of an example.

        Raises:
            InputError: See :meth:`prompt`; or the template renders the conversation differently from the prompt.
        """
        prompt = self.prompt(example)
        answers = [example.completion] if example.rejected is None else [example.completion, example.rejected]
        completions = [self._completion(example, prompt, answer) for answer in answers]
        if self.image_token and any(self.image_token in text for text in completions):
            raise self._own_image_token(example)
        return Rendered(prompt, *completions)

    def prompt(self, example: Example) -> str:
        """Return everything up to where the model continues.

        Raises:
            InputError: The model cannot take such an example, its template leaves out the example's tools, or the
                model's own image token stands where no image was given.
        """
        if example.images and self.image_token is None:
            fix = "choose a vision-language model as base_model, or leave the images out"
            raise example.error("the model takes no images", field="images", got=len(example.images), fix=fix)
        prompt = self._asked(example)
        if example.tools and (not self.chat or prompt == self._asked(replace(example, tools=[]))):
            raise example.error(
                "the model's chat template does not support tools, so it would be tuned without them",
                field="tools",
                fix="use a model whose chat template supports tools, or leave them out",
            )
        if self.image_token and prompt.count(self.image_token) != len(example.images):
            raise self._own_image_token(example)
        return prompt

    def affixes(self, example: Example) -> Affixes:
        """Return what is written around an answer to an example, found by rendering two answers.

        Raises:
            InputError: See :meth:`__call__`.
        """
        prompt = self._asked(example)
        return Affixes.of(*(self._completion(example, prompt, answer) for answer in _PROBES))

    def reference(self, example: Example, affixes: Affixes) -> str:
        """Return the answer that a generated one is compared with.

        It is the example's, unless the template writes it differently: then what the model is trained on. Special
        tokens are left out, as they are of what is generated.
        """
        text = self(example).completion.removeprefix(affixes.before).removesuffix(affixes.after)
        text = example.completion if text.strip() == example.completion.strip() else text
        return self._special_tokens.sub("", text)

    def earlier_turns(self, example: Example, prompt: str) -> Spans:
        """Return where the assistant's turns before the answer stand in the prompt, with the ends of their turns.

        They are starts and stops in characters. A turn with nothing before it answers nothing and is not among them.

        Raises:
            InputError: A turn is empty or holds an image, or the template writes it differently from the same answer at
                the end of a conversation, as Qwen3 does, which leaves out the thoughts of earlier turns.
        """
        asked, spans = _messages(example), []
        for index in earlier_answers(example):
            if not _says_something(asked[index]):
                raise _cannot_supervise(example, index, "is empty or holds an image")
            start = self._render(asked[:index], example, add_generation_prompt=True)
            until = self._render(asked[: index + 1], example)
            if not until.startswith(start) or not prompt.startswith(until):
                raise _cannot_supervise(example, index, "differs from how the chat template writes a last answer")
            spans.append((len(start), len(until)))
        return spans

    def _asked(self, example: Example) -> str:
        messages = _messages(example)
        if not self.chat and (roles := [message["role"] for message in messages]) != ["user"]:
            problem = "the model has no chat template, so it takes a single user message"
            fix = "choose a base_model with a chat template, or give one prompt and its answer"
            raise example.error(problem, field="messages", got=roles, fix=fix)
        return self._render(messages, example, add_generation_prompt=True)

    def _completion(self, example: Example, prompt: str, answer: str) -> str:
        """Return the answer with all that is written behind the prompt, the tokenizer's end token among it."""
        message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole = self._render([*_messages(example), message], example)
        if not whole.startswith(prompt):
            raise example.error(
                "the chat template renders the conversation differently from its prompt, so it is not known which "
                "tokens to supervise",
                got=prompt[-40:],
                fix="use a chat template whose generation prompt is what it writes before an answer",
            )
        text = whole[len(prompt) :]
        return text if text.rstrip().endswith(self.tokenizer.eos_token) else f"{text}{self.tokenizer.eos_token}"

    def _render(self, messages: list[Message], example: Example, **options: Any) -> str:
        if not self.chat:
            text = "".join(text_of(message["content"]) for message in messages)
            return text.replace(PLACEHOLDER, self.image_token) if self.image_token else text
        if self.image_token is None:  # a tokenizer's template takes texts, a processor's the parts of a message
            messages = [{**message, "content": text_of(message["content"])} for message in messages]
        template = self._with_tools if example.tools else self.template
        tools = {"tools": example.tools} if example.tools else {}
        try:
            return self.processor.apply_chat_template(
                messages, chat_template=template, tokenize=False, **tools, **options
            )
        except (TemplateError, TypeError) as error:  # such as: roles must alternate
            raise example.error(f"the chat template refuses the messages: {error}", field="messages") from error

    def _own_image_token(self, example: Example) -> InputError:
        return example.error(f"the text itself contains the model's image token {self.image_token}")

    @cached_property
    def _special_tokens(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        special = {*self.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
        return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))


def _messages(example: Example) -> list[Message]:
    if isinstance(example.prompt, str):
        return [{"role": "user", "content": split_places(example.prompt)}]
    return example.prompt


def _says_something(message: Message) -> bool:
    """Return whether a message has text or calls functions, and shows no image."""
    if any(part["type"] == "image" for part in message["content"]):
        return False
    return "tool_calls" in message or bool(text_of(message["content"]).strip())


def _cannot_supervise(example: Example, index: int, problem: str) -> InputError:
    return example.error(
        f"the assistant turn in message {index + 1} {problem}, so it cannot be supervised",
        field="supervise",
        got="all",
        fix="use supervise: last; to train on earlier turns, write a record for each that ends with it",
    )
