"""Encoded messages as a dataset that hands out whole batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from ftkit.training.encoding import Encoding

Batch = dict[str, Any]


class TextDataset(Dataset[Batch]):
    """The messages of one split as texts; an index list gives a whole batch.

    A batch is a dict: ``text``, a list of B strings; ``label`` (B,) int64, the class, of two 1 for the positive one;
    ``id``, a list of B strings; ``index`` (B,) int64, the messages' places in the dataset; ``split``, the dataset's
    name; and perhaps ``columns``, lists of B strings by name.

    Args:
        ids: Name of each message.
        labels: The class of each message, from 0.
        texts: The text of each message; of encoded messages there are none.
        split: Name of the dataset.
        columns: Other columns of each message, for the prediction file.
    """

    def __init__(
        self,
        ids: list[str],
        labels: list[int],
        texts: Sequence[str],
        split: str = "",
        columns: Sequence[Mapping[str, str | None]] = (),
    ) -> None:
        self.ids, self.label, self.split = ids, torch.tensor(labels, dtype=torch.int64), split
        self.texts, self.columns = texts, columns
        self.names = list(columns[0]) if columns else []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the batch of the messages at ``indices``; a data loader calls it once a batch."""
        rows = torch.tensor(indices)
        columns = {name: [self.columns[index][name] for index in indices] for name in self.names}
        return {
            **({"text": [self.texts[index] for index in indices]} if self.texts else {}),
            "label": self.label[rows],
            "id": [self.ids[index] for index in indices],
            "index": rows,
            "split": self.split,
            **({"columns": columns} if columns else {}),
        }


class MessageDataset(TextDataset):
    """Hold the encoded messages of one split; an index list gives a whole batch.

    A batch is that of a :class:`TextDataset`, with ``input_ids`` (B, T) int64, padded on the right, and ``length`` (B,)
    int64, the number of real tokens, at least 1, in the place of the texts.

    Args:
        ids: Name of each message.
        labels: The class of each message, from 0.
        encoded: Token ids of each message, cut.
        encoding: How the messages of a batch are padded.
        split: Name of the dataset.
        width: Positions to keep of each message at least. A batch that is padded to its own longest message does not
            show them, but datasets of one width can share cached outputs of a frozen model.
        columns: Other columns of each message, for the prediction file.

    Attributes:
        input_ids: Token ids of all messages, padded to one width, (N, W) int64.
        length: Number of real tokens of all messages, (N,) int64.
    """

    def __init__(
        self,
        ids: list[str],
        labels: list[int],
        encoded: list[list[int]],
        encoding: Encoding,
        split: str = "",
        width: int = 1,
        columns: Sequence[Mapping[str, str | None]] = (),
    ) -> None:
        super().__init__(ids, labels, (), split, columns)
        padded = encoding.pad(encoded, width)
        self.input_ids, self.length = padded["input_ids"], padded["length"]
        self.pad_to_max = encoding.pad_to_max

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the batch of the messages at ``indices``."""
        batch = super().__getitems__(indices)
        length = self.length[batch["index"]]
        width = self.input_ids.shape[1] if self.pad_to_max else int(length.max())
        return {"input_ids": self.input_ids[batch["index"], :width], "length": length, **batch}


def as_it_is(batch: Any) -> Any:
    """Return the batch unchanged; a module-level function, so that worker processes can unpickle it."""
    return batch


def with_share(batch: Batch, size: int) -> Batch:
    """Add ``share`` to a batch that is a part of a step: the fraction of ``size`` messages that it holds."""
    return {**batch, "share": len(batch["id"]) / size}
