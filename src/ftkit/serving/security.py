"""Check every request before anything reads it: its host, origin, key, size and speed."""

import asyncio
import hmac
import logging
from collections.abc import Collection
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftkit.serving.limits import Limits
from ftkit.serving.replies import ApiError
from ftkit.serving.thread import described

log = logging.getLogger("ftkit.serving")


class Guard:
    """Check requests before they reach the application.

    A foreign ``Host`` (a name that an attacker resolves to this machine) or ``Origin`` (another web page) is refused;
    there are no CORS headers. With a key every request must send it, which is checked before the body is read.
    ``/health`` is asked by machines, under any name and without a key. Bodies are counted as they come, whatever length
    they declare, and must come in time. Unexpected errors are logged by type and place, never with their message, which
    may quote a prompt. The application answers below ``root_path`` as well as without it: a proxy may pass that part on
    or not.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, hosts: Collection[str] | None, key: str | None, root_path: str = ""
    ) -> None:
        self.app, self.limits, self.hosts = app, limits, hosts
        self.key = None if key is None else key.encode()
        self.root_path = root_path
        self._held: dict[int, int] = {}  # bytes of the body of each request that is not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        scope["root_path"] = self.root_path

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            health = scope["path"].removeprefix(self.root_path) == "/health"
            self._check_origin(headers, any_host=health)
            if not health:
                self._check_key(headers)
            self._check_length(headers)
            body = await self._body(Request(scope, receive))
            await self.app(scope, _replaying(body, receive), watched)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except Exception as error:
            log.error("unexpected: %s", described(error))
            if not started:
                await ApiError(500, "internal server error; the server's log names the place").response()(
                    scope, receive, send
                )
        finally:
            self._held.pop(id(scope), None)

    def _check_origin(self, headers: dict[bytes, str], any_host: bool) -> None:
        host = headers.get(b"host", "")
        if self.hosts is not None and not any_host and _split(f"//{host}", "hostname") not in self.hosts:
            raise ApiError(403, "the Host header is not a host name of this server", code="foreign_host")
        origin = headers.get(b"origin")
        if origin is not None and _split(origin, "netloc") != host:
            raise ApiError(403, "requests from other web pages are refused", code="foreign_origin")

    def _check_key(self, headers: dict[bytes, str]) -> None:
        if self.key is None:
            return
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), self.key):
            raise ApiError(
                401, "a valid API key is needed", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )

    def _check_length(self, headers: dict[bytes, str]) -> None:
        if headers.get(b"content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "compressed bodies are not accepted")
        length = headers.get(b"content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self.limits.body_bytes:
            raise self._too_large()

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._held[id(request.scope)] = len(body)
                    if sum(self._held.values()) > self.limits.all_bodies_bytes:
                        raise ApiError(503, "too many long requests; try again soon", headers={"Retry-After": "1"})
                    if len(body) > self.limits.body_bytes:
                        raise self._too_large()
            return bytes(body)
        except ClientDisconnect:
            raise ApiError(400, "the client disconnected") from None
        except TimeoutError:
            raise ApiError(
                408, f"the body took longer than {self.limits.body_seconds:g} s", headers={"Connection": "close"}
            ) from None

    def _too_large(self) -> ApiError:
        # The connection stays, so that the rest is read and thrown away, and a client that is still sending gets this.
        return ApiError(413, f"the body is larger than {self.limits.body_bytes:,} bytes")


def _split(url: str, part: Literal["hostname", "netloc"]) -> str | None:
    """Return a part of a URL; None if it has none, or is not a URL."""
    try:
        return getattr(urlsplit(url), part)
    except ValueError:
        return None


def _replaying(body: bytes, receive: Receive) -> Any:
    """Return a ``receive`` that yields the body that was read, then what comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
