"""Who may ask, how much and how slowly."""

import hmac
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ftkit.errors import InputError
from ftkit.serving import security
from ftkit.serving.address import hosts_of, listen


def talk(server: Any, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send raw bytes, with pauses, and read until the server closes or answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause)
        got = b""
        try:
            while chunk := connection.recv(65536):
                got += chunk
                if b"\r\n\r\n" in got:
                    break
        except ConnectionResetError:
            pass
        return got


def whole(connection: socket.socket) -> bytes:
    """Read head and body of a reply whose body is a JSON object."""
    got = b""
    while not got.endswith(b"}"):
        chunk = connection.recv(65536)
        assert chunk, got
        got += chunk
    return got


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[", "@x"])
def test_a_foreign_host_is_refused(server: Any, host: str) -> None:
    reply = talk(server, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]:8000", "LOCALHOST"])
def test_the_names_of_this_machine_are_its_own(server: Any, host: str) -> None:
    assert server.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost:1", "http://127.0.0.1", "http://["]
)
def test_a_page_of_others_is_refused_and_no_reply_lets_one_read(server: Any, origin: str) -> None:
    reply = server.get("/v1/models", headers={"origin": origin})
    assert reply.status_code == 403
    own = server.get("/v1/models", headers={"origin": server.url})
    assert own.status_code == 200
    for answer in (reply, own, server.get("/health")):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.fixture
def locked(start: Any) -> Iterator[Any]:
    return start(key="s3cret")


@pytest.mark.parametrize(
    "header", [None, "s3cret", "Bearer", "Bearer wrong", "Bearer s3cretx", "Basic s3cret", "Bearer é"]
)
def test_a_missing_or_wrong_key_is_401(locked: Any, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    assert locked.get("/v1/models", headers=headers).status_code == 401
    assert locked.post("/v1/completions", {"prompt": "a"}, headers=headers).status_code == 401


def test_the_key_is_compared_in_constant_time_before_the_body_is_read(
    locked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    reply = talk(locked, HEAD + b"Authorization: Bearer no\r\nContent-Length: 900\r\n\r\n")  # the body never comes
    assert reply.startswith(b"HTTP/1.1 401")
    assert compared == [(b"no", b"s3cret")]
    assert locked.get("/v1/models", headers={"authorization": "Bearer s3cret"}).status_code == 200
    assert locked.get("/health").status_code == 200


def test_without_a_key_other_machines_may_not_ask() -> None:
    with pytest.raises(InputError, match=r"host: an address open to other machines needs a key .*FTKIT_API_KEY"):
        listen("0.0.0.0", 0, None)
    listen("0.0.0.0", 0, "key").close()
    for host in ("a" * 300, "a..b"):
        with pytest.raises(InputError, match="host: no such address"):
            listen(host, 0, "key")
    assert hosts_of("0.0.0.0") is None
    assert hosts_of("192.0.2.1") == {"192.0.2.1"}
    assert hosts_of("LLM.example") == {"llm.example"}  # as clients' Host headers are compared
    assert "localhost" in (hosts_of("127.0.0.1") or ())


def test_a_body_over_the_limit_is_413_by_its_word_and_by_its_bytes(server: Any) -> None:
    assert talk(server, HEAD + b"Content-Length: 10001\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert talk(server, HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n")[:12] in (
        b"HTTP/1.1 413",
        b"HTTP/1.1 400",
    )
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    reply = talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, chunk)
    assert reply.startswith(b"HTTP/1.1 413")
    exact = b'{"prompt": "a", "max_tokens": 1' + b" " * (10_000 - 32) + b"}"
    headers = {"content-type": "application/json"}
    assert server.post("/v1/completions", content=exact, headers=headers).status_code == 200
    assert server.post("/v1/completions", content=exact + b" ", headers=headers).status_code == 413


def test_a_client_that_still_sends_a_body_over_the_limit_gets_its_answer(server: Any) -> None:
    """It would get a reset connection if the server closed it before the body was read."""
    for _ in range(5):
        reply = server.post("/v1/completions", content=b"x" * 10_000_000, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert reply.json()["error"]["message"] == "the body is larger than 10,000 bytes"


def test_a_client_that_never_ends_its_body_is_cut_off_after_its_413(server: Any) -> None:
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")

        def endless() -> None:
            while time.monotonic() - started < 60:
                connection.sendall(b"x" * 1000)
                time.sleep(0.02)

        with pytest.raises(OSError, match=r"reset|Broken pipe|closed"):
            endless()


def test_behind_a_proxy_its_name_and_its_path_are_ours(start: Any) -> None:
    proxied = start(key="s3cret", allowed_hosts=["LLM.example"], root_path="/llm")
    headers = {"host": "llm.example", "authorization": "Bearer s3cret"}
    for path in ("/v1/models", "/llm/v1/models", "/llm/v1/models/tiny"):
        assert proxied.get(path, headers=headers).status_code == 200
        assert proxied.get(path, headers={**headers, "host": "other.example"}).status_code == 403
        assert proxied.get(path, headers={"host": "llm.example"}).status_code == 401
    assert proxied.get("/llm/health", headers={"host": "llm.example"}).status_code == 200
    assert proxied.get("/health", headers={"host": "10.0.0.7"}).status_code == 200  # as a load balancer asks
    assert hosts_of("0.0.0.0", ["llm.example"]) == {"llm.example", "localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "name", ["llm.example:443", "https://llm.example", "*.example", "llm.example/llm", "*", "", "é"]
)
def test_an_allowed_host_that_no_request_could_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="allowed_hosts: must be a host name without port, path and wildcard"):
        hosts_of("0.0.0.0", ["llm.example", name])
    assert hosts_of("192.0.2.1", ["2001:DB8::1"]) == {"192.0.2.1", "2001:db8::1"}


def test_a_compressed_body_is_refused(server: Any) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    assert server.post("/v1/completions", content=b"x", headers=headers).status_code == 415


def test_a_body_that_drips_is_cut_off(server: Any) -> None:
    started = time.monotonic()
    reply = talk(server, HEAD + b"Content-Length: 100\r\n\r\n", b"{")
    assert reply.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started > 0.4  # not before its time


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_that_drips_is_cut_off_first_and_later(server: Any, first: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        if first:
            connection.sendall(first)
            assert b"200 OK" in whole(connection)
        started = time.monotonic()
        connection.sendall(b"GET /health HTT")

        def drip() -> None:
            while time.monotonic() - started < 60:
                connection.sendall(b"P")
                time.sleep(0.05)

        with pytest.raises(OSError, match=r"reset|Broken pipe|closed"):
            drip()
        assert time.monotonic() - started > 0.4


def test_an_idle_connection_that_asks_in_time_is_kept(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in whole(connection)
            time.sleep(0.7)  # longer than a head may take
