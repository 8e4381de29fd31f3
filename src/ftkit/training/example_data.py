"""A Lightning data module of prompts with answers: what the data modules of generative models have in common."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch.utils.data import DataLoader, Sampler

from ftkit.examples.duplicates import labeled_text
from ftkit.examples.length import LengthRule, TooLong
from ftkit.examples.reader import Example, ImageReference, image_bytes, naming
from ftkit.examples.supervision import Supervise, turn_counts
from ftkit.results.duplicates import LabeledText
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.samplers import SeededSampler
from ftkit.training.split_data import ImageKey, SplitDataModule


class ExampleDataModule(SplitDataModule):
    """Provide prompts with answers for a generative model; a subclass says where they come from, and encodes them.

    Batches are those of :class:`ftkit.training.generative.GenerativeModule`. The chat template, if the model has one,
    is the only formatter; only answers are supervised, their end among them.

    Args:
        max_length: Largest number of tokens of prompt and answer together in training, image tokens included; null, as
            any larger number, is the model's context.
        too_long: Whether to ``cut`` a training example's answer that is too long, or to ``skip`` the example. Prompts
            and images are never cut. Examples of val and test are never left out, and only the model's context cuts
            their answers.
        chat: Whether to use the chat template; null uses it if there is one.
        supervise: Which turns of the assistant are supervised: the ``last`` one of each conversation, which is the
            answer, or ``all`` that answer something. In evaluation the last one is generated either way; the loss is
            that of the supervised turns.
        **options: See :class:`ftkit.training.split_data.SplitDataModule`.
    """

    step_options: ClassVar[tuple[str, ...]] = ("max_length", "too_long", "chat", "supervise")

    def __init__(
        self,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        chat: bool | None = None,
        supervise: Supervise = "last",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.max_length, self.too_long, self.chat = max_length, too_long, chat
        self.supervise: Supervise = supervise
        self.length = LengthRule(max_length, too_long)
        self._image_digests: dict[ImageReference, bytes] = {}

    @property
    @abstractmethod
    def source(self) -> str:
        """The examples' origin in words."""

    @abstractmethod
    def examples(self, split: SplitName) -> list[Example]:
        """Return the examples of a split, as read; none if there is no such split."""

    def labeled_texts(self, image_key: ImageKey) -> Mapping[SplitName, Iterable[LabeledText]]:
        """Return prompts with answers as labels, by split, as they are asked for."""
        return {split: self._labeled(self.examples(split), image_key) for split in SPLITS}

    def _labeled(self, examples: Iterable[Example], image_key: ImageKey | None = None) -> Iterator[LabeledText]:
        key = image_key or self._image_sha256
        return (labeled_text(one, [key(image, one) for image in one.images]) for one in examples)

    @cached_property
    def data_sha256(self) -> str:
        """The hash of examples and images, known before anything is encoded; ``report`` has the same."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for example in self.examples(split):
                columns = sorted(example.columns.items())
                texts = (example.id, example.prompt, example.completion, example.rejected, columns, example.tools)
                digest.update(repr((split, *texts)).encode())
                for image in example.images:
                    digest.update(self._image_sha256(image, example))
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return what a run's report says about where the examples come from, and what was held out of train."""
        self.examples("train")
        held_out = getattr(self, "held_out", "")
        return {"source": self.source, "sha256": self.data_sha256} | ({"held_out": held_out} if held_out else {})

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the train split in another order each epoch; the last one may be smaller."""
        sampler = self._training_sampler(batch_size=self.batch_size, **processes(self.trainer))
        return self._loader("train", self.batch_size, sampler, evaluation=False)

    def _training_sampler(self, **sharing: Any) -> Sampler[int]:
        return SeededSampler(len(self.datasets["train"]), self._order_seed, **sharing)

    def _count(self, split: SplitName, examples: Sequence[Example], **counts: int) -> None:
        """Report the examples of a split that are used."""
        for name, value in {"sizes": len(examples), **counts}.items():
            self.report.setdefault(name, {})[split] = value
        if shapes := sorted({example.shape for example in examples} - {""}):
            self.report.setdefault("shapes", {})[split] = shapes
        if split == "train":
            self.report["supervised_turns"] = {"supervise": self.supervise, **turn_counts(examples, self.supervise)}

    def _image_sha256(self, image: ImageReference, example: Example) -> bytes:
        if image not in self._image_digests:
            with naming(example):
                self._image_digests[image] = hashlib.sha256(image_bytes(image)).digest()
        return self._image_digests[image]
