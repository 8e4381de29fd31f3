"""Prompt styles as chat templates."""

from types import SimpleNamespace
from typing import Any

import pytest
from jinja2.sandbox import SandboxedEnvironment

from ftkit.errors import InputError
from ftkit.serving.prompts import Prompts, template_of


@pytest.mark.parametrize("style", ["{question} =", "Q: '{question}'\nA:", '"{question}" \\ {{ 1 }}'])
def test_a_style_as_a_template_renders_the_same_and_leaves_answers_alone(style: str) -> None:
    template = SandboxedEnvironment().from_string(template_of(style, SimpleNamespace(bos_token=None)))
    asked = [{"role": "user", "content": "1 {+} 1"}]
    before, _, after = style.partition("{question}")
    assert template.render(messages=asked) == f"{before}1 {{+}} 1{after}"
    answered = template.render(messages=[*asked, {"role": "assistant", "content": " 2"}])
    assert answered == f"{before}1 {{+}} 1{after} 2"


def test_what_the_tokenizer_puts_before_a_text_the_template_puts_there() -> None:
    template = template_of("{question}", SimpleNamespace(bos_token="<s>", add_bos_token=True))
    text = (
        SandboxedEnvironment()
        .from_string(template)
        .render(messages=[{"role": "user", "content": "a"}], bos_token="<s>")
    )
    assert text == "<s>a"


def test_a_template_that_refuses_is_the_clients_mistake(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny[1]
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="messages: the chat template refuses the messages: roles must alternate"):
        Prompts(tokenizer).chat([{"role": "user", "content": "a"}])
