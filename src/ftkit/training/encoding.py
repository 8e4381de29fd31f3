"""Encode texts as right-padded batches of token ids; checkpoints hold the rules, so that inference repeats training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoding:
    """Hold the rules by which texts are cut and padded.

    Args:
        labels: Names of the classes; of two the negative one first.
        max_length: Longer texts are cut to this many tokens.
        pad_to_max: Whether every text is padded to ``max_length``; otherwise to the longest text of its batch.
        pad_id: Token id of the padding.
        single: Whether texts of unequal length must not share a batch, since padding would change their predictions.
        ends: The special tokens that end each text, also one that is cut; None encodes without special tokens.
    """

    labels: tuple[str, ...]
    max_length: int
    pad_to_max: bool
    pad_id: int
    single: bool
    ends: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))  # JSON knows lists only
        object.__setattr__(self, "ends", None if self.ends is None else tuple(self.ends))

    def encode(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, cut; an empty text without special tokens becomes one padding token."""
        if not texts:
            return []
        options = {"add_special_tokens": self.ends is not None, "return_attention_mask": False, "verbose": False}
        return [self.cut(ids) or [self.pad_id] for ids in tokenizer(list(texts), **options)["input_ids"]]

    def cut(self, ids: list[int]) -> list[int]:
        """Return the first ``max_length`` token ids, the last of which are special ones if there are some.

        Example:
            >>> Encoding(("ham", "spam"), 3, pad_to_max=True, pad_id=0, single=False, ends=(2,)).cut([1, 7, 8, 9, 2])
            [1, 7, 2]
        """
        if len(ids) <= self.max_length:
            return ids
        ends = self.ends or ()
        return [*ids[: self.max_length - len(ends)], *ends]

    def pad(self, encoded: Sequence[Sequence[int]], at_least: int = 1) -> dict[str, Tensor]:
        """Make a batch: ``input_ids`` (B, T) int64 padded on the right, T ``at_least``, and ``length`` (B,) int64.

        Example:
            >>> rules = Encoding(("ham", "spam"), max_length=3, pad_to_max=True, pad_id=9, single=False)
            >>> rules.pad([[1], [2, 3]])["input_ids"].tolist()
            [[1, 9, 9], [2, 3, 9]]
        """
        length = torch.tensor([len(ids) for ids in encoded])
        width = self.max_length if self.pad_to_max else max([at_least, *map(len, encoded)])
        input_ids = torch.full((len(encoded), width), self.pad_id)
        for row, ids in zip(input_ids, encoded, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return {"input_ids": input_ids, "length": length}

    def batches(self, encoded: Sequence[Sequence[int]], batch_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield padded batches in order, of one text each where texts must not share a batch."""
        step = 1 if self.single else batch_size
        for start in range(0, len(encoded), step):
            yield self.pad(encoded[start : start + step])


def ends_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the special tokens that a tokenizer puts behind a text, such as BERT's ``[SEP]``."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    behind = takewhile(
        lambda pair: pair[1], zip(encoded["input_ids"][::-1], encoded["special_tokens_mask"][::-1], strict=True)
    )
    return tuple(token for token, _ in behind)[::-1]
