"""The results that a request waits for: the bridge from the model's thread to the event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request

from ftkit.serving.jobs import Job, Piece
from ftkit.serving.replies import ApiError

T = TypeVar("T")


class Pending:
    """Collect the results of one request's jobs as they come.

    Args:
        seconds: Time for all of them.
    """

    def __init__(self, seconds: float) -> None:
        self.jobs: list[Job] = []
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + seconds
        self._seconds = seconds
        self._results: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self._expected = 0

    def expect(self) -> Callable[[Any], None]:
        """Return the ``deliver`` of one more job, to be called in the model's thread."""
        index, self._expected = self._expected, self._expected + 1

        def deliver(result: Any) -> None:
            self._loop.call_soon_threadsafe(self._results.put_nowait, (index, result))

        return deliver

    def cancel(self) -> None:
        """Let the model's thread drop unfinished jobs."""
        for job in self.jobs:
            job.cancelled = True

    async def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        """Yield the number of a job and a result of it, in the order they come, until every job is done.

        Raises:
            ApiError: A job failed, or time is up.
        """
        unfinished = self._expected
        while unfinished:
            try:
                async with asyncio.timeout_at(self._deadline):
                    index, result = await self._results.get()
            except TimeoutError:
                raise self._too_late() from None
            if isinstance(result, ApiError):
                raise result
            unfinished -= not isinstance(result, Piece) or result.finish is not None
            yield index, result

    async def unless_gone(self, request: Request, work: Awaitable[T]) -> T:
        """Return the result of ``work``, and cancel it if the client disconnects or time is up before it is done.

        Raises:
            ApiError: Time is up, or the client disconnected.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_disconnect(request))
        try:
            async with asyncio.timeout_at(self._deadline):
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ApiError(499, "the client disconnected")
        except TimeoutError:
            raise self._too_late() from None
        finally:
            working.cancel()
            leaving.cancel()

    def _too_late(self) -> ApiError:
        return ApiError(504, f"no answer within {self._seconds:g} s", code="timeout")

    async def all(self) -> list[Any]:
        """Return all results, one a job.

        Raises:
            ApiError: A job failed, or time is up.
        """
        results = dict([pair async for pair in self])
        return [results[index] for index in range(self._expected)]


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
