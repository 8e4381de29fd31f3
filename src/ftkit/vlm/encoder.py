"""Examples with images as tokens and pixels, by a model's own processor.

The processor expands a prompt's images into tokens and pixels; the answer's tokens are put behind it.
"""

import typing
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from torch import Tensor

from ftkit.errors import InputError
from ftkit.examples.encoder import EncodedExample, Encoder
from ftkit.examples.length import LengthRule
from ftkit.examples.padding import Spans
from ftkit.examples.reader import Example
from ftkit.examples.supervision import Supervise
from ftkit.models.vision_families import family_of_processor
from ftkit.vlm.decoding import Image
from ftkit.vlm.images import image_of, size_of

_OWN = {"input_ids", "attention_mask", "labels"}  # labels: PaliGemma's processor makes some; these are ours


class ChatEncoder(Encoder):
    """Encode examples with images, and batches of them, for one model.

    With ``preference`` batches hold the rejected answers too; ``image_options`` take the place of the image processor's
    settings; see :class:`ftkit.examples.encoder.Encoder` for the rest.
    """

    def __init__(
        self,
        processor: Any,
        length: LengthRule | None = None,
        chat: bool | None = None,
        preference: bool = False,
        supervise: Supervise = "last",
        image_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(processor, length, chat, supervise)
        self.processor, self.preference, self.image_options = processor, preference, dict(image_options or {})
        self.family = family_of_processor(processor)
        _check_options(processor, self.image_options)
        self.answer_values = self.family.answer_values
        self._tokens: dict[Hashable, int] = {}  # by what decides how many an image takes

    def encode(self, example: Example) -> EncodedExample:
        """Return tokens and pixels of an example; its images are opened.

        Raises:
            InputError: An image cannot be opened, the model cannot take such an example, or the processor makes a
                tensor that has no rule.
        """
        pieces, answers = self._texts(example)
        images = [image_of(image, example) for image in example.images]
        try:
            made = self._processed("".join(text for text, _ in pieces), images)
        except ValueError as error:
            raise example.error(f"{type(self.processor).__name__}: {error}") from error
        if unknown := made.keys() - _OWN - self.answer_values.keys() - {*self.family.images.tensors}:
            known = ", ".join(sorted([*self.answer_values, *self.family.images.tensors]))
            raise InputError(
                f"it is not known how {type(self.processor).__name__} pads this tensor; known tensors are {known}",
                field=min(unknown),
            )
        ids = made["input_ids"][0].tolist()
        read = slice(None) if self.renderer.chat else self.renderer.unended(ids)
        prompt = ids[read]
        turns = self._turns(example, pieces, images, prompt)
        fitting = self.length.fit(example, len(prompt), *answers)
        tokens = {name: made[name][0].tolist()[read] for name in self.answer_values.keys() & made.keys()}
        pixels = {name: made[name] for name in self.family.images.tensors if name in made}
        cut = fitting is not None and fitting != answers
        return EncodedExample(example, prompt, fitting, tokens, pixels, cut, turns=turns)

    def fitted(self, example: Example) -> tuple[list[list[int]] | None, bool]:
        """Return the answers' token ids as they are trained on, and whether one was cut; see :class:`EncodedExample`.

        Of its images only the sizes are read, unless the example may be too long.

        Raises:
            InputError: See :meth:`encode`.
        """
        pieces, ids = self._texts(example)
        if self.length.max_length is None:
            return ids, False
        if example.images:
            text = "".join(text for text, _ in pieces)
            most = len(self.renderer.prompt_ids(text)) + self.image_tokens(example)
            if self.length.leaves_whole(most, *ids):
                return ids, False
        encoded = self.encode(example)
        return encoded.answers, encoded.cut

    def inputs(self, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
        """Return the right padded batch to train on, with the tensors of the images."""
        return super().inputs(examples) | self.family.images.batch([example.images for example in examples])

    def prompts(self, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
        """Return the left padded batch to generate answers from, with the tensors of the images."""
        return super().prompts(examples) | self.family.images.batch([example.images for example in examples])

    def _texts(self, example: Example) -> tuple[list[tuple[str, bool]], list[list[int]]]:
        """Return the rendered prompt in its pieces, and the token ids of the answer and of the rejected one."""
        if self.preference and example.rejected is None:
            raise example.error("lacks a rejected answer", field="rejected", fix="give chosen and rejected answers")
        texts = self.renderer(example)
        answers = [texts.completion, *([texts.rejected] if self.preference and texts.rejected is not None else [])]
        pieces = self.renderer.pieces(example, texts.prompt)
        if len(pieces) > 1 and any(self.answer_values.values()):  # a prompt that sees itself both ways
            problem = "the model's prompts attend in both directions, so earlier turns cannot be supervised"
            raise example.error(problem, field="supervise", got="all", fix="use supervise: last")
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

    def image_tokens(self, example: Example) -> int:
        """Return how many tokens an example's images take, by their sizes alone.

        Where the processor puts tokens of its own around a prompt, they count with each image.

        Raises:
            InputError: An image cannot be opened.
        """
        alone = len(example.images) == 1
        return sum(self._tokens_of_size(size_of(image, example), alone) for image in example.images)

    def _tokens_of_size(self, size: tuple[int, int], alone: bool) -> int:
        """Return the tokens that the processor makes of an image (width, height), alone or among several."""
        processor = self._image_processor
        key = self.family.images.token_key(processor, *size, alone) if processor.do_resize else size
        if key not in self._tokens:
            count = 1 if alone else 2
            blank, token = Image.new("RGB", size), self.renderer.image_token
            assert token is not None, "the renderer refuses images otherwise"
            total = self._processed(token * count, [blank] * count)["input_ids"].shape[1]
            self._tokens[key] = -(-total // count)
        return self._tokens[key]

    @cached_property
    def _image_processor(self) -> Any:
        """Return the image processor with ``image_options`` as its settings."""
        own = self.processor.image_processor
        return type(own).from_dict({**own.to_dict(), **self.image_options})

    def _processed(self, prompt: str, images: list[Image.Image]) -> Mapping[str, Tensor]:
        options: dict[str, Any] = {"images": [images], **self.image_options} if images else {}
        if self.renderer.chat:
            options["add_special_tokens"] = False  # the template has written them
        return self.processor(text=[prompt], return_tensors="pt", **options)


def _check_options(processor: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that the image processor does not have: it would leave them out with a warning."""
    known = typing.get_type_hints(processor.image_processor.valid_kwargs)
    if unknown := options.keys() - known.keys():
        raise InputError(
            f"{type(processor.image_processor).__name__} has no such option",
            field="image_options", got=min(unknown), fix=f"use some of {', '.join(sorted(known))}",
        )  # fmt: skip
