"""Yes/no questions about images, scored by the log-odds of the answer's first token.

The score makes thresholds, ROC curves and calibration possible, which words alone do not; the generated words stay
beside it, since an answer may be neither.
"""

from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES
from ftkit.models.base_model import plain_model, token_logits
from ftkit.models.generation import greedy_answers
from ftkit.normalize import normalize
from ftkit.training.evaluation_metrics import MeasuredModule, Metrics
from ftkit.training.sharding import gathered
from ftkit.vlm.model import VLMModule


class VLMYesNo(MeasuredModule, VLMModule):
    """A vision-language model that answers a question about an image with one of two words.

    It is trained on the answers of its examples, as :class:`ftkit.vlm.sft.VLMSFT` is. Its predictions hold the greedy
    answer, as :func:`ftkit.normalize.normalize` spells it, and ``log_odds:POSITIVE``: log P(positive) - log P(negative)
    of its first token, over all spellings of the two words, in float32. What the chat template writes before an answer,
    such as an empty block of thoughts, is not its first token.

    Args:
        positive: The positive answer.
        negative: The negative answer.
        metrics: What is logged besides loss and accuracy; null logs ``ftkit.BinaryEvaluator`` in validation, see
            :class:`ftkit.training.evaluation_metrics.MeasuredModule`.
        **options: Those of :class:`ftkit.vlm.model.VLMModule`.

    Raises:
        InputError: The two words are the same or empty, or, once a stage starts, begin with the same tokens.
    """

    def __init__(
        self, positive: str = "yes", negative: str = "no", metrics: Metrics | None = None, **options: Any
    ) -> None:
        super().__init__(metrics=metrics, **options)
        for field, word in (("positive", positive), ("negative", negative)):
            if not normalize(word).strip("."):
                raise InputError("is not a word", field=field, got=word)
        if normalize(positive) == normalize(negative):
            raise InputError("equals the negative answer", field="positive", got=positive)
        self.class_names = (negative, positive)
        self.score_name = f"log_odds:{normalize(positive)}"  # as in the labels

    def setup(self, stage: str) -> None:
        """Start a stage; check that the two words can be told apart before anything is trained."""
        super().setup(stage)
        _ = self.first_tokens

    @cached_property
    def first_tokens(self) -> tuple[list[int], list[int]]:
        """Return the first tokens of the negative and of the positive answer, see :func:`telling_tokens`."""
        return telling_tokens(self.tokenizer, *self.class_names)

    def predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch's predictions; none where it has no ``prompts``."""
        if "prompts" not in batch:
            return {}
        prompts = self.model_inputs(batch["prompts"])
        affixes = batch.get("affixes", [NO_AFFIXES] * len(batch["id"]))
        openings = [opening_tokens(self.tokenizer, one.before, *self.class_names) for one in affixes]
        answers = greedy_answers(self.net, self.tokenizer, prompts, self.max_new_tokens, openings)
        found = self.answered(batch, answers)
        words = {name: [normalize(text) for text in found[name]] for name in ("label", "prediction")}
        negative, positive = self.first_tokens
        told = (self.net, answers.first_states, [*negative, *positive])
        logits = gathered(plain_model(self.net), token_logits, *told)
        places = range(len(negative)), range(len(negative), logits.shape[1])
        return {**found, **words, "score": log_odds(logits, *map(list, places))}


def telling_tokens(tokenizer: Any, negative: str, positive: str) -> tuple[list[int], list[int]]:
    """Return the first tokens of the spellings of two words, the negative one's and the positive one's.

    A word is spelt as given, in lower and upper case and capitalized, with and without a space before it. A token that
    begins spellings of both, such as a lone space, is left out.

    Raises:
        InputError: The tokenizer writes both words with the same first tokens.
    """
    first = []
    for word in (negative, positive):
        cases = {word, word.lower(), word.upper(), word.capitalize()}
        spellings = [blank + spelling for blank in ("", " ") for spelling in sorted(cases)]
        encoded = (tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings)
        first.append({tokens[0] for tokens in encoded if tokens})
    both = first[0] & first[1]
    if not first[0] - both or not first[1] - both:
        raise InputError(
            "the tokenizer begins both answers with the same token", field="positive", got=f"{negative}, {positive}"
        )
    return sorted(first[0] - both), sorted(first[1] - both)


def opening_tokens(tokenizer: Any, before: str, *words: str) -> list[int]:
    """Return the tokens before a word's first one where a text is put before it.

    A space that becomes one token with the word is not among them.
    """
    texts = (before, *(before + word for word in words))
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    same = takewhile(lambda column: len(set(column)) == 1, zip(*tokens, strict=False))
    return [column[0] for column in same]


def log_odds(logits: Tensor, negative: list[int], positive: list[int]) -> Tensor:
    """Return log P(positive) - log P(negative), (B,) float32, of two sets of tokens.

    Args:
        logits: (B, V) of any floating type.
        negative: Token ids.
        positive: Token ids.

    Example:
        >>> probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
        >>> log_odds(probabilities.log(), [0, 1], [2]).exp().round(decimals=4).tolist()
        [1.0]
    """
    logits = logits.float()
    return torch.logsumexp(logits[:, positive], -1) - torch.logsumexp(logits[:, negative], -1)
