"""Examples as tokens, and batches of them, for one model of text; models of images and text build on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.padding import Spans, padded, prompt_batch, supervised_batch
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer
from ftkit.examples.supervision import Supervise

Batch = dict[str, Any]


@dataclass(frozen=True)
class EncodedExample:
    """Hold an example as tokens and pixels.

    Attributes:
        prompt: Token ids of the prompt, image tokens included.
        answers: Token ids of the answer, and of the rejected one; None if the example is too long to train on.
        tokens: Other values of the prompt's tokens, by name.
        images: Tensors of the images, by name; empty without images.
        cut: Whether an answer was cut.
        tile_keys: Where the pixels of ``images`` were left out because a frozen tower's features of them are cached:
            their keys, see :func:`ftkit.vlm.vision.tile_keys`.
        turns: Where in the prompt earlier supervised turns stand.
    """

    example: Example
    prompt: list[int]
    answers: list[list[int]] | None
    tokens: dict[str, list[int]] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)
    cut: bool = False
    tile_keys: list[bytes] | None = None
    turns: Spans = ()

    def __len__(self) -> int:
        return len(self.prompt) + max(map(len, self.answers or [[]]))


class Encoder:
    """Encode examples of text, and batches of them, for one model; its :class:`.Renderer` writes them."""

    preference: bool = False  # whether there are rejected answers, too
    answer_values: Mapping[str, int] = {}  # of an answer's tokens, by the names of ``EncodedExample.tokens``

    def __init__(
        self,
        processor: Any,
        length: LengthRule | None = None,
        chat: bool | None = None,
        supervise: Supervise = "last",
    ) -> None:
        self.length, self.renderer = length or LengthRule(), Renderer(processor, chat, supervise)
        self.pad_id = self.renderer.tokenizer.pad_token_id
        if self.pad_id is None:
            raise InputError("the tokenizer has no padding token")

    def encode(self, example: Example) -> EncodedExample:
        """Return the tokens of an example.

        Raises:
            InputError: The model cannot take such an example.
        """
        prompt, completion, turns = self.renderer.encode(example)
        fitting = self.length.fit(example, len(prompt), completion)
        return EncodedExample(example, prompt, fitting, cut=fitting not in (None, [completion]), turns=turns)

    def batch(self, encoded: Sequence[EncodedExample], columns: Iterable[str] | None = None) -> Batch:
        """Return a batch to train on, or with ``columns`` to evaluate.

        Args:
            encoded: The examples.
            columns: The names of the columns in a batch of evaluation.

        Returns:
            ``inputs``, see :meth:`inputs`; ``id``, a list of B strings. For evaluation also ``answer`` (B strings) and
            ``columns`` (B strings by name), and, except of pairs, ``prompts`` and ``affixes`` of each answer.
        """
        examples = [one.example for one in encoded]
        batch: Batch = {"inputs": self.inputs(encoded), "id": [example.id for example in examples]}
        if columns is not None:
            batch["answer"] = [example.completion for example in examples]
            batch["columns"] = {name: [example.columns.get(name, "") for example in examples] for name in columns}
            if not self.preference:
                affixes = [self.renderer.affixes(example) for example in examples]
                answers = map(self.renderer.reference, examples, affixes)
                batch |= {"prompts": self.prompts(encoded), "affixes": affixes, "answer": list(answers)}
        return batch

    def inputs(self, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
        """Return the right padded batch to train on.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` (B, T) int64, and what the processor makes besides. Of
            preferences there are 2B examples, the chosen answers and then the rejected ones, and the images once.
        """
        kept = [example.answers for example in examples if example.answers is not None]
        if len(kept) < len(examples):
            raise InputError("an example that is too long to train on was not left out", field="max_length")
        pairs = [
            (example, answers[which])
            for which in range(len(kept[0]))
            for example, answers in zip(examples, kept, strict=True)
        ]
        turns = [example.turns for example, _ in pairs]
        batch = supervised_batch([(example.prompt, answer) for example, answer in pairs], self.pad_id, turns)
        for name in examples[0].tokens:
            value = self.answer_values[name]
            batch[name] = padded([example.tokens[name] + [value] * len(answer) for example, answer in pairs], 0)
        return batch

    def prompts(self, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
        """Return the left padded batch to generate answers from: the same tensors without labels."""
        batch = prompt_batch([example.prompt for example in examples], self.pad_id)
        for name in examples[0].tokens:
            batch[name] = padded([example.tokens[name] for example in examples], 0, "left")
        return batch


def column_names(examples: Iterable[Example]) -> list[str]:
    """Return the names of all columns of examples, in the order in which they occur."""
    return list(dict.fromkeys(name for example in examples for name in example.columns))
