"""OpenAI's own Python client against the server, and many clients at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer


def text_of(completion: Any) -> str:
    return completion.choices[0].text


def test_the_model_is_listed(server: Any) -> None:
    assert [model.id for model in server.client.models.list()] == ["tiny"]


def test_a_completion_counts_its_tokens_and_says_why_it_ended(server: Any) -> None:
    answer = server.client.completions.create(model="tiny", prompt="12+7=", max_tokens=9)
    assert answer.object == "text_completion"
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 9
    assert answer.usage.total_tokens == 14
    assert answer.choices[0].finish_reason == "length"


def test_several_prompts_and_choices_come_in_order(server: Any) -> None:
    prompts = ["one", "two"]
    answer = server.client.completions.create(model="tiny", prompt=prompts, n=2, max_tokens=5)
    alone = [text_of(server.client.completions.create(model="tiny", prompt=prompt, max_tokens=5)) for prompt in prompts]
    assert [choice.text for choice in answer.choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 6


def test_a_stream_is_the_same_answer_in_pieces(server: Any) -> None:
    options = {"model": "tiny", "prompt": "12+7=", "max_tokens": 12}
    whole = server.client.completions.create(**options)
    chunks = list(server.client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(text_of(chunk) for chunk in chunks[:-1]) == text_of(whole)
    assert len(chunks) > 4
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_is_the_completion_of_the_rendered_prompt(server: Any) -> None:
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": [{"type": "text", "text": "1+1"}]}]
    answer = server.client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=8)
    prompt = "<system>Add.\n<user>1+1\n<assistant>"
    same = server.client.completions.create(model="tiny", prompt=prompt, max_tokens=8)
    assert answer.choices[0].message.content == text_of(same)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage == same.usage
    stream = server.client.chat.completions.create(model="tiny", messages=messages, max_tokens=8, stream=True)
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text_of(same)


def test_what_the_template_adds_around_an_answer_is_not_sent(
    tiny: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, messages = tiny[1], [{"role": "user", "content": "1+1"}]
    options: dict[str, Any] = {"model": "tiny", "messages": messages, "max_tokens": 8}
    whole = start().client.chat.completions.create(**options).choices[0].message.content
    assert len(whole) > 4
    # Such a template that the model, untuned, already writes what it adds.
    before, after = (f"{{{{ {part!r} if message.role == 'assistant' }}}}" for part in (whole[:2], whole[-2:]))
    line = "{{ '\\n' if message.role != 'assistant' }}"
    template = tokenizer.chat_template.replace(
        "{{ message.content }}\n", f"{before}{{{{ message.content }}}}{after}{line}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    client = start().client
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].message.content == whole[2:-2]
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[2:-2]
    plain = client.completions.create(model="tiny", prompt="<user>1+1\n<assistant>", max_tokens=8)
    assert text_of(plain) == whole


def test_a_question_is_asked_as_it_was_in_training(tiny: Any, server: Any) -> None:
    parts = [{"type": "text", "text": "What is 1+1?"}]
    trained = Renderer(tiny[1]).encode(Example("r", [{"role": "user", "content": parts}], "2")).prompt
    served = server.served.prompts.chat([{"role": "user", "content": "What is 1+1?"}])
    assert served == trained


def test_a_stop_string_ends_the_answer(server: Any) -> None:
    whole = text_of(server.client.completions.create(model="tiny", prompt="12+7=", max_tokens=12))
    stop = whole[3:5]
    cut = server.client.completions.create(model="tiny", prompt="12+7=", max_tokens=12, stop=[stop])
    assert text_of(cut) == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_repeats_a_drawn_answer(server: Any) -> None:
    def ask(seed: int, **options: Any) -> Any:
        return server.client.completions.create(
            model="tiny", prompt="a", max_tokens=12, temperature=1.5, seed=seed, **options
        )

    assert text_of(ask(1)) == text_of(ask(1)) != text_of(ask(2))
    several = ask(1, n=2).choices
    assert several[0].text == text_of(ask(1))
    assert several[1].text != several[0].text


def test_another_model_is_not_found(server: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has one model, tiny"):
        server.client.completions.create(model="gpt-4o", prompt="a")


def test_64_clients_get_the_answers_that_one_gets(server: Any) -> None:
    client = server.client

    def ask(number: int) -> tuple[str, int]:
        prompt = f"message {number} " + "x" * (number % 11)
        answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=5 + number % 30)
        return text_of(answer), answer.usage.completion_tokens

    one_by_one = [ask(number) for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        at_once = list(pool.map(ask, range(64)))
    assert at_once == one_by_one
    assert len({text for text, _ in at_once}) > 32


@pytest.mark.parametrize("messages", [[{"role": "user", "content": "1+1"}]])
def test_without_a_template_one_question_is_taken_as_it_is(tiny: Any, messages: Any, start: Any) -> None:
    running = start()
    prompts = running.served.prompts
    prompts.renderer.chat = False
    answer = running.client.chat.completions.create(model="tiny", messages=messages, max_tokens=4)
    assert answer.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        running.client.chat.completions.create(model="tiny", messages=[{"role": "system", "content": "x"}, *messages])
