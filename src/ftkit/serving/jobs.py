"""The jobs that requests give to the model's thread, and their results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ftkit.examples.affixes import NO_AFFIXES, Affixes

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """Say how the next tokens of one answer are chosen.

    Args:
        max_tokens: The most tokens to generate; 0 only computes the prompt.
        temperature: 0 takes the most likely token; above, tokens are drawn from the softmax of logits / temperature.
        top_p: Draw from the most likely tokens that hold this share of the probability.
        top_k: Draw from this many most likely tokens; 0 from all.
        stop: The answer ends before the first of these strings.
        seed: Seed of the sampling; None takes a new one.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class TokenScore:
    """Hold how likely a token was where it stands.

    Args:
        token: Its id.
        logprob: Its log-probability given all tokens before it; None of the first one, which has none before it.
        top: Log-probabilities of the most likely tokens in its place, itself among them, by id, falling.
    """

    token: int
    logprob: float | None = None
    top: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Hold a part of an answer.

    Args:
        text: New text.
        tokens: Number of tokens generated so far.
        finish: Why the answer ends with this piece; None if more follow.
        scores: Of the tokens since the last piece, where they were asked for.
    """

    text: str
    tokens: int
    finish: Finish | None = None
    scores: Sequence[TokenScore] = ()


@dataclass(eq=False)
class Job:
    """Describe work for the model's thread.

    Args:
        deliver: Called in the model's thread with each result, or with the :class:`~ftkit.serving.replies.ApiError`
            that ended the job.
        cancelled: Set by anyone when the result is no longer wanted; the model's thread then drops the job.
        ready: Whether the model can begin; a job whose prompt is still being tokenized has its place in the queue.
        since: When the request came, in seconds of ``time.monotonic``.
    """

    deliver: Callable[[Any], None]
    cancelled: bool = field(default=False, kw_only=True)
    ready: bool = field(default=True, kw_only=True)
    since: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(eq=False)
class Generation(Job):
    """Ask for one answer to a prompt of at least one token, once it is ready; delivers :class:`Piece`.

    With ``stream`` each token's text is delivered at once, otherwise the whole answer in one piece. The ``affixes``
    that the chat template writes around an answer are left out. With an ``echo`` the answer begins with this text of
    the prompt; with ``logprobs`` it holds the score of each token beside as many likely ones, those of the prompt, too,
    if there is an ``echo``.
    """

    prompt: Sequence[int] = ()
    sampling: Sampling = Sampling(max_tokens=1)
    stream: bool = False
    affixes: Affixes = NO_AFFIXES
    echo: str | None = None
    logprobs: int | None = None


@dataclass(eq=False)
class Classification(Job):
    """Ask for the class of one input, a text or the parts of a question about an image.

    Delivers a dict with ``label`` and ``probability``.
    """

    item: Any = None
