"""Whatever a client sends gets 4xx with the field at fault, never 500, and never appears in the log."""

import json
import logging
from typing import Any

import pytest
from running_server import until

CANARY = "correct-horse-battery-staple"
JSON = {"content-type": "application/json"}


def completion(**fields: Any) -> bytes:
    return json.dumps({"prompt": CANARY, "max_tokens": 2, **fields}).encode()


def chat(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": CANARY}], "max_tokens": 2, **fields}).encode()


MALFORMED = [
    (b"", None),
    (b"{", None),
    (b"null", None),
    (b"[]", None),
    (b"\xff\xfe", None),
    (b'{"prompt": "\xff"}', None),
    (b"[" * 9000, None),
    (b'{"a":' * 1500 + b"1" + b"}" * 1500, None),
    (b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", None),
    (b'{"prompt": "a", "temperature": NaN}', "temperature"),
    (b'{"prompt": "a", "temperature": Infinity}', "temperature"),
    (b'{"prompt": "a", "top_p": 1e999}', "top_p"),
    (b'{"prompt": "\\ud800"}', "prompt"),
    (b'{"prompt": "a", "stop": "\\udfff"}', "stop"),
    (b'{"prompt": "a", "\\ud800": 1}', None),
    (completion(prompt=""), "prompt"),
    (completion(prompt=[]), "prompt"),
    (completion(prompt=["a"] * 65), "prompt"),
    (completion(prompt=[1, -2]), "prompt.1"),
    (completion(prompt=[1, "a"]), "prompt.1"),
    (completion(prompt=[1, True]), "prompt.1"),
    (completion(prompt=["a", 1]), "prompt.1"),
    (completion(prompt=[[1], []]), "prompt.1"),
    (completion(prompt=[[1]] * 65), "prompt"),
    (completion(prompt=[True]), "prompt.0"),
    (completion(prompt=[10**6]), "prompt"),
    (completion(prompt={"a": 1}), "prompt"),
    (json.dumps({"max_tokens": 2}).encode(), "prompt"),
    (completion(bogus=1), "bogus"),
    (completion(logprobs=6), "logprobs"),
    (completion(logprobs=True), "logprobs"),
    (completion(echo=1), "echo"),
    (completion(frequency_penalty=False), "frequency_penalty"),
    (completion(metadata={"a": 1}), "metadata.a"),
    (completion(max_tokens="5"), "max_tokens"),
    (completion(max_tokens=-1), "max_tokens"),
    (completion(max_tokens=2**40), "max_tokens"),
    (completion(max_tokens=2000), "max_tokens"),
    (completion(n=9), "n"),
    (completion(n=True), "n"),
    (completion(temperature=-0.1), "temperature"),
    (completion(temperature=2.1), "temperature"),
    (completion(top_p=0), "top_p"),
    (completion(top_k=-1), "top_k"),
    (completion(top_k=10**6), "top_k"),
    (completion(seed=2**64), "seed"),
    (completion(seed=-(2**63) - 1), "seed"),
    (completion(stop=["a"] * 5), "stop"),
    (completion(stop="a" * 65), "stop"),
    (completion(stop=[""]), "stop.0"),
    (completion(stream="yes"), "stream"),
    (completion(stream_options={"other": 1}), "stream_options.other"),
]
MALFORMED_CHATS = [
    (chat(messages=[]), "messages"),
    (chat(messages=[{"role": "user", "content": "a"}] * 257), "messages"),
    (chat(messages=[{"role": "robot", "content": "a"}]), "messages.0.role"),
    (chat(messages=[{"role": "user", "content": ""}]), "messages.0.content"),
    (chat(messages=[{"role": "user", "content": None}]), "messages.0.content"),
    (chat(messages=[{"role": "user"}]), "messages.0.content"),
    (chat(messages=[{"role": "user", "content": "a", "tool_calls": [{}]}]), "tool_calls"),
    (chat(messages=[{"role": "user", "content": "a", "bogus": 1}]), "messages.0.bogus"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_completion_tokens=0), "max_completion_tokens"),
]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [("/v1/completions", *case) for case in MALFORMED] + [("/v1/chat/completions", *case) for case in MALFORMED_CHATS],
)
def test_the_field_is_named(server: Any, path: str, body: bytes, field: str | None) -> None:
    reply = server.post(path, content=body, headers=JSON)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert error["message"].removeprefix(f"{field}: ")
    assert error["message"].startswith(f"{field}: ") or field is None  # clients show the message alone
    assert CANARY not in reply.text


@pytest.mark.parametrize(
    ("fields", "limit"), [({"prompt": ["a"] * 65}, "64"), ({"prompt": []}, "1"), ({"stop": ["a"] * 5}, "4")]
)
def test_a_list_of_a_wrong_length_is_told_the_limit(server: Any, fields: dict[str, Any], limit: str) -> None:
    """A text could stand there, too, but nobody who sends a list wants to hear of that."""
    message = server.post("/v1/completions", content=completion(**fields), headers=JSON).json()["error"]["message"]
    assert ": List should have" in message
    assert f" {limit} " in message


def test_a_null_is_a_field_left_out(server: Any) -> None:
    optional = ("temperature", "top_p", "n", "stream", "stop", "seed", "max_tokens", "logprobs")
    reply = server.post("/v1/completions", {"prompt": "a", **dict.fromkeys(optional)})
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"] == server.post("/v1/completions", {"prompt": "a"}).json()["choices"]
    assert server.post("/v1/completions", {"prompt": None}).json()["error"]["param"] == "prompt"


def test_an_image_is_refused(server: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    reply = server.post(
        "/v1/chat/completions", content=chat(messages=[{"role": "user", "content": [part]}]), headers=JSON
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("messages.0.content.0")


def test_a_prompt_that_does_not_fit_is_told_with_all_numbers(server: Any) -> None:
    reply = server.post("/v1/completions", {"prompt": "x" * 60, "max_tokens": 5})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert reply.json()["error"]["message"] == (
        "max_tokens: the prompt has 60 tokens and 5 more were requested; the context holds 64"
    )
    assert server.post("/v1/completions", {"prompt": "x" * 60, "max_tokens": 4}).status_code == 200
    filled = server.post("/v1/completions", {"prompt": "x" * 60})
    assert filled.json()["usage"]["completion_tokens"] <= 4
    assert server.post("/v1/completions", {"prompt": "x" * 64}).status_code == 400


def test_plain_text_is_not_taken_for_json(server: Any) -> None:
    """A web page may send such a body to another address without asking the browser."""
    reply = server.post("/v1/completions", content=completion(), headers={"content-type": "text/plain"})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].endswith("send the header Content-Type: application/json")
    reply = server.post("/v1/completions", content=b"[]", headers=JSON)
    assert "Content-Type" not in reply.json()["error"]["message"]


def test_an_unknown_path_names_those_there_are(server: Any) -> None:
    reply = server.get("/v1/embeddings")
    assert reply.status_code == 404
    assert "/v1/chat/completions, /v1/completions, /v1/models" in reply.json()["error"]["message"]
    assert server.get("/v1/completions").status_code == 405


def test_no_log_quotes_a_request(server: Any, capfd: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    for body in (completion(), completion(bogus=CANARY), completion(stop=[CANARY]), b'{"prompt": "' + CANARY.encode()):
        server.post("/v1/completions", content=body, headers=JSON)

    def broken(text: str) -> list[int]:
        raise RuntimeError(f"cannot encode {text}")

    monkeypatch.setattr(server.served.prompts, "text", broken)
    reply = server.post("/v1/completions", content=completion(), headers=JSON)
    assert reply.status_code == 500
    assert CANARY not in reply.text
    until(lambda: "unexpected: " in caplog.text)  # the answer may arrive before the log is written
    said = "".join(capfd.readouterr())
    assert CANARY not in said + caplog.text
    assert "unexpected: RuntimeError at test_bad_requests.py:" in caplog.text
