"""Answer requests: a place in the queue first, then the prompt's tokens, then the model."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from ftkit.examples.affixes import NO_AFFIXES
from ftkit.serving.jobs import Classification, Generation
from ftkit.serving.limits import Limits
from ftkit.serving.pending import Pending
from ftkit.serving.prompts import Prompts
from ftkit.serving.replies import ApiError, Json, Kind, Reply, encoded
from ftkit.serving.schemas import ChatRequest, ClassifyRequest, CompletionRequest, ImageQuestion
from ftkit.serving.thread import ModelThread

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """Describe a model that is served; a classifier makes no prompts, and bounds no prompt and answer together.

    Args:
        name: The name that clients use.
        thread: Runs the model.
        characters: The most characters that its context can hold, in tokens of the longest kind: a longer prompt or
            question is refused before it is tokenized. None of a classifier of texts, which reads the first tokens of
            any text; where these end is not known from its characters.
        prompts: How requests become prompts.
        context: The most tokens of prompt and answer together.
        reads_images: Whether a classifier's inputs are a text and an image, a ``data:`` URI, and not texts alone.
    """

    name: str
    thread: ModelThread
    characters: int | None
    prompts: Prompts | None = None
    context: int | None = None
    reads_images: bool = False
    # One thread, so that a long prompt takes one processor at most, and prompts of clients that left are skipped.
    tokenizing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tokenizing"))


Prompt = str | list[int] | tuple[dict[str, str], ...]  # a text to be continued, its token ids, or a conversation


async def generate(
    served: Served,
    limits: Limits,
    body: CompletionRequest | ChatRequest,
    prompts: Sequence[Prompt],
    request: Request,
    kind: Kind,
) -> Response:
    """Answer each prompt ``body.n`` times, whole or as a stream.

    Raises:
        ApiError: The request does not fit the model, the limits or the queue; time is up; or the client disconnected.
    """
    check_model(served, body.model)
    for prompt in prompts:
        _check_length(served, prompt, "messages" if isinstance(prompt, tuple) else "prompt")
    logprobs = body.logprobs if isinstance(body, CompletionRequest) else None
    pending = Pending(limits.seconds)
    jobs = [
        Generation(pending.expect(), stream=body.stream, logprobs=logprobs, ready=False)
        for _ in range(len(prompts) * body.n)
    ]
    pending.jobs += jobs
    try:
        served.thread.submit(jobs)  # a place in the queue comes before any work
        await pending.unless_gone(request, _tokenize(served, limits, body, prompts, jobs))
    except BaseException:
        pending.cancel()
        raise
    served.thread.begin(jobs)
    prompt_tokens = sum(len(job.prompt) for job in jobs[:: body.n])
    assert served.prompts is not None
    reply = Reply(kind, served.name, served.prompts.decode if logprobs is not None else None)
    if body.stream:
        counted = prompt_tokens if body.stream_options and body.stream_options.include_usage else None
        return StreamingResponse(_events(served, pending, reply, counted), media_type="text/event-stream")
    pieces = await _results(pending, request)
    return Json(await pending.unless_gone(request, _written(served, reply, reply.whole, pieces, prompt_tokens)))


async def _tokenize(
    served: Served,
    limits: Limits,
    body: CompletionRequest | ChatRequest,
    prompts: Sequence[Prompt],
    jobs: Sequence[Generation],
) -> None:
    """Give a request's jobs their prompts, ``n`` jobs each; one prompt at a time, so that others get their turn."""
    assert served.prompts is not None
    run = partial(asyncio.get_running_loop().run_in_executor, served.tokenizing)
    for number, prompt in enumerate(prompts):
        affixes = NO_AFFIXES
        if isinstance(prompt, str):
            ids = await run(served.prompts.text, prompt)
        elif isinstance(prompt, list):
            ids = prompt
        else:
            ids = await run(served.prompts.chat, list(prompt))
            affixes = await run(served.prompts.affixes, list(prompt))
        max_tokens = _new_tokens(served, limits, len(ids), body.wanted_tokens)
        for choice, job in enumerate(jobs[number * body.n : (number + 1) * body.n]):
            job.prompt, job.affixes, job.sampling = ids, affixes, body.sampling(max_tokens, choice)
            if isinstance(body, CompletionRequest) and body.echo:
                job.echo = prompt if isinstance(prompt, str) else await run(served.prompts.decode, ids)


async def _results(pending: Pending, request: Request) -> list[Any]:
    try:
        return await pending.unless_gone(request, pending.all())
    finally:
        pending.cancel()


async def _written(served: Served, reply: Reply, write: Callable[..., T], *content: Any) -> T:
    """Apply ``write`` to content. Scores take long to decode, so the tokenizing thread does it."""
    if reply.decode is None:
        return write(*content)
    return await asyncio.get_running_loop().run_in_executor(served.tokenizing, write, *content)


async def _events(served: Served, pending: Pending, reply: Reply, prompt_tokens: int | None) -> AsyncIterator[bytes]:
    """Yield the server-sent events of a stream; ``prompt_tokens`` is given where the client wants the usage."""
    tokens: dict[int, int] = {}
    try:
        async for index, piece in pending:
            yield _event(await _written(served, reply, reply.chunk, index, piece, index not in tokens))
            tokens[index] = piece.tokens
        if prompt_tokens is not None:
            yield _event(reply.usage_chunk(prompt_tokens, sum(tokens.values())))
        yield b"data: [DONE]\n\n"
    except ApiError as error:  # the status has been sent, so the error goes into the stream
        yield _event(error.body)
    finally:
        pending.cancel()


def _event(content: Any) -> bytes:
    return b"data: " + encoded(content) + b"\n\n"


async def classify_texts(served: Served, limits: Limits, body: ClassifyRequest, request: Request) -> Response:
    """Classify the inputs of a request; errors are those of :func:`generate`."""
    check_model(served, body.model)
    for item in body.inputs:
        _check_input(served, item)
    pending = Pending(limits.seconds)
    jobs = [
        Classification(pending.expect(), item=item if isinstance(item, str) else (item.text, item.image))
        for item in body.inputs
    ]
    pending.jobs += jobs
    served.thread.submit(jobs)
    results = await _results(pending, request)
    data = [{"index": index, **result} for index, result in enumerate(results)]
    return Json({"object": "list", "model": served.name, "data": data})


def _check_input(served: Served, item: str | ImageQuestion) -> None:
    if isinstance(item, str) == served.reads_images:
        needed = "objects with a text and an image" if served.reads_images else "texts"
        raise ApiError(400, f"this model reads {needed}", param="input")
    if isinstance(item, ImageQuestion):
        _check_length(served, item.text, "input.text")


def check_model(served: Served, name: str | None) -> None:
    """Refuse a request for another model.

    Raises:
        ApiError: There is no such model.
    """
    if name is not None and name != served.name:
        raise ApiError(404, f"this server has one model, {served.name}", param="model", code="model_not_found")


def _check_length(served: Served, prompt: Prompt, field: str) -> None:
    """Refuse a prompt of more characters than the context can hold, before it is tokenized."""
    if isinstance(prompt, list):
        assert served.prompts is not None
        if max(prompt) >= served.prompts.vocabulary:
            raise ApiError(400, f"the model knows {served.prompts.vocabulary} tokens, from 0 on", param="prompt")
        return
    texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    if served.characters is not None and (characters := sum(map(len, texts))) > served.characters:
        raise ApiError(
            400,
            f"the prompt has {characters:,} characters; the context of {served.context} tokens holds at most"
            f" {served.characters:,}",
            param=field,
            code="context_length_exceeded",
        )


def _new_tokens(served: Served, limits: Limits, prompt: int, wanted: int | None) -> int:
    """Return how many tokens an answer may have; more than are allowed or fit are refused with both numbers."""
    assert served.context is not None
    if wanted is not None and wanted > limits.max_new_tokens:
        problem = f"{wanted} new tokens were requested, but {limits.max_new_tokens} are allowed"
        raise ApiError(400, problem, param="max_tokens")
    needed = 1 if wanted is None else wanted
    if prompt + needed > served.context:
        raise ApiError(
            400,
            f"the prompt has {prompt} tokens and {needed} more were requested; the context holds {served.context}",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return (
        wanted if wanted is not None else min(limits.default_new_tokens, limits.max_new_tokens, served.context - prompt)
    )
