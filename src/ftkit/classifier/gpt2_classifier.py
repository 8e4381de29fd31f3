"""GPT-2 as a classifier."""

from typing import Any

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.models import gpt2


class GPT2Classifier(TextClassifier):
    """GPT-2 by size as a text classifier: the preset of the published table.

    Args:
        size: ``small`` (124M), ``medium`` (355M), ``large`` (774M) or ``xl`` (1,558M); null takes a folder's model as
            it is.
        base_model: Where configuration, tokenizer and pretrained weights come from: ``hub``, ``demo`` (the small models
            that ftkit carries) or a folder in transformers format, holding one model or one folder a size.
        **options: The options of every decoder, see :class:`~ftkit.classifier.text_classifier.TextClassifier`.

    Example:
        >>> import torch
        >>> model = GPT2Classifier(base_model="demo", trainable="last_block", seed=123)
        >>> model.configure_model()
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7]]), "length": torch.tensor([3])}
        >>> model(batch).shape
        torch.Size([1, 2])
    """

    def __init__(self, size: gpt2.Size | None = "small", base_model: str = "hub", **options: Any) -> None:
        super().__init__(base_model, **options)
        self.size = size
        if size is None and base_model == "hub":
            raise InputError("the hub has four sizes", field="size", fix=f"choose one of {', '.join(gpt2.SIZES)}")
