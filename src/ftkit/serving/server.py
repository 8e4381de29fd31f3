"""Run the server: slow clients are disconnected, and a shutdown lets answers finish."""

import asyncio
import signal
import socket
from collections.abc import Collection
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ftkit.errors import ExitCode
from ftkit.serving.address import MAX_CONNECTIONS
from ftkit.serving.app import make_app
from ftkit.serving.endpoints import Served
from ftkit.serving.limits import Limits
from ftkit.serving.security import Guard
from ftkit.serving.thread import ModelThread


class Server(uvicorn.Server):
    """A server that, told to end, gives running answers so many seconds and ends the others with an error."""

    def __init__(self, config: uvicorn.Config, thread: ModelThread, drain_seconds: float) -> None:
        super().__init__(config)
        self.thread, self.drain_seconds = thread, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait until all requests have been answered."""
        timer = asyncio.get_running_loop().call_later(self.drain_seconds, self.thread.stop)
        await super().shutdown(sockets)
        timer.cancel()


def make_server(
    served: Served,
    limits: Limits,
    hosts: Collection[str] | None,
    key: str | None,
    root_path: str = "",
) -> Server:
    """Return a server that is not yet running, see :func:`run`; clients may call it by ``hosts``, or None for any."""
    guarded = Guard(make_app(served, limits), limits, hosts, key, root_path)
    config = uvicorn.Config(
        guarded,
        http=_with_head_timeout(limits.body_seconds),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(limits.drain_seconds) + 2,  # for clients that do not read what they are sent
        h11_max_incomplete_event_size=16_384,
    )
    return Server(config, served.thread, limits.drain_seconds)


def run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept no more requests and let running answers finish.

    Raises:
        SystemExit: With 143 after SIGTERM.
        KeyboardInterrupt: After Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _terminated)  # uvicorn raises the signal again after its shutdown
    server.run(sockets=[listening])


def _terminated(number: int, frame: Any) -> None:
    raise SystemExit(ExitCode.TERMINATED)


def _with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, changed to close a connection whose request head does not come in time.

    By itself it waits forever for the first head, and for every later one that has begun.
    """

    class Protocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            waits = self.cycle is None or self.cycle.response_complete
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif waits and self._head_timer is None:
                self._head_timer = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return Protocol
