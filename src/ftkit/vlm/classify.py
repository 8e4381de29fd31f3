"""Classify single questions about images with a tuned model, as a server does."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ftkit.errors import InputError
from ftkit.examples.encoder import EncodedExample
from ftkit.examples.image_files import find_image
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example
from ftkit.normalize import normalize
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.yes_no import VLMYesNo


class ImageClassifier:
    """Answer questions about images by the log-odds of the model's two words.

    Args:
        model: A tuned model, on its device.
        chat: Whether training used the chat template; None if it did where there is one.
        image_options: Options of the image processor in training, see :class:`ftkit.vlm.data.VLMDataModule`.
    """

    def __init__(
        self, model: VLMYesNo, chat: bool | None = None, image_options: Mapping[str, Any] | None = None
    ) -> None:
        self.model = model.eval()
        negative, positive = map(normalize, model.class_names)
        self.class_names: tuple[str, ...] = (negative, positive)
        rule = LengthRule.for_evaluation(model.context_length, model.max_new_tokens)
        self._encoder = ChatEncoder(model.processor, rule, chat, image_options=image_options)
        _ = model.first_tokens  # which refuses two words that cannot be told apart

    def encode(self, question: str, image: str) -> EncodedExample:
        """Return a question about an image, encoded.

        Args:
            question: The text.
            image: A data URI in base64.

        Raises:
            InputError: It is no data URI of an image, or the question does not fit the model's context.
        """
        if not image[:5].lower() == "data:":
            raise InputError("must be a data URI", field="image", fix="data:image/png;base64,...")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        asked = Example("", [{"role": "user", "content": content}], self.class_names[0], images=(find_image(image),))
        return self._encoder.encode(asked)

    @torch.inference_mode()
    def classify(self, encoded: Sequence[EncodedExample], batch_size: int = 8) -> list[dict[str, Any]]:
        """Return for each question ``label``, ``probability`` of it, ``log_odds`` of the positive word and ``answer``.

        The label is the more likely word; the answer is what the model generates, which may be neither.
        """
        results = []
        for start in range(0, len(encoded), batch_size):
            batch = self._encoder.batch(encoded[start : start + batch_size], columns=())
            prompts = {name: tensor.to(self.model.device) for name, tensor in batch["prompts"].items()}
            found = self.model.predictions({**batch, "prompts": prompts})
            scores = found["score"].double()
            for score, probability, answer in zip(
                scores.tolist(), scores.abs().sigmoid().tolist(), found["prediction"], strict=True
            ):
                label = self.class_names[score > 0]
                results.append({"label": label, "probability": probability, "log_odds": score, "answer": answer})
        return results
