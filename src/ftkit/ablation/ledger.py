"""The status of every run, keyed by a hash of what was run.

``OUT/ledger.jsonl`` gets one line when a run starts and one when it ends, each flushed to the disk. The
last whole line of a run decides, so a run that was killed, or whose last line was cut, counts as unfinished.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ftkit.ablation.identity import EXTERNAL, PRUNER, SEEDS, flatten
from ftkit.errors import EnvironmentFault
from ftkit.lock import holder_mark
from ftkit.run_folder import FORMAT, RESULT_FILE, refuse_other_format
from ftkit.storage import disk_faults, key_of, sha256_of, unlinked

LEDGER_FILE = "ledger.jsonl"

Status = Literal["started", "fitted", "done", "skipped", "failed", "pruned", "chosen"]


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    cell: str  # the run's folder, relative to the output folder
    row: int
    seed: int
    # The status of the run; fitted means trained and validated, and not tested; pruned that it was stopped early by the
    # pruner of a search. chosen is of no run: it says which setting of a search was chosen for the row, and by which
    # values (identity).
    status: Status
    key: str = ""  # the hash of identity
    identity: Mapping[str, Any] = field(default_factory=dict)  # what was run: resolved config, code, data, seed
    result: str = ""  # the SHA-256 of the run's result.json, if it is done, fitted or pruned
    reason: str = ""  # why the run was skipped, failed or stopped early
    time: str = ""  # when the line was written, in UTC, as ISO 8601
    holder: str = ""  # the mark of the process that wrote it, see holder_mark
    format: int = FORMAT  # the format number of the line


class Ledger:
    """The ledger of one output folder.

    Args:
        directory: The output folder. A missing ledger is an empty one.

    Attributes:
        entries: The last whole line of each run, the latest line last.
        finished: Every line of a run that was done, fitted or pruned, those that later ones replaced as well.
        notices: What was found wrong in the file, with line numbers.

    Raises:
        InputError: The ledger was written in another format.
        EnvironmentFault: It cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / LEDGER_FILE
        self.entries: dict[str, Entry] = {}
        self.finished: list[Entry] = []
        self.notices: list[str] = []
        self._whole_bytes = 0
        self._read()

    def append(self, entry: Entry) -> None:
        """Write one line and wait until it is on the disk; a cut line at the end of the file is removed.

        Raises:
            EnvironmentFault: The disk is full, or the file cannot be written.
        """
        now, holder = datetime.now(UTC).isoformat(timespec="microseconds"), holder_mark(self.directory) or ""
        entry = replace(entry, time=now, holder=holder)
        line = (json.dumps(asdict(entry)) + "\n").encode()
        with disk_faults(self.path), open(self.path, "ab", opener=unlinked) as file:
            file.truncate(self._whole_bytes)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole_bytes += len(line)
        self._remember(entry)

    def is_done(self, cell: str, *statuses: Status) -> bool:
        """Return whether the run is done, or has one of other statuses, and its ``result.json`` is as recorded."""
        entry = self.entries.get(cell)
        result = self.directory / cell / RESULT_FILE
        there = entry is not None and entry.status in (statuses or ("done",)) and result.is_file()
        return entry is not None and there and sha256_of(result) == entry.result

    def tries(self, label: str) -> int:
        """Count the settings with which runs of a row were finished, also those that were run over since.

        Two runs count once if what was run differs in the seed alone; all that were made elsewhere count once, since
        nobody knows how often those were tried.
        """
        made = [flatten(one.identity) for one in self.finished if one.cell.split("/")[0] == label]
        others = (EXTERNAL, PRUNER)
        settings = [
            {k: v for k, v in one.items() if k.rpartition(".")[2] not in SEEDS and k.split(".")[0] not in others}
            for one in made
        ]
        return len(set(map(key_of, settings)))

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise EnvironmentFault(f"cannot be read: {error.strerror}", file=self.path) from error
        lines = content.split(b"\n")
        self._whole_bytes = len(content) - len(lines[-1])
        for number, line in enumerate(lines, start=1):
            is_last = number == len(lines)
            if is_last and not line:
                continue
            entry = None if is_last else self._parse(line, number)  # even a last line that parses may lack its end
            if entry is None:
                self.notices.append(f"{self.path}:{number}: cut or damaged line; its run counts as unfinished")
            else:
                self._remember(entry)

    def _parse(self, line: bytes, number: int) -> Entry | None:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict):
            return None
        refuse_other_format(content.get("format"), self.path, number)
        try:
            entry = Entry(**content)
        except TypeError:
            return None
        texts = (entry.cell, entry.key, entry.result, entry.reason, entry.time, entry.holder)
        whole = all(isinstance(text, str) for text in texts) and isinstance(entry.identity, dict)
        numbers = isinstance(entry.row, int) and isinstance(entry.seed, int)
        return entry if whole and numbers and entry.status in get_args(Status) else None

    def _remember(self, entry: Entry) -> None:
        if entry.status in ("done", "fitted", "pruned"):
            self.finished.append(entry)
        self.entries.pop(entry.cell, None)
        self.entries[entry.cell] = entry
