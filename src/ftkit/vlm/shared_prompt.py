"""Both answers of a pair behind one prompt, so that images and prompt run once.

A pair becomes one example ``[shared | chosen | rejected]``: the tokens that both sequences begin with, then what
remains of each. Rejected tokens do not see chosen ones, and their positions continue behind the shared tokens, so every
token sees what it would see in an example of its own: the results are the same except for rounding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ftkit.models.base_model import plain_model
from ftkit.models.transformers_internals import as_mask_4d, takes_mask_4d
from ftkit.models.vision_families import family_of

TOKEN_TENSORS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
_SHARED, _CHOSEN, _REJECTED, _PADDING = range(4)

_TEXT_MODELS = ("llama", "gemma", "gemma2")  # positions rotate, so they may start anywhere: PaliGemma's own begin at 1


class SharedExamples(NamedTuple):
    """Hold B pairs as B examples of width S.

    Attributes:
        input_ids: int64 (B, S); padding is any token but the image's.
        position_ids: int64 (B, S), counted from 0; two tokens of an example may have the same.
        visible: bool (B, S, S): whether the token of the second dimension sees that of the third.
        place: int64 (2B, T): where each token of the pairs' own examples, chosen and then rejected, stands in example b
            or b - B of these; meaningless for padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    place: Tensor


def shared_lengths(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return how many tokens the two sequences of each pair have in common at the start, (B,) int64.

    Args:
        input_ids: int64 (2B, T), right padded: chosen sequences, then rejected ones.
        attention_mask: int64 (2B, T), 0 at padding.
    """
    chosen, rejected = input_ids.chunk(2)
    real = attention_mask.bool().chunk(2)
    return ((chosen == rejected) & real[0] & real[1]).long().cumprod(1).sum(1)


def can_share(net: nn.Module, inputs: dict[str, Any]) -> bool:
    """Return whether pairs can run as :func:`shared_examples`: with the same results, and without more work.

    Args:
        net: The model, plain or wrapped by peft.
        inputs: The ``inputs`` of a batch of pairs; ``input_ids`` and ``attention_mask`` int64 (2B, T).
    """
    config = plain_model(net).config
    text = config.get_text_config()
    if not family_of(config).shares_prompts or text.model_type not in _TEXT_MODELS:
        return False
    if not takes_mask_4d(text):
        return False
    width = inputs["input_ids"].shape[1]
    if (getattr(text, "sliding_window", None) or width) < width:
        return False  # layers that do not see the beginning need masks of their own
    shared = shared_lengths(inputs["input_ids"], inputs["attention_mask"])
    behind = inputs["attention_mask"].bool() & (torch.arange(width, device=shared.device) >= shared.repeat(2)[:, None])
    # Features are those of the shared tokens. A prompt that is read both ways has to be the same to its end.
    apart = inputs["input_ids"] == config.image_token_id
    if "token_type_ids" in inputs:
        apart = apart | (inputs["token_type_ids"] == 0)
    lengths = shared + behind.sum(1).view(2, -1).sum(0)
    # Attention looks at twice T x T pairs of tokens, or at S x S: a short prompt between long answers is no gain.
    return not bool((apart & behind).any()) and int(lengths.max()) ** 2 <= 2 * width**2


def shared_examples(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, image_token: int | None = None
) -> SharedExamples:
    """Return B pairs as B examples.

    Args:
        input_ids: int64 (2B, T), right padded: chosen sequences, then rejected ones.
        attention_mask: int64 (2B, T), 0 at padding.
        token_type_ids: int64 (2B, T), 0 where tokens see each other both ways; they have to be shared.
        image_token: Its id.

    Example:
        >>> examples = shared_examples(torch.tensor([[5, 6, 7], [5, 8, 9]]), torch.ones(2, 3, dtype=torch.long))
        >>> examples.input_ids.tolist(), examples.position_ids.tolist(), examples.place.tolist()
        ([[5, 6, 7, 8, 9]], [[0, 1, 2, 1, 2]], [[0, 1, 2], [0, 3, 4]])
        >>> examples.visible[0].long().tolist()
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 1]]
    """
    pairs, width = len(input_ids) // 2, input_ids.shape[1]
    real = attention_mask.bool()
    lengths = real.sum(1)  # (2B,)
    shared = shared_lengths(input_ids, attention_mask)  # (B,)
    chosen = lengths[:pairs]
    depth = torch.arange(width, device=input_ids.device).expand(2 * pairs, -1)  # (2B, T)
    behind = depth >= shared.repeat(2)[:, None]
    # The rejected answer stands behind the chosen one.
    moved = torch.cat([torch.zeros_like(chosen), chosen - shared])
    place = depth + behind * moved[:, None]

    total = int((chosen + lengths[pairs:] - shared).max())
    example = torch.arange(pairs, device=input_ids.device).repeat(2)[:, None].expand(-1, width)
    # A shared token is written twice, and alike; padding into a column of its own, as to pick out what is none would
    # be to wait for the device.
    at = (example, torch.where(real, place, total))

    def laid_out(values: Tensor, padding: int) -> Tensor:
        return values.new_full((pairs, total + 1), padding).index_put(at, values)[:, :total]

    side = torch.where(torch.arange(2 * pairs, device=input_ids.device) < pairs, _CHOSEN, _REJECTED)[:, None]
    part = laid_out(torch.where(behind, side, _SHARED), _PADDING)  # (B, S)
    order = torch.arange(total, device=input_ids.device)
    sees, seen = part[:, :, None], part[:, None, :]
    visible = (order[:, None] >= order) & ((seen == _SHARED) | (seen == sees))  # (B, S, S)
    if token_type_ids is not None:
        both_ways = (laid_out(token_type_ids, 1) == 0) & (part == _SHARED)
        visible |= both_ways[:, :, None] & both_ways[:, None, :]
    return SharedExamples(laid_out(input_ids, int(image_token == 0)), laid_out(depth, 0), visible, place)


def run_shared(net: nn.Module, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Return the network's inputs for pairs that share their prompts, and where their tokens' hidden states are.

    Args:
        net: The model, plain or wrapped by peft; :func:`can_share` holds.
        inputs: The ``inputs`` of a batch of pairs without its labels: 2B examples, and the images of the first B.

    Returns:
        The inputs with B examples in the place of 2B, and ``place`` of :class:`SharedExamples`.
    """
    model = plain_model(net)
    text = {name: inputs[name] for name in TOKEN_TENSORS if name in inputs}
    examples = shared_examples(**text, image_token=model.config.image_token_id)
    # (B, 1, S, S): the same for all heads
    mask = as_mask_4d(model.config.get_text_config(), model.dtype, examples.visible[:, None])
    rest = {name: value for name, value in inputs.items() if name not in text}
    return {
        **rest,
        "input_ids": examples.input_ids,
        "attention_mask": mask,
        "position_ids": examples.position_ids,
    }, examples.place
