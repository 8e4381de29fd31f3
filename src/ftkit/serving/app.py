"""The HTTP application: OpenAI's endpoints for the model that a thread runs."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ftkit.errors import InputError
from ftkit.serving.endpoints import Served, check_model, classify_texts, generate
from ftkit.serving.limits import Limits
from ftkit.serving.replies import ApiError, Json
from ftkit.serving.schemas import ChatRequest, ClassifyRequest, CompletionRequest
from ftkit.serving.thread import ModelThread


def make_app(served: Served, limits: Limits) -> FastAPI:
    """Build the application for one model; its thread starts and ends with the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served.thread.start()
        yield
        served.tokenizing.shutdown(wait=False, cancel_futures=True)
        await run_in_threadpool(served.thread.close, 1.0)  # all requests have ended, so it is idle unless it hangs

    app = FastAPI(
        title="ftkit",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        default_response_class=Json,
    )
    for kind in (ApiError, InputError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _error)
    model = {"id": served.name, "object": "model", "created": int(time.time()), "owned_by": "ftkit"}

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        return _health(served.thread, limits)

    @app.get("/v1/models")
    async def models() -> Response:
        return Json({"object": "list", "data": [model]})

    @app.get("/v1/models/{name:path}")
    async def retrieve(name: str) -> Response:
        check_model(served, name)
        return Json(model)

    prompts = served.prompts
    if prompts is None:

        @app.post("/v1/classify")
        async def classify(body: ClassifyRequest, request: Request) -> Response:
            return await classify_texts(served, limits, body, request)
    else:

        @app.post("/v1/completions")
        async def completions(body: CompletionRequest, request: Request) -> Response:
            return await generate(served, limits, body, body.prompts, request, "text_completion")

        @app.post("/v1/chat/completions")
        async def chat(body: ChatRequest, request: Request) -> Response:
            messages = tuple(message.for_template() for message in body.messages)
            return await generate(served, limits, body, [messages], request, "chat.completion")

    return app


def _health(thread: ModelThread, limits: Limits) -> Response:
    """Say how the model's thread does: 503 where it has ended, or works on one step for longer than an answer may."""
    if not thread.alive:
        return Json({"status": "the model's thread has ended", "reason": thread.error}, status_code=503)
    report = {
        "running": thread.running,
        "waiting": thread.waiting,
        "oldest_seconds": round(thread.oldest_seconds, 3),
        "last_step_seconds": round(thread.last_step_seconds, 3),
    }
    if thread.running and thread.last_step_seconds > limits.seconds:
        return Json({"status": "the model's thread makes no progress", **report}, status_code=503)
    return Json({"status": "ok", **report})


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
