"""Limits on the time, size and queue places of requests."""

from dataclasses import dataclass

IMAGE_BODY_BYTES = 16_000_000  # of a server that reads images


@dataclass(frozen=True)
class Limits:
    """Bound what one request, and all together, may use.

    Args:
        max_new_tokens: The most tokens that a request may ask for.
        default_new_tokens: Tokens for a request that does not say.
        body_bytes: Largest body.
        all_bodies_bytes: Bodies of all requests that are not answered yet.
        body_seconds: Time to send head and body.
        seconds: Time for an answer, waiting included.
        waiting: The most answers in the queue.
        drain_seconds: Time that running answers get when the server is told to stop.
    """

    max_new_tokens: int = 1024
    default_new_tokens: int = 256
    body_bytes: int = 1_000_000
    all_bodies_bytes: int = 64_000_000
    body_seconds: float = 10.0
    seconds: float = 120.0
    waiting: int = 256
    drain_seconds: float = 20.0
