"""The results that a request waits for: the bridge from the model's thread to the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request

from ftkit.serving.jobs import Job, Piece
from ftkit.serving.replies import ApiError


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
                raise ApiError(504, f"no answer within {self._seconds:g} s", code="timeout") from None
            if isinstance(result, ApiError):
                raise result
            unfinished -= not isinstance(result, Piece) or result.finish is not None
            yield index, result

    async def all_or_disconnect(self, request: Request) -> list[Any]:
        """Return all results, one a job; if the client disconnects first, the jobs are dropped.

        Raises:
            ApiError: A job failed, time is up, or the client disconnected.
        """
        collecting = asyncio.ensure_future(self._all())
        leaving = asyncio.ensure_future(_disconnect(request))
        try:
            await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if collecting.done():
                return collecting.result()
            raise ApiError(499, "the client disconnected")
        finally:
            self.cancel()
            collecting.cancel()
            leaving.cancel()

    async def _all(self) -> list[Any]:
        results = dict([pair async for pair in self])
        return [results[index] for index in range(self._expected)]


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
