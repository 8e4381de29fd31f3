"""Full queue, time-outs, clients that leave, a model that dies, and the end of the server."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import HeldGenerator, until

from ftkit.cli import main
from ftkit.commands.serve import serve
from ftkit.errors import InputError
from ftkit.serving.generator import BatchGenerator
from ftkit.serving.jobs import Job
from ftkit.serving.thread import ModelThread


class Slow(BatchGenerator):
    """A generator whose tokens take as long as is said."""

    seconds = 0.05

    def step(self) -> None:
        time.sleep(self.seconds)
        super().step()


@pytest.fixture
def slow(tiny: Any) -> Slow:
    net, tokenizer = tiny
    engine = Slow(net, tokenizer, 2)
    engine.end_tokens = frozenset()  # answers as long as they may
    return engine


def asked(server: Any, tokens: int, **options: Any) -> httpx.Response:
    return server.post("/v1/completions", {"prompt": "ab", "max_tokens": tokens, **options})


def test_a_full_queue_is_503_with_the_time_to_come_back(start: Any, slow: Slow) -> None:
    server = start(slow, waiting=3)
    with ThreadPoolExecutor(20) as pool:
        in_work = [pool.submit(asked, server, 40) for _ in range(2)]
        until(lambda: len(slow.jobs) == 2)
        replies = list(pool.map(lambda _: asked(server, 20), range(18)))
    assert [reply.result().status_code for reply in in_work] == [200, 200]
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 3  # as many as may wait
    for reply in replies:
        if reply.status_code == 503:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["code"] == "queue_full"
    assert asked(server, 2, n=3).status_code == 200


def test_a_request_for_more_answers_than_may_ever_wait_is_400_with_both_numbers(start: Any) -> None:
    server = start(waiting=3)
    reply = asked(server, 2, n=4)
    assert reply.status_code == 400
    assert "retry-after" not in reply.headers  # it would be in vain
    assert reply.json()["error"]["message"] == (
        "4 answers were requested at once, but the queue holds 3; fix: request fewer at a time"
    )
    assert asked(server, 2, n=3).status_code == 200


def test_a_timeout_is_504_and_frees_the_slot(start: Any, slow: Slow) -> None:
    server = start(slow, seconds=1.5)
    slow.seconds = 0.5  # 60 tokens would take half a minute
    reply = asked(server, 60)
    assert reply.status_code == 504
    until(lambda: not slow.jobs)
    slow.seconds = 0
    assert asked(server, 2).status_code == 200
    slow.seconds = 0.5
    stream = asked(server, 60, stream=True)
    assert stream.status_code == 200
    assert '"code": "timeout"' in stream.text
    assert "[DONE]" not in stream.text
    until(lambda: not slow.jobs)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(start: Any, slow: Slow, stream: bool) -> None:
    server = start(slow)
    slow.seconds = 0.5
    body = b'{"prompt": "ab", "max_tokens": 60, "stream": %s}' % str(stream).lower().encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: slow.jobs)
    until(lambda: not slow.jobs)  # 60 tokens would take half a minute


def test_health_and_refusals_do_not_wait_for_the_model(start: Any, tiny: Any) -> None:
    server = start(held := HeldGenerator(*tiny, batch_size=1))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asked, server, 2)
        assert held.begun.wait(60)
        assert server.get("/health").json()["running"] == 1
        assert asked(server, 2, temperature=-1).status_code == 400
        assert not answer.done()
        held.go_on.set()
        assert answer.result().status_code == 200


def test_a_model_that_dies_fails_all_and_health_says_so(start: Any, slow: Slow, caplog: Any) -> None:
    server = start(slow)
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(asked, server, 60) for _ in range(5)]
        until(lambda: server.served.thread.running == 2 and server.served.thread.waiting == 3)

        def broken(**inputs: Any) -> Any:
            raise ValueError("the prompt was: secret")

        slow.model = broken
        assert {future.result().status_code for future in waiting} == {503}
    health = server.get("/health")
    assert health.status_code == 503
    assert health.json()["reason"] == "ValueError at test_lifecycle.py:" + health.json()["reason"].rpartition(":")[2]
    assert asked(server, 2).status_code == 503
    assert "secret" not in caplog.text + health.text
    assert "the model's thread has ended: ValueError" in caplog.text


def served(*arguments: str, port: int = 0, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftkit", "serve", *arguments, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " on http://" in line, process.stderr.read() if process.stderr else line
    return line.split(" on ")[1].split()[0]


def test_sigterm_lets_answers_finish_and_takes_no_more(gpt2_folder: Path) -> None:
    process = served(str(gpt2_folder), "--name", "tiny")
    url = address_of(process)
    with httpx.Client(trust_env=False, timeout=60) as client:
        until(lambda: _healthy(client, url))
        # Many answers of one request, so that it is still at work when it is told to end.
        request = {"prompt": ["a" * size for size in range(1, 55)], "n": 4, "max_tokens": 10}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, f"{url}/v1/completions", json=request)
            until(lambda: httpx.get(f"{url}/health", trust_env=False).json()["running"])
            process.send_signal(signal.SIGTERM)
            reply = answer.result()
    assert reply.status_code == 200
    assert len(reply.json()["choices"]) == 54 * 4
    assert process.wait(30) == 143
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", trust_env=False)
    said = "".join(process.communicate())
    assert "aaaa" not in said
    assert "Traceback" not in said


def test_what_is_not_answered_when_the_time_to_end_is_up_ends_with_an_error(
    start: Any, slow: Slow, caplog: Any
) -> None:
    server = start(slow, drain_seconds=1.0)
    slow.seconds = 0.2  # 60 tokens take 12 seconds
    with ThreadPoolExecutor(3) as pool:
        stream, whole = (pool.submit(asked, server, 60, stream=stream) for stream in (True, False))
        until(lambda: len(slow.jobs) == 2)
        waiting = pool.submit(asked, server, 60)
        until(lambda: server.served.thread.waiting == 1)
        started = time.monotonic()
        server.stop()
        assert 0.9 < time.monotonic() - started < 5
        for reply in (whole.result(), waiting.result()):
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "shutting_down"
    assert stream.result().status_code == 200
    last = stream.result().text.strip().split("\n\n")[-1]
    assert '"code": "shutting_down"' in last
    assert not server.served.thread.alive
    assert "Traceback" not in caplog.text


def test_answers_whose_prompts_are_being_computed_end_with_the_server() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Admitting:
        jobs: tuple[Job, ...] = ()
        room = 1

        def admit(self, jobs: Any) -> None:
            begun.set()
            assert go_on.wait(60)

        def step(self) -> None:
            raise AssertionError("nothing is left to do")

    thread = ModelThread(Admitting(), 4)
    thread.start()
    ended: list[Any] = []
    job = Job(ended.append)
    thread.submit([job])
    assert begun.wait(60)
    assert (thread.running, thread.waiting) == (1, 0)
    assert thread.oldest_seconds > 0
    thread.stop()
    assert job.cancelled
    assert [error.status for error in ended] == [503]
    go_on.set()
    thread.close(60)
    assert not thread.alive
    assert thread.error is None
    assert thread.running == 0


def test_a_port_in_use_is_told_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = served("/no/such/model", port=port)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said == f"error: port {port} on 127.0.0.1 is in use; fix: choose another --port\n"


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=rf"port: must be from 0 to 65535 \(got {port}\)"):
        serve("/no/such/model", port=port)


def test_names_of_a_proxy_are_given_once_or_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(
        "ftkit.serving.server.run", lambda server, listening: started.append((server, listening.close()))
    )
    serve_demo = ["serve", "demo", "--port", "0"]
    assert main([*serve_demo, "--allowed_hosts", "llm.example"]) == 0
    assert main([*serve_demo, "--allowed-hosts", "llm.example", "--allowed_hosts=a.example"]) == 0
    own = {"localhost", "127.0.0.1", "::1", "llm.example"}
    assert [server.config.app.hosts for server, _ in started] == [own, own | {"a.example"}]
    assert main([*serve_demo, "--allowed_hosts", "llm.example:443"]) == 2
    assert len(started) == 2


def _healthy(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/health").status_code == 200
    except httpx.ConnectError:
        return False
