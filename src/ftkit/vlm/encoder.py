"""Examples with images as tokens and pixels, by a model's own processor.

The processor expands a prompt's images into tokens and pixels; the answer's tokens are put behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.padding import Spans, padded, prompt_batch, supervised_batch
from ftkit.examples.reader import Example, ImageReference, image_bytes
from ftkit.examples.renderer import Renderer
from ftkit.examples.supervision import Supervise
from ftkit.vlm.decoding import Image
from ftkit.vlm.images import decode_image
from ftkit.vlm.tensors import IMAGE_TENSORS, TOKEN_VALUES, image_batch

WHITE = (255, 255, 255)
_OWN = {"input_ids", "attention_mask", "labels"}  # labels: PaliGemma's processor makes some; these are ours


@dataclass(frozen=True)
class EncodedExample:
    """An example as tokens and pixels.

    Attributes:
        example: The example itself.
        prompt: Token ids of the prompt, image tokens included.
        answers: Token ids of the answer, and of the rejected one; None if the example is too long to train on.
        tokens: Other values of the prompt's tokens, by name.
        images: Tensors of the images, by name; empty without images.
        cut: Whether an answer was cut.
        tile_keys: Where ``images`` were left out because a frozen tower's features of them are cached: their keys, see
            :func:`ftkit.vlm.vision.tile_keys`.
        turns: Where in the prompt earlier supervised turns stand.
    """

    example: Example
    prompt: list[int]
    answers: list[list[int]] | None
    tokens: dict[str, list[int]]
    images: dict[str, Tensor]
    cut: bool = False
    tile_keys: list[bytes] | None = None
    turns: Spans = ()

    @property
    def tiles(self) -> int:
        """How many tiles there are in ``images``; an image that is not cut into tiles is one."""
        pixels = self.images.get("pixel_values")  # (1, tiles, 3, H, W) or (images, 3, H, W)
        return 0 if pixels is None else len(pixels.flatten(0, -4))


class ChatEncoder:
    """Encodes examples, and batches of them, for one model.

    Args:
        processor: The model's processor.
        length: What is done with an example that is too long.
        chat: See :class:`ftkit.examples.renderer.Renderer`.
        preference: Whether batches hold the rejected answers too.
        supervise: See :class:`ftkit.examples.renderer.Renderer`.
    """

    def __init__(
        self,
        processor: Any,
        length: LengthRule | None = None,
        chat: bool | None = None,
        preference: bool = False,
        supervise: Supervise = "last",
    ) -> None:
        self.processor, self.length, self.preference = processor, length or LengthRule(), preference
        self.renderer = Renderer(processor, chat, supervise)
        name = type(processor).__name__
        self._of_answer = {key: values[name] for key, values in TOKEN_VALUES.items() if name in values}
        self.pad_id = self.renderer.tokenizer.pad_token_id
        if self.pad_id is None:
            raise InputError("the processor's tokenizer has no padding token")

    def encode(self, example: Example) -> EncodedExample:
        """Return tokens and pixels of an example; its images are opened.

        Raises:
            InputError: An image cannot be opened, the model cannot take such an example, or the processor makes a
                tensor that has no rule.
        """
        pieces, answers = self._texts(example)
        images = [_opened(image, example) for image in example.images]
        try:
            made = self._processed("".join(text for text, _ in pieces), images)
        except ValueError as error:
            raise example.error(f"{type(self.processor).__name__}: {error}") from error
        if unknown := made.keys() - _OWN - self._of_answer.keys() - IMAGE_TENSORS.keys():
            known = ", ".join(sorted([*self._of_answer, *IMAGE_TENSORS]))
            raise InputError(
                f"no rule says how {type(self.processor).__name__} pads this tensor; known are {known}",
                field=min(unknown),
            )
        ids = made["input_ids"][0].tolist()
        read = slice(None) if self.renderer.chat else self.renderer.unended(ids)
        prompt = ids[read]
        turns = self._turns(example, pieces, images, prompt)
        fitting = self.length.fit(example, len(prompt), *answers)
        tokens = {name: made[name][0].tolist()[read] for name in self._of_answer.keys() & made.keys()}
        pixels = {name: made[name] for name in IMAGE_TENSORS.keys() & made.keys()}
        cut = fitting is not None and fitting != answers
        return EncodedExample(example, prompt, fitting, tokens, pixels, cut, turns=turns)

    def fitted(self, example: Example) -> tuple[list[list[int]] | None, bool]:
        """Return the answers' token ids as they are trained on, and whether one was cut; see :class:`EncodedExample`.

        The images are opened only if the example may be too long with the most tokens that an image can take.

        Raises:
            InputError: See :meth:`encode`.
        """
        pieces, ids = self._texts(example)
        if self.length.max_length is None:
            return ids, False
        if example.images:
            text = "".join(text for text, _ in pieces)
            most = len(self.renderer.prompt_ids(text)) + len(example.images) * self._most_tokens
            if self.length.leaves_whole(most, *ids):
                return ids, False
        encoded = self.encode(example)
        return encoded.answers, encoded.cut

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
            of_answer = self._of_answer[name]
            batch[name] = padded([example.tokens[name] + [of_answer] * len(answer) for example, answer in pairs], 0)
        return batch | image_batch([example.images for example in examples])

    def prompts(self, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
        """Return the left padded batch to generate answers from: the same tensors without labels."""
        batch = prompt_batch([example.prompt for example in examples], self.pad_id)
        for name in examples[0].tokens:
            batch[name] = padded([example.tokens[name] for example in examples], 0, "left")
        return batch | image_batch([example.images for example in examples])

    def _texts(self, example: Example) -> tuple[list[tuple[str, bool]], list[list[int]]]:
        """Return the rendered prompt in its pieces, and the token ids of the answer and of the rejected one."""
        if self.preference and example.rejected is None:
            raise example.error("lacks a rejected answer", field="rejected", fix="give chosen and rejected answers")
        texts = self.renderer(example)
        answers = [texts.completion, *([texts.rejected] if self.preference and texts.rejected is not None else [])]
        pieces = self.renderer.pieces(example, texts.prompt)
        if len(pieces) > 1 and any(self._of_answer.values()):  # a prompt that sees itself both ways
            raise example.error(
                "an earlier turn would see itself", field="supervise", got="all", fix="use supervise: last"
            )
        return pieces, [self.renderer.completion_ids(text) for text in answers]

    def _turns(
        self, example: Example, pieces: list[tuple[str, bool]], images: list[Image.Image], prompt: list[int]
    ) -> Spans:
        """Return where earlier supervised turns stand among the prompt's tokens, its images expanded.

        The pieces from the first such turn on are tokenized separately; images among them go through the processor
        again.
        """
        image_token = str(self.renderer.image_token)
        behind, left = [], iter(images[pieces[0][0].count(image_token) :])
        for text, _ in pieces[1:]:
            shown = list(islice(left, text.count(image_token)))
            made = self._processed(text, shown)["input_ids"][0].tolist() if shown else None
            behind.append(self.renderer.completion_ids(text) if made is None else made)
        start = len(prompt) - sum(map(len, behind))
        if prompt[start:] != [token for ids in behind for token in ids]:
            raise example.error(
                "the tokens of earlier turns depend on what is around them, so it is not known which to supervise",
                field="supervise",
                got="all",
                fix="use supervise: last",
            )
        turns = []
        for (_, supervised), ids in zip(pieces[1:], behind, strict=True):
            turns += [(start, start + len(ids))] * supervised
            start += len(ids)
        return turns

    @cached_property
    def _most_tokens(self) -> int:
        """Tokens of a prompt that is one square: cut into tiles, it fills more of them than any other shape."""
        assert self.renderer.image_token is not None, "the renderer refuses images otherwise"
        return self._processed(self.renderer.image_token, [Image.new("RGB", (1024, 1024))])["input_ids"].shape[1]

    def _processed(self, prompt: str, images: list[Image.Image]) -> Mapping[str, Tensor]:
        options: dict[str, Any] = {"images": [images]} if images else {}
        if self.renderer.chat:
            options["add_special_tokens"] = False  # the template has written them
        return self.processor(text=[prompt], return_tensors="pt", **options)


def _opened(image: ImageReference, example: Example) -> Image.Image:
    try:
        return decode_image(image_bytes(image), WHITE, image if isinstance(image, Path) else example.id).image
    except InputError as error:
        raise example.error(f"an image cannot be used: {error}", field="images") from error
