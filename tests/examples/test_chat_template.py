"""Tools and earlier turns, as the chat template writes them: exactly, or not at all."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chat_folders import CHATML, ENDED_BY_OTHER, ENDED_BY_TEMPLATE, PLAIN_TEXT, QWEN3, TOOL, tokenizer_of
from ftkit.errors import InputError
from ftkit.examples.messages import Message
from ftkit.examples.padding import supervised_batch
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer
from ftkit.examples.supervision import supervision_line, turn_counts


def said(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


PROMPT = [
    said("system", "Be brief."),
    said("user", "1+1?"),
    said("assistant", "2"),
    said("user", "2+2?"),
    said("assistant", "4"),
    said("user", "3+3?"),
]
LAST_QUESTION = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
)
EXAMPLE = Example("a", PROMPT, "6", file="examples.jsonl", line=7)
WITH_TOOLS = replace(EXAMPLE, tools=[TOOL])


def texts(example: Example) -> list[dict[str, str]]:
    messages = [{"role": one["role"], "content": one["content"][0]["text"]} for one in example.prompt]  # type: ignore[index]
    return [*messages, {"role": "assistant", "content": example.completion}]


def learnt(tokenizer: Any, example: Example, **options: Any) -> tuple[list[int], list[str]]:
    """The token ids of an example, and the runs of tokens that are learnt."""
    encoded = Renderer(tokenizer, **options).encode(example)
    batch = supervised_batch([(encoded.prompt, encoded.completion)], 0, [encoded.turns])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    runs: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        assert label in (-100, token)
        runs[-1:] = [[*runs[-1], token]] if label != -100 else [runs[-1], []] if runs[-1] else [[]]
    return ids, [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEXT], ids=["chatml", "plain text"])
def test_all_turns_are_learnt_with_their_ends_and_nothing_else(template: str) -> None:
    tokenizer = tokenizer_of(template, ENDED_BY_TEMPLATE if template == CHATML else ENDED_BY_OTHER)
    end = "<|im_end|>\n" if template == CHATML else "\n### End\n"
    last = "6<|im_end|>\n" if template == CHATML else "6\n### End\n<|endoftext|>"
    ids, turns = learnt(tokenizer, EXAMPLE, supervise="all")
    assert turns == [f"2{end}", f"4{end}", last]
    whole = tokenizer.apply_chat_template(texts(EXAMPLE), tokenize=True)["input_ids"]
    assert ids[: len(whole)] == whole
    assert learnt(tokenizer, EXAMPLE) == (ids, [last])


def test_all_turns_are_those_of_the_generation_mask_of_transformers() -> None:
    marked = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = tokenizer_of(marked, ENDED_BY_TEMPLATE)
    encoded = Renderer(tokenizer, supervise="all").encode(EXAMPLE)
    batch = supervised_batch([(encoded.prompt, encoded.completion)], 0, [encoded.turns])
    theirs = tokenizer.apply_chat_template(
        texts(EXAMPLE), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert batch["input_ids"][0].tolist() == theirs["input_ids"]
    assert (batch["labels"][0] != -100).long().tolist() == theirs["assistant_masks"]


@pytest.mark.parametrize(
    "template",
    [
        QWEN3,  # thoughts of the last turn only
        LAST_QUESTION + CHATML.replace("message.content }}", "message.content if loop.index0 >= ns.last else '...' }}"),
        LAST_QUESTION + CHATML.replace("<|im_end|>", "{{ '<|im_end|>' if loop.index0 >= ns.last }}"),
        # Mistral's, in short: the system turn is a part of the last question.
        LAST_QUESTION
        + CHATML.replace("{{ message.content", "{{ messages[0].content if loop.index0 == ns.last }}{{ message.content"),
    ],
    ids=["qwen3", "shortened", "ended by the last", "system turn last"],
)
def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_reason(template: str) -> None:
    tokenizer = tokenizer_of(template, ENDED_BY_TEMPLATE)
    with pytest.raises(
        InputError,
        match=r"examples\.jsonl:7: supervise: the assistant turn in message 3 differs from how the chat"
        r" template writes a last answer, so it cannot be supervised \(got 'all'\); fix: use supervise: last",
    ):
        Renderer(tokenizer, supervise="all").encode(EXAMPLE)
    assert learnt(tokenizer, EXAMPLE)[1][0].endswith("6<|im_end|>\n")  # as ever
    single = Example("b", PROMPT[:2], "2")
    assert learnt(tokenizer, single, supervise="all") == learnt(tokenizer, single)


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": " "}], [{"type": "image"}]], ids=str)
def test_an_earlier_turn_without_text_is_refused(content: list[dict[str, str]]) -> None:
    example = replace(EXAMPLE, prompt=[PROMPT[1], {"role": "assistant", "content": content}, PROMPT[3]])
    tokenizer = tokenizer_of("{% for m in messages %}{{ m.role }}{% endfor %}", ENDED_BY_TEMPLATE)
    with pytest.raises(InputError, match=r"examples\.jsonl:7: (supervise: .*message 2 is empty|images: .*no images)"):
        Renderer(tokenizer, supervise="all").encode(example)


def test_a_greeting_answers_nothing_and_is_only_read() -> None:
    tokenizer = tokenizer_of(CHATML, ENDED_BY_TEMPLATE)
    example = replace(EXAMPLE, prompt=[said("assistant", "Hello."), *PROMPT[1:4]])
    assert learnt(tokenizer, example, supervise="all")[1] == ["2<|im_end|>\n", "6<|im_end|>\n"]
    assert turn_counts([example], "all") == {"supervised": 2, "turns": 3}


def test_turns_are_counted() -> None:
    examples = [EXAMPLE, Example("b", "1+1=", "2")]
    assert supervision_line("last", **turn_counts(examples, "last")) == (
        "Supervised: the last assistant turn of each conversation (2 of 4 assistant turns)"
    )
    assert supervision_line("all", **turn_counts(examples, "all")).endswith("(4 of 4 assistant turns)")


def test_tools_are_what_transformers_writes_of_them() -> None:
    tokenizer = tokenizer_of(QWEN3, ENDED_BY_TEMPLATE)
    rendered = Renderer(tokenizer)(WITH_TOOLS)
    whole = tokenizer.apply_chat_template(texts(EXAMPLE), tools=[TOOL], tokenize=False)
    assert '"name": "weather"' in rendered.prompt
    assert rendered.prompt + rendered.completion == whole
    assert Renderer(tokenizer)(replace(EXAMPLE, prompt="3+3?", tools=[TOOL])).prompt.count('"weather"') == 1


def test_the_template_for_tools_is_used_where_a_model_has_one() -> None:
    tokenizer = tokenizer_of({"default": CHATML, "tool_use": QWEN3}, ENDED_BY_TEMPLATE)  # type: ignore[arg-type]
    assert "weather" in Renderer(tokenizer)(WITH_TOOLS).prompt
    assert Renderer(tokenizer)(EXAMPLE).completion == "6<|im_end|>\n"


def test_tools_that_would_be_dropped_are_refused() -> None:
    with pytest.raises(InputError, match=r"examples\.jsonl:7: tools: the model's chat template does not support tools"):
        Renderer(tokenizer_of(CHATML, ENDED_BY_TEMPLATE))(WITH_TOOLS)
    with pytest.raises(InputError, match=r"examples\.jsonl:7: tools: the model's chat template does not support tools"):
        Renderer(tokenizer_of(None, ENDED_BY_OTHER))(replace(WITH_TOOLS, prompt="1+1="))


def test_a_call_of_a_function_is_learnt_as_the_template_writes_it() -> None:
    written = "{{ message.content or message.tool_calls | tojson }}"
    template = CHATML.replace("{{ message.content }}", written)
    calls = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
    called = {"role": "assistant", "content": [], "tool_calls": calls}
    example = replace(EXAMPLE, prompt=[PROMPT[1], called, {**said("tool", "sunny"), "name": "weather"}])
    turns = learnt(tokenizer_of(template, ENDED_BY_TEMPLATE), example, supervise="all")[1]
    assert turns == [f"{json.dumps(calls)}<|im_end|>\n", "6<|im_end|>\n"]
