"""Values that ask for nothing are accepted, as stock clients send them; others are refused by name."""

from typing import Any

import pytest

from ftkit.serving.schemas import NEUTRAL

# What each field would have to be for a server that does what it is for.
ASKING: dict[str, Any] = {
    "annotations": [{}],
    "best_of": 2,
    "echo": True,
    "frequency_penalty": 0.5,
    "function_call": {"name": "f"},
    "functions": [{}],
    "include_obfuscation": True,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "min_p": 0.1,
    "modalities": ["text", "audio"],
    "parallel_tool_calls": 1,
    "presence_penalty": -1,
    "repetition_penalty": 1.1,
    "response_format": {"type": "json_object"},
    "service_tier": "flex",
    "store": True,
    "suffix": "end",
    "tool_calls": [{}],
    "tool_choice": "required",
    "tools": [{}],
    "top_logprobs": 2,
}
CHAT = {"messages": [{"role": "user", "content": "1+1"}], "max_tokens": 3}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_value_changes_nothing_and_any_other_is_refused_by_name(server: Any, name: str) -> None:
    plain = server.post("/v1/chat/completions", CHAT).json()["choices"]
    for value in NEUTRAL[name]:
        reply = server.post("/v1/chat/completions", {**CHAT, name: value})
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"] == plain
    refused = server.post("/v1/chat/completions", {**CHAT, name: ASKING[name]})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == name
    assert refused.json()["error"]["message"].startswith(f"{name}: this server supports no value but ")


def test_notes_of_the_client_for_itself_change_nothing(server: Any) -> None:
    notes = {"metadata": {"run": "7"}, "user": "a", "safety_identifier": "b", "prompt_cache_key": "c"}
    plain = server.post("/v1/chat/completions", CHAT).json()["choices"]
    assert server.post("/v1/chat/completions", {**CHAT, **notes}).json()["choices"] == plain


def test_a_developer_is_the_system(server: Any) -> None:
    answers = [
        server.client.chat.completions.create(
            model="tiny", messages=[{"role": role, "content": "Add."}, *CHAT["messages"]], max_tokens=8
        )
        for role in ("developer", "system", "user")
    ]
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_may_be_sent_back_as_the_client_holds_it(server: Any) -> None:
    """With all the fields of what it could have been."""
    answer = server.client.chat.completions.create(model="tiny", **CHAT).choices[0].message
    messages = [*CHAT["messages"], answer, {"role": "user", "content": "2+2"}]
    assert server.client.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63, 2**64 - 1])
def test_a_seed_has_64_bits(server: Any, seed: int) -> None:
    def drawn(seed: int, n: int) -> list[str]:
        answer = server.client.completions.create(
            model="tiny", prompt="a", max_tokens=12, temperature=1.5, seed=seed, n=n
        )
        return [choice.text for choice in answer.choices]

    first, second = drawn(seed, 2)
    assert [first] == drawn(seed, 1)
    assert first != second


def test_the_model_can_be_looked_up(server: Any) -> None:
    model = server.client.models.retrieve("tiny")
    assert model == server.client.models.list().data[0]
    reply = server.get("/v1/models/org/other")
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "model: this server has one model, tiny"
