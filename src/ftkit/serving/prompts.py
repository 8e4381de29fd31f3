"""Requests as prompts, made by the same renderer as in training."""

from typing import Any

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.examples.prompt_style import asked
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer


class Prompts:
    """Turn requests into token ids.

    Args:
        tokenizer: The model's tokenizer.
        chat: Whether training used the chat template; None if it did where there is one.
        style: How training made a prompt of a single question, with ``{question}`` in it; None takes it as it is.
        spaced_digits: Whether training separated digits by spaces.

    Raises:
        InputError: It has no end token, so an answer could not end.
    """

    def __init__(
        self, tokenizer: Any, chat: bool | None = None, style: str | None = None, spaced_digits: bool = False
    ) -> None:
        self.renderer = Renderer(tokenizer, chat)
        self.style, self.spaced_digits = style, spaced_digits
        self.vocabulary = len(tokenizer)

    def text(self, text: str) -> list[int]:
        """Return token ids of a text to be continued, as it is; the tokenizer adds its own beginning.

        Raises:
            InputError: It has no tokens.
        """
        if not (ids := self.renderer.text_ids(text)):
            raise InputError("a text has no tokens", field="prompt")
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids, special tokens included."""
        return str(self.renderer.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Return token ids of a conversation up to where the model answers; without a template one question as it is.

        Raises:
            InputError: The model's template cannot render these messages, dicts with ``role`` and ``content``.
        """
        if len(messages) == 1 and messages[0]["role"] == "user":
            question = asked(messages[0]["content"], self.style, self.spaced_digits)
            messages = [{**messages[0], "content": question}]
        if not (ids := self.renderer.prompt_ids(self.renderer.prompt(_example(messages)))):
            raise InputError("the messages have no tokens", field="messages")
        return ids

    def affixes(self, messages: list[dict[str, str]]) -> Affixes:
        """Return what the template writes around an answer to a conversation; nothing where it cannot render one."""
        try:
            return self.renderer.affixes(_example(messages))
        except InputError:  # a template may allow no answer here, or write it differently from what follows its prompt
            return NO_AFFIXES


def longest_token(tokenizer: Any) -> int:
    """Return the most characters of a text that one token stands for.

    In vocabularies of bytes or of word pieces that is no more than the length of the longest entry.
    """
    return max(map(len, tokenizer.get_vocab()))


def _example(messages: list[dict[str, str]]) -> Example:
    return Example("", [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages], "")


def template_to_push(tokenizer: Any, chat: bool | None, style: str | None, spaced_digits: bool = False) -> Any:
    """Return the chat template by which others ask a question as training did: the tokenizer's own where possible.

    The other arguments are those of :class:`Prompts`.
    """
    renderer = Renderer(tokenizer, chat)
    if renderer.chat and renderer.template and style:
        return styled(renderer.template, style, spaced_digits)
    if style or (renderer.template and not renderer.chat):
        return template_of(style or "{question}", renderer.beginning, spaced_digits)
    return tokenizer.chat_template


def styled(template: str, style: str, spaced_digits: bool) -> str:
    """Return a chat template that puts each question into a prompt style and then continues as another template."""
    before, _, after = (repr(part) for part in style.partition("{question}"))
    content = _SPACED if spaced_digits else "{{ message.content }}"
    return (
        "{% set ftkit = namespace(messages=[]) %}{% for message in messages %}{% if message.role == 'user' %}"
        f"{{% set content %}}{content}{{% endset %}}"
        f"{{% set asked = {{'role': 'user', 'content': {before} ~ content ~ {after}}} %}}"
        "{% else %}{% set asked = message %}{% endif %}{% set ftkit.messages = ftkit.messages + [asked] %}{% endfor %}"
        f"{{% set messages = ftkit.messages %}}\n{template}"
    )


def template_of(style: str, beginning: str = "", spaced_digits: bool = False) -> str:
    """Return a chat template that writes one question in a prompt style, for libraries without prompt styles.

    What the tokenizer puts before a text, the ``beginning``, the template puts there, too.
    """
    before, _, after = style.partition("{question}")
    begin = f"{{{{ {beginning!r} }}}}" if beginning else ""
    before, after = (f"{{{{ {text!r} if message.role == 'user' else '' }}}}" for text in (before, after))
    content = _SPACED if spaced_digits else "{{ message.content }}"
    return f"{begin}{{% for message in messages %}}{before}{content}{after}{{% endfor %}}"


# What ftkit.examples.prompt_style.spaced does, in the templates' language, which has no regular expressions.
_SPACED = (
    "{% for character in message.content %}"
    "{{ ' ' if not loop.first and character.isdecimal() and loop.previtem.isdecimal() else '' }}{{ character }}"
    "{% endfor %}"
)
