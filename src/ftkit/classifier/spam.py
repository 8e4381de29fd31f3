"""The messages of the published table, ham and spam, and others of two classes, for a text classifier."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ftkit.classifier import download
from ftkit.classifier.data import TextClassificationDataModule
from ftkit.classifier.labeled_examples import Example, labels_of
from ftkit.classifier.labels import ClassName
from ftkit.classifier.messages import content_sha256, read_messages
from ftkit.classifier.records import Messages, labelled, messages_of
from ftkit.classifier.samplers import Order
from ftkit.classifier.splits import PUBLISHED_FRACTIONS, PUBLISHED_SEED, balanced_split, stratified_split
from ftkit.errors import InputError
from ftkit.examples.sources import open_source
from ftkit.normalize import normalize
from ftkit.results.table_files import FORMATS

DEMO_LABELS = ("ham", "spam")
_DEMO = Path(str(files("ftkit"))) / "assets" / "demo-messages.tsv"  # written by benchmarks/demo_corpus.py
_TITLES = {"demo": "made-up demo messages", "uci": "SMS Spam Collection (UCI data set 228)"}


class SpamDataModule(TextClassificationDataModule):
    """Messages labeled ham or spam, or with any other two classes, as in the published table.

    Args:
        source: ``demo`` (made-up messages that ftkit writes), ``uci`` (downloads the SMS Spam Collection), or
            a file: tab-separated with a label and a text in each line, or another one of
            :func:`ftkit.examples.sources.open_source`.
        split: ``published`` (balanced; the messages, draws and sizes of the published table), ``balanced`` (the
            larger class drawn down to the smaller one), ``all`` (every message, both classes in the same
            proportions everywhere) or ``grouped`` (every message, duplicates and near-duplicates in one part).
        fractions: Parts of the messages for train and validation; the rest is for test.
        split_seed: Seed of the split; null takes the one that ``seed_everything`` set.
        order: Order of the training messages: ``seeded`` by (seed, epoch), or ``published``, the published
            script's draws.
        labels: Names of the negative and the positive class.
        **options: See :class:`ftkit.classifier.data.TextClassificationDataModule`.

    Example:
        >>> from tokenizers.pre_tokenizers import ByteLevel
        >>> from transformers import GPT2Tokenizer
        >>> symbols = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
        >>> tokenizer = GPT2Tokenizer(vocab=dict(zip(symbols, range(257))), merges=[])
        >>> data = SpamDataModule(batch_size=4)
        >>> data.prepare(tokenizer, context_length=64)
        >>> next(iter(data.train_dataloader()))["input_ids"].shape
        torch.Size([4, 64])
        >>> data.report["sizes"]
        {'train': 1045, 'val': 149, 'test': 300}
    """

    def __init__(
        self,
        source: str | Path = "demo",
        split: Literal["published", "balanced", "all", "grouped"] = "published",
        fractions: tuple[float, float] = PUBLISHED_FRACTIONS,
        split_seed: int | None = PUBLISHED_SEED,
        order: Order = "seeded",
        labels: tuple[ClassName, ClassName] = DEMO_LABELS,
        **options: Any,
    ) -> None:
        super().__init__(
            train=str(source), val=None, test=None, dataset=None, split="all", labels=labels, fractions=fractions,
            split_seed=split_seed, **options,
        )  # fmt: skip
        self.split = split
        self.origin, self.order = str(source), order
        if split == "published" and (self.fractions, split_seed) != (PUBLISHED_FRACTIONS, PUBLISHED_SEED):
            raise InputError(
                f"published means fractions {list(PUBLISHED_FRACTIONS)} and split_seed {PUBLISHED_SEED}",
                field="split",
                got=[*self.fractions, split_seed],
                fix="use split: balanced",
            )
        if order == "published" and self.sampling is not None:
            raise InputError("is another order than the published one", field="sampling", got=self.sampling)
        names = tuple(map(str, labels))
        if len({normalize(name) for name in names}) != 2:
            raise InputError("must be two different class names, negative and positive", field="labels", got=names)
        if self.origin == "demo" and names != DEMO_LABELS:
            raise InputError("the demo messages are labeled ham and spam", field="labels", got=names)

    @property
    def source(self) -> str:
        """Return the source in words."""
        return _TITLES.get(self.origin, self.origin)

    @property
    def data_sha256(self) -> str:
        """Return the hash of the messages, known before anything is downloaded or encoded; ``report`` has the same."""
        if self.origin == "uci":
            return download.MEMBER_SHA256
        return content_sha256(self._file()) if self._of_two_columns else open_source(self._file()).sha256

    def prepare_data(self) -> None:
        """Download the messages, on one process only, if the source is ``uci``."""
        if self.origin == "uci":
            download.fetch_sms_spam()

    def read(self) -> dict[str, Messages]:
        """Return the labelled messages."""
        path = download.fetch_sms_spam() if self.origin == "uci" else self._file()
        if self.origin == "uci" or self._of_two_columns:
            source = read_messages(path, "published" if self.split == "published" else "literal")
        else:
            source = labelled(open_source(path, columns=self.columns))
        return {"train": messages_of(source)}

    def examples(self) -> tuple[tuple[str, ...], dict[str, list[Example]]]:
        """Return the classes and the examples of each split; that they come of one source needs no saying."""
        found = super().examples()
        self.held_out = ""
        return found

    def divide(self, examples: list[Example], parts: dict[str, float], seed: int) -> dict[str, list[Example]]:
        """Divide the messages as ``split`` says."""
        if self.split == "grouped":
            return super().divide(examples, parts, seed)
        division = stratified_split if self.split == "all" else balanced_split
        places = division(labels_of(examples), self.fractions, seed)
        return {name: [examples[place] for place in chosen] for name, chosen in places.items()}

    @property
    def _of_two_columns(self) -> bool:
        """Return whether the file has a label, a tab and a text in each line."""
        return not self.columns and Path(self.origin).suffix.lower() not in {*FORMATS, ".gz"} - {".tsv"}

    def _file(self) -> Path:
        path = _DEMO if self.origin == "demo" else Path(self.origin).expanduser()
        if not path.is_file():
            raise InputError(
                "there is no such file",
                field="source",
                got=self.origin,
                fix="use demo, uci, or the path of a file with a label and a text in each line",
            )
        return path
