"""A server in a thread of the test's own process."""

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai

from ftkit.serving.address import hosts_of, listen
from ftkit.serving.endpoints import Served
from ftkit.serving.generator import BatchGenerator
from ftkit.serving.limits import Limits
from ftkit.serving.server import make_server


class HeldGenerator(BatchGenerator):
    """A generator whose first step waits until it may go on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def step(self) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        super().step()


class Running:
    """A server in a thread, and ways to ask it."""

    def __init__(
        self, served: Served, limits: Limits, key: str | None = None, allowed_hosts: Any = (), **behind: Any
    ) -> None:
        self.served = served
        self.socket = listen("127.0.0.1", 0, key)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = make_server(served, limits, hosts_of("127.0.0.1", allowed_hosts), key, **behind)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=json, timeout=30, trust_env=False, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, trust_env=False, **options)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
