"""Prompt styles as chat templates."""

from typing import Any

import pytest
from jinja2.sandbox import SandboxedEnvironment
from tokenizers.processors import TemplateProcessing

from ftkit.errors import InputError
from ftkit.examples.affixes import Affixes
from ftkit.examples.prompt_style import asked
from ftkit.serving.prompts import Prompts, template_of, template_to_push


@pytest.mark.parametrize("style", ["{question} =", "Q: '{question}'\nA:", '"{question}" \\ {{ 1 }}'])
def test_a_style_as_a_template_renders_the_same_and_leaves_answers_alone(style: str) -> None:
    template = SandboxedEnvironment().from_string(template_of(style))
    question = [{"role": "user", "content": "1 {+} 1"}]
    before, _, after = style.partition("{question}")
    assert template.render(messages=question) == f"{before}1 {{+}} 1{after}"
    answered = template.render(messages=[*question, {"role": "assistant", "content": " 2"}])
    assert answered == f"{before}1 {{+}} 1{after} 2"


@pytest.mark.parametrize("question", ["47 + -5", "1", "", "120-٣٤ a²3"])
def test_digits_stand_apart_in_a_template_as_in_training(question: str) -> None:
    made = template_of("{question} =", spaced_digits=True)
    template = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(made)
    rendered = template.render(messages=[{"role": "user", "content": question}])
    assert rendered == asked(question, "{question} =", spaced_digits=True)


def test_what_the_tokenizer_puts_before_a_text_the_template_puts_there() -> None:
    template = template_of("{question}", "<s>")
    text = (
        SandboxedEnvironment()
        .from_string(template)
        .render(messages=[{"role": "user", "content": "a"}], bos_token="<s>")
    )
    assert text == "<s>a"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("chat", [None, False])
@pytest.mark.parametrize(
    ("style", "spaced"), [(None, False), ("Q: '{question}' {{ 1 }}\nA:", False), ("{question} =", True)]
)
def test_whoever_has_the_template_only_asks_as_training_did(
    style: str | None, spaced: bool, chat: bool | None, named: bool, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny[1]
    own = f"\n  {{% set unused = 1 %}}{tokenizer.chat_template}"  # blanks before a block count by where they stand
    monkeypatch.setattr(tokenizer, "chat_template", {"default": own, "tool_use": "{{ 1 / 0 }}"} if named else own)
    question = [{"role": "user", "content": "120 + 3 <a>"}]
    expected = Prompts(tokenizer, chat, style, spaced).chat(question)
    monkeypatch.setattr(tokenizer, "chat_template", template_to_push(tokenizer, chat, style, spaced))
    assert Prompts(tokenizer).chat(question) == expected
    told = [{"role": "system", "content": "1 12"}, *question]
    if chat is None:
        assert "<system>1 12\n" in tokenizer.decode(Prompts(tokenizer).chat(told))


def test_a_template_that_refuses_is_the_clients_mistake(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny[1]
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="messages: the chat template refuses the messages: roles must alternate"):
        Prompts(tokenizer).chat([{"role": "user", "content": "a"}])


def test_what_the_template_adds_around_an_answer_is_known_for_a_conversation(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, question = tiny[1], [{"role": "user", "content": "a"}]
    assert Prompts(tokenizer).affixes(question) == Affixes("", "\n<|endoftext|>")
    assert Prompts(tokenizer, chat=False).affixes(question) == Affixes("", "<|endoftext|>")
    # An answer behind the prompt is written otherwise, or not at all: what is around it is not known.
    for template in ("{{ messages | length }}", "{{ raise_exception('no') if messages | length > 1 }}"):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        assert Prompts(tokenizer).affixes(question) == Affixes()


def test_a_text_to_go_on_with_does_not_end_in_an_end_token(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny[1]
    end = [("<|endoftext|>", tokenizer.eos_token_id)]
    ended = TemplateProcessing("$A <|endoftext|>", special_tokens=end)
    monkeypatch.setattr(tokenizer.backend_tokenizer, "post_processor", ended)
    assert tokenizer.decode(tokenizer("ab")["input_ids"]) == "ab<|endoftext|>"
    assert Prompts(tokenizer).text("c") == tokenizer.encode("c")[:-1]
    assert tokenizer.decode(Prompts(tokenizer).text("ab")) == "ab"
    assert not tokenizer.decode(Prompts(tokenizer, chat=False).chat([{"role": "user", "content": "a"}])).endswith(">")
