"""The HTTP application: OpenAI's endpoints for the model that a thread runs."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.serving.jobs import Classification, Generation
from ftkit.serving.limits import Limits
from ftkit.serving.pending import Pending
from ftkit.serving.prompts import Prompts
from ftkit.serving.replies import ApiError, Json, Kind, Reply, encoded
from ftkit.serving.schemas import ChatRequest, ClassifyRequest, CompletionRequest
from ftkit.serving.thread import ModelThread


@dataclass(frozen=True)
class Served:
    """Describe a model that is served; a classifier makes no prompts, and bounds no prompt and answer together."""

    name: str
    thread: ModelThread
    prompts: Prompts | None = None
    context: int | None = None


def make_app(served: Served, limits: Limits) -> FastAPI:
    """Build the application for one model; its thread starts and ends with the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served.thread.start()
        yield
        await run_in_threadpool(served.thread.close, limits.drain_seconds)

    app = FastAPI(title="ftkit", lifespan=lifespan, docs_url=None, redoc_url=None, default_response_class=Json)
    for kind in (ApiError, InputError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error)
    started = int(time.time())

    @app.get("/health")
    async def health() -> Response:
        thread = served.thread
        if not thread.alive:
            return Json({"status": "the model's thread has ended", "reason": thread.error}, status_code=503)
        return Json({"status": "ok", "running": thread.running, "waiting": thread.waiting})

    @app.get("/v1/models")
    async def models() -> Response:
        model = {"id": served.name, "object": "model", "created": started, "owned_by": "ftkit"}
        return Json({"object": "list", "data": [model]})

    prompts = served.prompts
    if prompts is None:

        @app.post("/v1/classify")
        async def classify(body: ClassifyRequest, request: Request) -> Response:
            return await _classify(served, limits, body, request)
    else:

        @app.post("/v1/completions")
        async def completions(body: CompletionRequest, request: Request) -> Response:
            encoded = await run_in_threadpool(prompts.texts, body.prompts)
            return await _generate(served, limits, body, encoded, request, "text_completion")

        @app.post("/v1/chat/completions")
        async def chat(body: ChatRequest, request: Request) -> Response:
            messages = [message.for_template() for message in body.messages]
            encoded = await run_in_threadpool(prompts.chat, messages)
            affixes = await run_in_threadpool(prompts.affixes, messages)
            return await _generate(served, limits, body, [encoded], request, "chat.completion", affixes)

    return app


async def _generate(
    served: Served,
    limits: Limits,
    body: CompletionRequest | ChatRequest,
    prompts: Sequence[list[int]],
    request: Request,
    kind: Kind,
    affixes: Affixes = NO_AFFIXES,
) -> Response:
    _check_model(served, body.model)
    tokens = [_new_tokens(served, limits, len(prompt), body.wanted_tokens) for prompt in prompts]
    pending = Pending(limits.seconds)
    for prompt, max_tokens in zip(prompts, tokens, strict=True):
        for choice in range(body.n):
            deliver = pending.expect()
            pending.jobs.append(Generation(deliver, prompt, body.sampling(max_tokens, choice), body.stream, affixes))
    served.thread.submit(pending.jobs)
    prompt_tokens = sum(map(len, prompts))
    reply = Reply(kind, served.name)
    if body.stream:
        counted = prompt_tokens if body.stream_options and body.stream_options.include_usage else None
        return StreamingResponse(_events(pending, reply, counted), media_type="text/event-stream")
    return Json(reply.whole(await pending.all_or_disconnect(request), prompt_tokens))


async def _events(pending: Pending, reply: Reply, prompt_tokens: int | None) -> AsyncIterator[bytes]:
    """Yield the server-sent events of a stream; ``prompt_tokens`` is given where the client wants the usage."""
    tokens: dict[int, int] = {}
    try:
        async for index, piece in pending:
            yield _event(reply.chunk(index, piece, first=index not in tokens))
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


async def _classify(served: Served, limits: Limits, body: ClassifyRequest, request: Request) -> Response:
    _check_model(served, body.model)
    pending = Pending(limits.seconds)
    pending.jobs += [Classification(pending.expect(), text) for text in body.texts]
    served.thread.submit(pending.jobs)
    results = await pending.all_or_disconnect(request)
    data = [{"index": index, **result} for index, result in enumerate(results)]
    return Json({"object": "list", "model": served.name, "data": data})


def _check_model(served: Served, name: str | None) -> None:
    if name is not None and name != served.name:
        raise ApiError(404, f"this server has one model, {served.name}", param="model", code="model_not_found")


def _new_tokens(served: Served, limits: Limits, prompt: int, wanted: int | None) -> int:
    """Return how many tokens an answer may have; more than are allowed or fit are refused with both numbers."""
    assert served.context is not None
    if wanted is not None and wanted > limits.max_new_tokens:
        problem = f"{wanted} new tokens were requested, but {limits.max_new_tokens} are allowed"
        raise ApiError(400, problem, param="max_tokens")
    if prompt + (wanted or 1) > served.context:
        raise ApiError(
            400,
            f"the prompt has {prompt} tokens and {wanted or 1} more were requested; the context holds {served.context}",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return wanted or min(limits.default_new_tokens, limits.max_new_tokens, served.context - prompt)


async def _error(request: Request, error: Any) -> Response:
    """Answer a request with an error in OpenAI's format."""
    if isinstance(error, RequestValidationError):
        error = _invalid(request, error)
    elif isinstance(error, InputError):
        error = ApiError(400, str(error))
    elif isinstance(error, HTTPException) and error.status_code == 404:
        error = ApiError(404, f"no such endpoint; use one of {', '.join(sorted(request.app.openapi()['paths']))}")
    elif isinstance(error, HTTPException):
        error = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return error.response()


def _invalid(request: Request, error: RequestValidationError) -> ApiError:
    """Say what is wrong with a body, without quoting it; of several errors the innermost.

    Where several types are possible, each has an error; that of the chosen one says more than "not this type".
    """
    found = [(_place(one["loc"]), not one["type"].endswith("_type"), one["msg"]) for one in error.errors()]
    place, _, message = max(found, key=lambda it: (len(it[0]), it[1]))
    field = None if error.errors()[0]["type"] == "json_invalid" else ".".join(place)[:100] or None
    if not place and "json" not in request.headers.get("content-type", ""):  # curl -d calls any body a form
        message = "the body is not declared to be JSON; send the header Content-Type: application/json"
    return ApiError(400, str(message)[:200], param=field)


def _place(location: Sequence[Any]) -> list[str]:
    """Return the fields and indices of a pydantic location, which can also hold names of types."""
    return [str(part) for part in location[1:] if str(part).replace("_", "a").isalnum() and part != "str"]
