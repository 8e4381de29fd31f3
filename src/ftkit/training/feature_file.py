"""Write and read an entry of the feature store: a safetensors file of vectors with a checksum.

It is written as the vectors are computed, and read a batch at a time.
"""

import json
import math
import mmap
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ftkit.storage import key_of, unlinked

_CHUNK = 1 << 24  # bytes read at a time for a checksum
_CRC_BYTES = 4
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}  # of safetensors


class Features:
    """Read one entry of a store: for each example some vectors, through a memory map.

    Args:
        path: The entry's file. Its tensors are ``lengths``, ``rows``, which holds the vectors of all examples in order
            of length, and ``crc32``, the checksum of all bytes before its own.

    Attributes:
        lengths: How many vectors each example has, (N,) int64.

    Raises:
        ValueError: The file is missing, cut short, damaged, or that of another entry.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")  # so that the entry can be read even if it is deleted meanwhile
            if not _is_intact(self._file):
                raise ValueError("it is not what was written")
            with safe_open(path, "pt") as content:
                made_of = json.loads(content.metadata()["made_of"])
                self.lengths: Tensor = content.get_tensor("lengths").clone()
                rows = content.get_slice("rows")
                self._shape, self._dtype = rows.get_shape(), rows[:1].dtype
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if key_of(made_of) != path.stem:
            raise ValueError(f"{path} is another entry")
        self._offset = self._file.tell() - _CRC_BYTES - math.prod(self._shape) * self._dtype.itemsize
        order = self.lengths.argsort(stable=True)
        ordered = self.lengths[order]
        self._starts = torch.empty_like(self.lengths)
        self._starts[order] = ordered.cumsum(0) - ordered

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, examples: Sequence[int], lengths: Sequence[int] | None = None) -> Tensor:
        """Read a batch: of each example its first ``lengths`` vectors, or all of them.

        Returns:
            A copy of the vectors, (B, longest, D), filled up with zeros.
        """
        wanted = self.lengths[list(examples)].tolist() if lengths is None else lengths
        # Mapped for this batch only: pages that stay mapped would count as this process's memory.
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        values = torch.frombuffer(mapped, dtype=self._dtype, offset=self._offset, count=math.prod(self._shape))
        rows, starts = values.view(self._shape), self._starts[list(examples)].tolist()
        taken = [rows[start : start + length] for start, length in zip(starts, wanted, strict=True)]
        return pad_sequence(taken, batch_first=True)


def write_features(
    path: Path,
    made_of: Mapping[str, Any],
    lengths: Sequence[int],
    batch_size: int,
    compute: Callable[[list[int]], Tensor],
    check_room: Callable[[int], Any],
) -> None:
    """Write an entry as it is computed, the vectors in order of length and a batch at a time.

    Args:
        path: The file.
        made_of: What decides the numbers, as plain values.
        lengths: How many vectors to keep of each example.
        batch_size: Examples computed together.
        compute: Makes vectors (B, T, D) of a list of example numbers.
        check_room: Is told how many bytes the file takes before any is written.
    """
    checksum, order = 0, torch.tensor(lengths).argsort(stable=True).tolist()
    with open(path, "wb", opener=unlinked) as file:
        for start in range(0, len(order), batch_size):
            examples = order[start : start + batch_size]
            vectors = compute(examples).detach().cpu()
            parts = [row[: lengths[example]] for row, example in zip(vectors, examples, strict=True)]
            written: list[bytes | memoryview] = [bytes_of(part) for part in parts]
            if not start:
                written.insert(0, _header(made_of, lengths, vectors))
                size = len(written[0]) + sum(lengths) * vectors[0, 0].nbytes + _CRC_BYTES
                check_room(size)
                if hasattr(os, "posix_fallocate"):  # a full disk shows now, and not after the work
                    os.posix_fallocate(file.fileno(), 0, size)
            for part in written:
                file.write(part)
                checksum = zlib.crc32(part, checksum)
        file.write(checksum.to_bytes(_CRC_BYTES))
        if file.tell() != size:
            raise ValueError(f"{file.tell():,} bytes were computed instead of {size:,}")
        file.flush()
        os.fsync(file.fileno())


def _header(made_of: Mapping[str, Any], lengths: Sequence[int], vectors: Tensor) -> bytes:
    """Return what stands before the rows in an entry, in the format of safetensors: the header and the lengths."""
    size, width = sum(lengths), vectors.shape[2]
    places = [0, 8 * len(lengths), 8 * len(lengths) + size * vectors[0, 0].nbytes]
    places.append(places[2] + _CRC_BYTES)
    tensors = {
        "lengths": {"dtype": "I64", "shape": [len(lengths)], "data_offsets": places[:2]},
        "rows": {"dtype": _DTYPES[vectors.dtype], "shape": [size, width], "data_offsets": places[1:3]},
        "crc32": {"dtype": "U8", "shape": [_CRC_BYTES], "data_offsets": places[2:]},
    }
    text = json.dumps({"__metadata__": {"made_of": json.dumps(made_of)}, **tensors}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(bytes_of(torch.tensor(lengths, dtype=torch.int64)))


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _is_intact(file: IO[bytes]) -> bool:
    """Compare the last bytes of a file with the checksum of all before them."""
    checksum, left = 0, os.fstat(file.fileno()).st_size - _CRC_BYTES
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    return left == 0 and file.read() == checksum.to_bytes(_CRC_BYTES)
