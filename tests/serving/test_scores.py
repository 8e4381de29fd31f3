"""Log-probabilities of prompts and answers, as evaluation harnesses ask for them."""

import threading
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from ftkit.serving import generator
from ftkit.serving.generator import BatchGenerator

PROMPTS = ["12+7=", "a", "the quick brown fox jumps over a lazy dog", "zz top"]


def plain(net: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities (T, V) of what follows each token, of one forward pass over one text."""
    with torch.inference_mode():
        return net(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def scored(server: Any, prompt: Any, **options: Any) -> list[dict[str, Any]]:
    fields = {"prompt": prompt, "echo": True, "logprobs": 3, "max_tokens": 1, **options}
    reply = server.post("/v1/completions", fields)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"]


def assert_plain(net: Any, tokenizer: Any, ids: list[int], choice: dict[str, Any], top: int = 3) -> None:
    """The scores of a prompt, and of what was generated behind it, are those of a plain forward pass."""
    found = choice["logprobs"]
    generated = len(found["tokens"]) - len(ids)
    if generated:  # greedy
        ids = [*ids, int(plain(net, ids)[-1].argmax())]
    expected = plain(net, ids)
    assert found["tokens"] == [tokenizer.decode([token]) for token in ids]
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    for place in range(1, len(ids)):
        own = float(expected[place - 1, ids[place]])
        assert found["token_logprobs"][place] == pytest.approx(own, abs=1e-5)
        likely = expected[place - 1].topk(top).values.tolist()
        values = sorted(found["top_logprobs"][place].values(), reverse=True)
        assert values[:top] == pytest.approx(likely, abs=1e-5)
        assert len(values) == top + (own < likely[-1] - 1e-6)
        assert found["token_logprobs"][place] in values


@pytest.mark.parametrize("max_logits", [2**26, 4 * 257 * 5], ids=["at once", "in parts"])
@pytest.mark.parametrize("max_tokens", [0, 1])
def test_the_scores_of_a_batch_are_those_of_a_plain_forward_pass(
    server: Any, tiny: Any, max_tokens: int, max_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "MAX_LOGITS", max_logits)
    net, tokenizer = tiny
    choices = scored(server, PROMPTS, max_tokens=max_tokens)
    assert len(choices) == len(PROMPTS)
    for prompt, choice in zip(PROMPTS, choices, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert len(choice["logprobs"]["tokens"]) == len(ids) + max_tokens
        assert choice["text"].startswith(prompt)
        assert choice["finish_reason"] == "length"
        assert_plain(net, tokenizer, ids, choice)


def test_a_prompt_of_token_ids_is_the_same_as_its_text(server: Any, tiny: Any) -> None:
    ids = [tiny[1](prompt)["input_ids"] for prompt in PROMPTS]
    texts = scored(server, PROMPTS)
    for one, other in zip(texts, scored(server, ids), strict=True):
        assert one["text"] == other["text"]
        assert one["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        assert one["logprobs"]["token_logprobs"][1:] == pytest.approx(other["logprobs"]["token_logprobs"][1:], abs=1e-5)
    assert scored(server, ids[0])[0]["text"] == texts[0]["text"]


def test_scores_of_the_answer_alone_and_in_a_stream(server: Any, tiny: Any) -> None:
    net, tokenizer = tiny
    options = {"model": "tiny", "prompt": "12+7=", "max_tokens": 6, "logprobs": 2}
    whole = server.client.completions.create(**options).choices[0]
    assert len(whole.logprobs.tokens) == 6
    ids = tokenizer("12+7=")["input_ids"]
    for value, likely in zip(whole.logprobs.token_logprobs, whole.logprobs.top_logprobs, strict=True):
        row = plain(net, ids)[-1]
        ids.append(int(row.argmax()))
        assert value == pytest.approx(float(row.max()), abs=1e-5)
        assert value == max(likely.values())
        assert len(likely) == 2
    chunks = [chunk.choices[0] for chunk in server.client.completions.create(**options, stream=True)]
    assert [value for chunk in chunks for value in chunk.logprobs.token_logprobs] == whole.logprobs.token_logprobs
    echoed = [chunk.choices[0].text for chunk in server.client.completions.create(**options, echo=True, stream=True)]
    assert "".join(echoed) == "12+7=" + whole.text


def test_others_in_the_batch_go_on_while_a_prompt_is_scored(server: Any) -> None:
    def answer() -> str:
        return server.client.completions.create(model="tiny", prompt="1+1", max_tokens=30).choices[0].text

    alone = answer()
    stream = server.client.completions.create(model="tiny", prompt="1+1", max_tokens=30, stream=True)
    pieces = [next(iter(stream)).choices[0].text]
    scored(server, PROMPTS)
    assert "".join([*pieces, *(chunk.choices[0].text for chunk in stream)]) == alone


def test_without_tokens_to_generate_only_the_prompt_comes_back(server: Any) -> None:
    [choice] = scored(server, "abc", max_tokens=0, logprobs=None)
    assert choice["text"] == "abc"
    assert choice["logprobs"] is None
    reply = server.post("/v1/completions", {"prompt": "x" * 64, "max_tokens": 0, "echo": True})
    assert reply.json()["usage"] == {"prompt_tokens": 64, "completion_tokens": 0, "total_tokens": 64}


def test_a_token_that_the_model_does_not_know_is_refused(server: Any, tiny: Any) -> None:
    known = len(tiny[1])
    reply = server.post("/v1/completions", {"prompt": [[1], [known]], "max_tokens": 1})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == f"prompt: the model knows {known} tokens, from 0 on"
    assert server.post("/v1/completions", {"prompt": [known - 1], "max_tokens": 1}).status_code == 200


def test_parts_of_characters_are_named_by_their_ids(server: Any, tiny: Any) -> None:
    """Bytes above 127 have the same text on their own, so one would hide the other."""
    ids = tiny[1]("é漢")["input_ids"]
    for choice in scored(server, [ids], logprobs=5):
        likely = choice["logprobs"]["top_logprobs"][1:]
        assert all(len(one) >= 5 for one in likely)
        assert any(name.startswith("token_id:") for one in likely for name in one)


def test_logits_that_are_not_finite_are_an_error_and_no_figure(
    server: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tiny[0].forward

    def spoilt(**inputs: Any) -> Any:
        output = real(**inputs)
        output.logits[0, 0] = float("nan")
        return output

    with monkeypatch.context() as patch:
        patch.setattr(tiny[0], "forward", spoilt)
        reply = server.post("/v1/completions", {"prompt": "abc", "echo": True, "logprobs": 1, "max_tokens": 0})
    assert reply.status_code == 500
    assert "not finite" in reply.json()["error"]["message"]
    assert scored(server, "abc")


def test_a_model_that_sees_a_window_only_scores_in_parts(
    start: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64}
    config = MistralConfig(vocab_size=257, num_attention_heads=4, num_key_value_heads=2, sliding_window=8, **sizes)
    net = MistralForCausalLM(config).eval()
    monkeypatch.setattr(generator, "MAX_LOGITS", 4 * 257 * 5)
    server = start(BatchGenerator(net, tiny[1], 8))
    for prompt, choice in zip(PROMPTS, scored(server, PROMPTS), strict=True):
        assert_plain(net, tiny[1], tiny[1](prompt)["input_ids"], choice)


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_become_text_in_the_thread_that_tokenizes(
    server: Any, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding: set[str] = set()
    decode = server.served.prompts.decode

    def watched(ids: list[int]) -> str:
        decoding.add(threading.current_thread().name)
        return decode(ids)

    monkeypatch.setattr(server.served.prompts, "decode", watched)
    body = {"prompt": "the quick brown fox", "echo": True, "logprobs": 2, "max_tokens": 2, "stream": stream}
    assert server.post("/v1/completions", body).status_code == 200
    assert decoding == {"tokenizing_0"}
