"""Request bodies, checked strictly: unknown fields, wrong types and values out of bounds are refused by name."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ftkit.serving.jobs import Sampling
from ftkit.serving.replies import ApiError

MAX_CHOICES = 8
MAX_MESSAGES = 256
MAX_TEXTS = 64
MAX_STOPS = 4
MAX_STOP_LENGTH = 64
MAX_TEMPERATURE = 2.0
MAX_TOP_K = 1_000
MAX_LOGPROBS = 5
MAX_NUMBER = 2**31 - 1
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1

# Fields of what this server does not do, which clients send all the same with a value that asks for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "include_obfuscation": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_calls": ([],),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
}

Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, body: Any) -> Any:
        """Drop fields that ask for nothing: null, which stands for a field left out, and those of :data:`NEUTRAL`."""
        if not isinstance(body, dict):
            return body
        given = {name: value for name, value in body.items() if value is not None}
        for name in NEUTRAL.keys() & given.keys():
            if any(_same(given[name], value) for value in NEUTRAL[name]):
                del given[name]
            elif name not in cls.model_fields:
                supported = " or ".join(json.dumps(value) for value in NEUTRAL[name])
                raise ApiError(400, f"this server supports no value but {supported}", param=name)
        return given


class StreamOptions(_Strict):
    """Check the options of a stream."""

    include_usage: bool = False


class _GenerationRequest(_Strict):
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_NUMBER)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(0.0, ge=0, le=MAX_TEMPERATURE)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=MAX_TOP_K)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: int | None = Field(None, ge=MIN_SEED, le=MAX_SEED)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None  # this and the others here are notes of the client's for itself
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def sampling(self, max_tokens: int, choice: int) -> Sampling:
        """Return the sampling rules of one of the ``n`` choices; with a seed each has its own."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = None if self.seed is None else (self.seed + choice) % 2**64
        return Sampling(max_tokens, self.temperature, self.top_p, self.top_k, stop, seed)

    @property
    def wanted_tokens(self) -> int | None:
        """Return the number of new tokens that the request asks for; None if it names none."""
        return self.max_tokens


def _kind(prompt: Any) -> str:
    """Return which kind of prompt is meant, so that only what is wrong with that kind is said."""
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    if isinstance(first, int) and not isinstance(first, bool):
        return "[token]"
    return "[[token]]" if isinstance(first, list) else "[text]" if isinstance(prompt, list) else "str"


class CompletionRequest(_GenerationRequest):
    """Check the body of ``/v1/completions``: texts, or their token ids, to be continued or scored."""

    prompt: Annotated[
        Annotated[Text, Tag("str")]
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS), Tag("[text]")]
        | Annotated[Tokens, Tag("[token]")]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_TEXTS), Tag("[[token]]")],
        Discriminator(_kind),
    ]
    max_tokens: int | None = Field(None, ge=0, le=MAX_NUMBER)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return the texts or token ids."""
        several = _kind(self.prompt) in ("[text]", "[[token]]")
        return list(self.prompt) if several else [self.prompt]  # type: ignore[arg-type, list-item]


def _same(given: Any, value: Any) -> bool:
    """Return whether two values of JSON are the same; 0 is 0.0, but not false."""
    return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)


class TextPart(_Strict):
    """Check a part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """Check one message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_TEXTS)]
    name: str | None = None

    def for_template(self) -> dict[str, str]:
        """Return role and text, as chat templates take them; these know a developer as the system."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role.replace("developer", "system"), "content": content}


class ChatRequest(_GenerationRequest):
    """Check the body of ``/v1/chat/completions``: a conversation to answer."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_NUMBER)

    @property
    def wanted_tokens(self) -> int | None:
        """Return the number of new tokens that the request asks for, under either of its two names."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


def _input_kind(given: Any) -> str:
    """Return which kind of input is meant, see :func:`_kind`."""
    first = given[0] if isinstance(given, list) and given else given
    kind = "{image}" if isinstance(first, dict) else "str"
    return kind if not isinstance(given, list) else "[{image}]" if kind == "{image}" else "[text]"


class ImageQuestion(_Strict):
    """Check a question about an image, which is a ``data:`` URI in base64."""

    text: Text
    image: Text


class ClassifyRequest(_Strict):
    """Check the body of ``/v1/classify``: texts, or questions about images, to classify."""

    input: Annotated[
        Annotated[Text, Tag("str")]
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS), Tag("[text]")]
        | Annotated[ImageQuestion, Tag("{image}")]
        | Annotated[list[ImageQuestion], Field(min_length=1, max_length=MAX_TEXTS), Tag("[{image}]")],
        Discriminator(_input_kind),
    ]
    model: str | None = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | ImageQuestion]:
        """Return the texts or questions."""
        return list(self.input) if isinstance(self.input, list) else [self.input]
