"""Sources of labeled messages: the demo corpus, the public SMS data set, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ftkit.classifier import download
from ftkit.classifier.messages import Messages, content_sha256, read_messages
from ftkit.errors import InputError
from ftkit.normalize import normalize

DEMO_LABELS = ("ham", "spam")
_DEMO = Path(str(files("ftkit"))) / "assets" / "demo-messages.tsv"  # written by benchmarks/demo_corpus.py
_TITLES = {"demo": "made-up demo messages", "uci": "SMS Spam Collection (UCI data set 228)"}


@dataclass(frozen=True)
class Source:
    """Labeled messages by the name of their source.

    Args:
        name: ``demo``, ``uci`` or the path of a file.
        quoting: How a tab-separated file is read, see :func:`~ftkit.classifier.messages.read_messages`.
        labels: Names of the negative and the positive class.
        normalize_labels: Read labels in a file in any spelling, see :func:`ftkit.normalize.normalize`.

    Raises:
        InputError: The labels are no two classes, or not those of the demo messages.

    Example:
        >>> Source("demo").title, len(Source("demo").read())
        ('made-up demo messages', 1494)
    """

    name: str
    quoting: Literal["published", "literal"] = "literal"
    labels: tuple[str, str] = DEMO_LABELS
    normalize_labels: bool = False

    def __post_init__(self) -> None:
        if len(set(map(normalize, self.labels))) != 2:
            raise InputError(
                "must be two different class names, negative and positive", field="labels", got=self.labels
            )
        if self.name == "demo" and self.labels != DEMO_LABELS:
            raise InputError("the demo messages are labeled ham and spam", field="labels", got=self.labels)

    @property
    def title(self) -> str:
        """Return the source in words."""
        return _TITLES.get(self.name, self.name)

    @property
    def sha256(self) -> str:
        """Return the hash of the messages, known before anything is downloaded.

        Raises:
            InputError: The file cannot be read.
        """
        if self.name == "uci":
            return download.MEMBER_SHA256
        return content_sha256(self._file())

    def fetch(self) -> None:
        """Download what has to be downloaded."""
        if self.name == "uci":
            download.fetch_sms_spam()

    def read(self) -> Messages:
        """Read the messages.

        Raises:
            InputError: The file cannot be used.
            UnavailableError: The download failed.
        """
        path = download.fetch_sms_spam() if self.name == "uci" else self._file()
        return read_messages(path, self.quoting, self.labels, self.normalize_labels)

    def _file(self) -> Path:
        path = _DEMO if self.name == "demo" else Path(self.name).expanduser()
        if not path.is_file():
            raise InputError(
                "there is no such file",
                field="source",
                got=self.name,
                fix="use demo, uci, or the path of a file with a label and a text in each line",
            )
        return path
