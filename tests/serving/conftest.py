"""A tiny model behind a real server on the loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_server import Running

from ftkit.models.loading import context_length
from ftkit.serving.endpoints import Served
from ftkit.serving.generator import BatchGenerator
from ftkit.serving.limits import Limits
from ftkit.serving.loading import load_generator
from ftkit.serving.prompts import Prompts
from ftkit.serving.thread import ModelThread

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny(gpt2_folder: Path) -> tuple[Any, Any]:
    """The tiny model and its tokenizer of single bytes, with a chat template."""
    net, tokenizer = load_generator(str(gpt2_folder))
    tokenizer.chat_template = TEMPLATE
    return net, tokenizer


@pytest.fixture
def start(tiny: tuple[Any, Any]) -> Iterator[Callable[..., Running]]:
    """Start a server of the tiny model, or of another engine."""
    running = []

    def starting(
        engine: Any = None, key: str | None = None, batch_size: int = 16, classifier: bool = False, **options: Any
    ) -> Running:
        net, tokenizer = tiny
        behind = {name: options.pop(name) for name in ("allowed_hosts", "root_path") if name in options}
        bounds = Limits(**{"drain_seconds": 5.0, **options})
        engine = engine or BatchGenerator(net, tokenizer, batch_size)
        prompts = None if classifier else Prompts(tokenizer)
        served = Served("tiny", ModelThread(engine, bounds.waiting), 10_000, prompts, context_length(net.config))
        running.append(Running(served, bounds, key, **behind))
        return running[-1]

    yield starting
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def server(tiny: tuple[Any, Any]) -> Iterator[Running]:
    """A server of the tiny model that the tests of a file share."""
    net, tokenizer = tiny
    thread = ModelThread(BatchGenerator(net, tokenizer, 16), 256)
    served = Served("tiny", thread, 10_000, Prompts(tokenizer), context_length(net.config))
    running = Running(served, Limits(drain_seconds=5.0, body_bytes=10_000, body_seconds=0.5))
    yield running
    running.stop()
