"""Cache outputs of frozen layers on disk: computed once, shared by every run and process that would compute the same.

An entry (:mod:`ftkit.training.feature_file`) is named by the SHA-256 of what made its numbers, so another weight, text
or precision is another entry and nothing has to be invalidated. It is written beside its place and renamed: it is whole
or not there.
"""

import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import PARTIAL_SUFFIX, cache_folder, key_of
from ftkit.training.feature_file import Features, write_features

DEFAULT_MAX_GB = 20.0
MAX_GB_VARIABLE = "FTKIT_FEATURES_GB"

_log = logging.getLogger(__name__)


class FeatureStore:
    """A folder of entries.

    Args:
        folder: The folder; None takes ``features`` in :func:`ftkit.storage.cache_folder`.
        max_gb: The most that all entries together may take, in 10^9 bytes; None takes ``$FTKIT_FEATURES_GB``, or 20.

    Raises:
        InputError: ``$FTKIT_FEATURES_GB`` is no number, or below 0.

    Example:
        >>> import tempfile
        >>> store = FeatureStore(Path(tempfile.mkdtemp()))
        >>> made_of = {"weights": "5f3a", "texts": "90c1"}
        >>> compute = lambda examples: torch.tensor(examples).float().reshape(-1, 1, 1).expand(-1, 3, 2)
        >>> built = store.build(made_of, [1, 3], batch_size=8, compute=compute)
        >>> store.find(made_of).read([1, 0]).tolist()
        [[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
    """

    def __init__(self, folder: Path | None = None, max_gb: float | None = None) -> None:
        self.folder = folder or cache_folder() / "features"
        self.max_bytes = 1e9 * (_max_gb() if max_gb is None else max_gb)

    def find(self, made_of: Mapping[str, Any]) -> Features | None:
        """Return the entry that ``made_of`` describes, or None if there is none or it is damaged."""
        path = self._path(made_of)
        if not path.exists():
            return None
        try:
            return Features(path)
        except ValueError as error:
            warnings.warn(f"{error}; it is computed again", stacklevel=2)
            return None

    def build(
        self,
        made_of: Mapping[str, Any],
        lengths: Sequence[int],
        batch_size: int,
        compute: Callable[[list[int]], Tensor],
    ) -> Features | None:
        """Compute an entry, unless another process has done so while this one waited for it.

        Args:
            made_of: What decides the numbers, as plain values.
            lengths: How many vectors to keep of each example.
            batch_size: Examples computed together. They come in order of length, so that little is padded.
            compute: Makes vectors (B, T, D) of a list of example numbers, T at least the longest of their lengths.

        Returns:
            The entry; None, after a warning, if it cannot be kept: no room, or a folder that cannot be written.
        """
        path = self._path(made_of)
        partial = path.with_suffix(f".{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            with self._locked(path.stem):
                if found := self.find(made_of):
                    return found
                self._remove_leftovers(path)
                try:
                    write_features(partial, made_of, lengths, batch_size, compute, self.check_room)
                    partial.rename(path)
                finally:
                    partial.unlink(missing_ok=True)
                return Features(path)
        except (OSError, EnvironmentFault) as error:
            warnings.warn(f"outputs of frozen layers are computed again in every step: {error}", stacklevel=2)
            return None

    def _path(self, made_of: Mapping[str, Any]) -> Path:
        return self.folder / f"{key_of(made_of)}.safetensors"

    def check_room(self, needed: int) -> int:
        """Return how many bytes there is room for, ``needed`` and more.

        Raises:
            EnvironmentFault: The store would exceed its bound, or the disk its free half.
        """
        used = sum(map(_size, self.folder.iterdir()))
        if used + needed > self.max_bytes:
            raise EnvironmentFault(
                f"they need {needed / 1e9:.3g} GB, and {used / 1e9:.3g} of {self.max_bytes / 1e9:g} GB are taken",
                file=self.folder,
                fix=f"delete the folder, or set {MAX_GB_VARIABLE} higher",
            )
        free = shutil.disk_usage(self.folder).free
        if needed > free / 2:  # the rest belongs to checkpoints and results
            raise EnvironmentFault(
                f"they need {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB left",
                file=self.folder,
                fix="free some space, or set FTKIT_CACHE to a folder on another disk",
            )
        return int(min(self.max_bytes - used, free / 2))

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold one entry for this process. The kernel lets go of it when the process ends, however it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock(key)
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            _log.info("another process computes the same outputs of frozen layers: waiting for it")
            started = time.perf_counter()
            held = lock.acquire()
            _log.info("waited %.0f s", time.perf_counter() - started)
        with held:
            yield

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.folder / f"{key}.lock")

    def _remove_leftovers(self, path: Path) -> None:
        """Remove a damaged entry, whose lock this process holds, and what killed processes left half built."""
        path.unlink(missing_ok=True)
        for partial in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
            key = partial.name.partition(".")[0]
            if key == path.stem:
                partial.unlink(missing_ok=True)
            else:
                with suppress(Timeout), self._lock(key).acquire(blocking=False):
                    partial.unlink(missing_ok=True)


def _max_gb() -> float:
    given = os.environ.get(MAX_GB_VARIABLE, str(DEFAULT_MAX_GB))
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not found >= 0:  # NaN is neither
        raise InputError("must be a number of 10^9 bytes, 0 or more", field=MAX_GB_VARIABLE, got=given)
    return found


def pinned_for(features: Tensor, device: torch.device) -> Tensor:
    """Pin features in memory if they go to a GPU: what a loader pinned did not have them yet."""
    return features.pin_memory() if device.type == "cuda" else features


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just removed or renamed it
        return 0
