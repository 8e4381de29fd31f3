"""Bounds on everything that a request can ask for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHOICES = 8
MAX_MESSAGES = 256
MAX_TEXTS = 64
MAX_STOPS = 4
MAX_STOP_LENGTH = 64
MAX_TEMPERATURE = 2.0
MAX_TOP_K = 1_000
MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may use.

    Args:
        max_new_tokens: The most tokens that a request may ask for.
        default_new_tokens: Tokens for a request that does not say.
        body_bytes: Largest body.
        body_seconds: Time to send head and body.
        seconds: Time for an answer, waiting included.
        waiting: The most answers that wait for their turn.
        drain_seconds: Time that running answers get when the server is told to end.
    """

    max_new_tokens: int = 1024
    default_new_tokens: int = 256
    body_bytes: int = 1_000_000
    body_seconds: float = 10.0
    seconds: float = 120.0
    waiting: int = 256
    drain_seconds: float = 20.0
