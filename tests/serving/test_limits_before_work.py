"""What a request may cost before it is refused: no work on prompts that are too long, or of clients that left."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from running_server import HeldGenerator, until

from ftkit.serving.classifier import BatchClassifier
from ftkit.serving.prompts import longest_token


class Gate:
    """Holds the tokenizing thread until it is opened; counts the prompts that came through."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Semaphore(0), threading.Event()
        self.encoded: list[str] = []
        self._encode = server.served.prompts.text
        monkeypatch.setattr(server.served.prompts, "text", self)

    def __call__(self, text: str) -> list[int]:
        self.entered.release()
        assert self.opened.wait(60)
        self.encoded.append(text)
        return self._encode(text)


def asked(server: Any, prompt: str, **options: Any) -> Any:
    return server.post("/v1/completions", {"prompt": prompt, "max_tokens": 2, **options})


def abandoned(server: Any, prompt: str) -> None:
    """Send a request and leave."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/completions", json={"prompt": prompt, "max_tokens": 2}, timeout=0.3, trust_env=False
        )


def test_no_token_stands_for_more_characters_than_the_longest_entry(tiny: Any) -> None:
    assert longest_token(tiny[1]) == len("<|endoftext|>")


def test_a_prompt_longer_than_any_context_is_refused_before_it_is_tokenized(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it was tokenized")

    monkeypatch.setitem(vars(server.served), "characters", 100)
    monkeypatch.setattr(server.served.prompts, "text", never)
    monkeypatch.setattr(server.served.prompts, "chat", never)
    reply = asked(server, "x" * 101)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert "the prompt has 101 characters; the context of 64 tokens holds at most 100" in reply.text
    messages = [{"role": "system", "content": "x" * 60}, {"role": "user", "content": "x" * 41}]
    chat = server.post("/v1/chat/completions", {"messages": messages})
    assert chat.status_code == 400
    assert chat.json()["error"]["param"] == "messages"


def test_a_prompt_that_is_being_tokenized_has_a_place_in_the_queue(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(waiting=2)
    gate = Gate(server, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(asked, server, prompt) for prompt in "ab"]
        until(lambda: server.get("/health").json()["waiting"] == 2)
        refused = asked(server, "c")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.get("/health").json()["oldest_seconds"] > 0
        gate.opened.set()
        assert [reply.result().status_code for reply in replies] == [200, 200]
    assert sorted(gate.encoded) == ["a", "b"]


def test_the_prompts_of_clients_that_left_are_not_tokenized(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    gate = Gate(server, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(asked, server, "a")
        assert gate.entered.acquire(timeout=20)
        for _ in range(3):
            abandoned(server, "left")
        until(lambda: server.get("/health").json()["waiting"] == 1)
        gate.opened.set()
        assert first.result().status_code == 200
    assert asked(server, "b").status_code == 200
    assert gate.encoded == ["a", "b"]


def test_the_deadline_holds_while_a_prompt_is_tokenized(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(seconds=0.3)
    gate = Gate(server, monkeypatch)
    reply = asked(server, "a", stream=True)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "timeout"
    gate.opened.set()
    until(lambda: server.get("/health").json()["waiting"] == 0)


def test_the_bodies_of_all_requests_together_are_bounded(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(all_bodies_bytes=3000)
    gate = Gate(server, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(asked, server, "x" * 60 + "\n", user="u" * 1200) for _ in range(2)]
        until(lambda: server.get("/health").json()["waiting"] == 2)
        refused = asked(server, "a", user="u" * 1200)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        gate.opened.set()
        assert {reply.result().status_code for reply in replies} == {200}
    assert asked(server, "a", user="u" * 1200).status_code == 200


def test_health_says_when_the_model_makes_no_progress_and_answers_head(start: Any, tiny: Any) -> None:
    server = start(held := HeldGenerator(*tiny, batch_size=1), seconds=0.5)
    head = httpx.head(f"{server.url}/health", trust_env=False)
    assert (head.status_code, head.content) == (200, b"")
    assert server.get("/health").json()["status"] == "ok"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asked, server, "ab")
        assert held.begun.wait(60)
        until(lambda: server.get("/health").status_code == 503)
        report = server.get("/health").json()
        assert report["status"] == "the model's thread makes no progress"
        assert report["last_step_seconds"] > 0.5
        held.go_on.set()
        assert answer.result().status_code == 504
    until(lambda: server.get("/health").status_code == 200)


def test_a_text_to_classify_is_read_whole_for_a_cut_changes_the_tokens_of_some_vocabularies(start: Any) -> None:
    class Long:
        def classify(self, texts: list[str], batch_size: int = 8) -> list[dict[str, Any]]:
            return [{"label": str(len(text)), "probability": 1.0} for text in texts]

    server = start(BatchClassifier(Long(), 4), classifier=True)
    reply = server.post("/v1/classify", {"input": ["a" * 9, "b" * 20_000]})
    assert [result["label"] for result in reply.json()["data"]] == ["9", "20000"]
