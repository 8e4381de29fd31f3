"""The loss of held-out texts under a causal language model."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftkit.errors import InputError
from ftkit.examples.encoder import Encoder
from ftkit.examples.length import LengthRule
from ftkit.examples.padding import padded
from ftkit.examples.reader import Example, read_examples
from ftkit.examples.records import RecordSource
from ftkit.examples.sources import open_source
from ftkit.models.base_model import hidden_states_and_head
from ftkit.models.losses import IGNORE_INDEX, sequence_log_probs, supervised_log_probs
from ftkit.results.text_files import text_lines

Text = str | Example


class Window(NamedTuple):
    """A part of a text that a model reads at a time."""

    text: int  # the number of the text
    input_ids: list[int]
    first: int  # the place of the first token that is scored; those before are context


def read_texts(source: Any) -> list[Text]:
    """Read held-out texts.

    Args:
        source: A ``.txt`` or ``.md`` file, whose texts are separated by blank lines; or what
            :func:`ftkit.examples.sources.open_source` takes, with a column ``text``, or without it examples in the
            shapes of :mod:`ftkit.examples.reader`, of whose answers the loss is.

    Raises:
        InputError: The source cannot be read, holds nothing, or an example has images.
    """
    if isinstance(source, str | Path) and Path(source).suffix in (".txt", ".md"):
        texts: list[Text] = list(_paragraphs(Path(source).expanduser()))
    elif "text" in (records := open_source(source)).columns:
        texts = [_checked(records, place, record.get("text")) for place, record in records]
    else:
        return [_without_images(example) for example in read_examples(records, images=False)]
    if not texts:
        raise InputError("holds no text", file=source)
    return texts


def windows_of(texts: Sequence[Text], processor: Any, size: int, chat: bool | None = None) -> list[Window]:
    """Return the windows of all texts, of ``size`` tokens at most; of an example prompt and answer, which is cut."""
    encoder, found = Encoder(processor, LengthRule(size), chat), list[Window]()
    for number, text in enumerate(texts):
        if isinstance(text, str):
            found += [Window(number, *part) for part in overlapping(encoder.renderer.text_ids(text), size)]
        elif (encoded := encoder.encode(text)).answers:
            found.append(Window(number, encoded.prompt + encoded.answers[0], len(encoded.prompt)))
    return found


def overlapping(input_ids: list[int], size: int) -> Iterator[tuple[list[int], int]]:
    """Yield the windows of a text and the place of the first token in each that is scored; none is scored twice.

    Each window but the first begins half a window later than the one before.

    Example:
        >>> list(overlapping([5, 6, 7, 8, 9], size=4))
        [([5, 6, 7, 8], 0), ([7, 8, 9], 2)]
    """
    stride = size // 2
    for start in range(0, max(len(input_ids) - size, 0) + stride, stride):
        yield input_ids[start : start + size], size - stride if start else 0


@torch.no_grad()
def text_losses(
    net: nn.Module, windows: Sequence[Window], texts: int, batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the loss of each text and how many of its tokens are scored; nothing predicts the first token of a text.

    Args:
        net: A causal language model in evaluation mode.
        windows: The windows of all texts.
        texts: The number of texts N.
        batch_size: Windows run at a time.
        device: Where the model is.

    Returns:
        Negative log-likelihoods in nats, summed over the tokens of each text, float64 (N,), and int64 (N,).
    """
    hidden_states, head = hidden_states_and_head(net)
    losses, tokens = torch.zeros(texts, dtype=torch.float64), torch.zeros(texts, dtype=torch.int64)
    ordered = sorted(windows, key=lambda window: len(window.input_ids))  # so that little is padded
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        labels = [[IGNORE_INDEX] * one.first + one.input_ids[one.first :] for one in batch]
        # Right padded, so that no token sees the padding.
        states = hidden_states(input_ids=padded([one.input_ids for one in batch], 0).to(device))
        found = supervised_log_probs(states, padded(labels, IGNORE_INDEX).to(device), head)
        sums, counts = sequence_log_probs(found.log_probs.cpu().double(), found.sequence.cpu(), len(batch))
        places = torch.tensor([one.text for one in batch])
        losses.index_add_(0, places, -sums)
        tokens.index_add_(0, places, counts)
    return losses, tokens


def _paragraphs(path: Path) -> Iterator[str]:
    """Yield the texts of a file, which blank lines separate."""
    for blank, lines in groupby((text for _, text in text_lines(path)), key=str.isspace):
        if not blank:
            yield "".join(lines)


def _checked(records: RecordSource, place: int, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise records.error(place, "is no text", field="text", got=text)
    return text


def _without_images(example: Example) -> Example:
    if example.images:
        raise example.error("held-out examples have no images", field="images", fix="leave the example out")
    return example
