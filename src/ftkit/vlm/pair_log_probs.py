"""The log-probabilities of the answers of pairs, with their images and with images without content."""

from typing import Any

import torch
from torch import Tensor, nn

from ftkit.models.base_model import hidden_states_and_head, plain_model
from ftkit.models.losses import sequence_log_probs, supervised_tokens, target_log_probs
from ftkit.models.vision_families import FEATURES, to_model
from ftkit.vlm.shared_prompt import TOKEN_TENSORS, can_share, run_shared
from ftkit.vlm.vision import for_pairs, with_features


def answer_log_probs(net: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (2B,) of the answers of a batch of pairs, and their numbers of tokens (2B,).

    A pair runs as one example or as two. They differ by rounding, as examples do in batches of other widths, so what is
    cached of the reference serves both.
    """
    hidden_states, head = hidden_states_and_head(net)
    inputs = with_features(net, inputs)
    labels = inputs["labels"]
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    sequence, position, target = supervised_tokens(labels)
    if can_share(net, rest):
        given, place = run_shared(net, rest)
        states = hidden_states(**to_model(net, given))[sequence % (len(labels) // 2), place[sequence, position]]
    else:
        states = hidden_states(**to_model(net, for_pairs(net, rest)))[sequence, position]
    return sequence_log_probs(target_log_probs(states, target, head), sequence, len(labels))


def corrupted_log_probs(net: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Return the log-probabilities (B,) of the chosen answers of a batch of B pairs, given images without content.

    In the place of each vector of an example's images is their mean.
    """
    hidden_states, head = hidden_states_and_head(net)
    inputs = with_features(net, inputs)
    pairs = len(inputs["labels"]) // 2
    of_tokens = (*TOKEN_TENSORS, "labels")
    given = {name: value[:pairs] if name in of_tokens else value for name, value in inputs.items()}
    marks = given["input_ids"] == plain_model(net).config.image_token_id
    if FEATURES in given:
        parts = given[FEATURES].split(marks.sum(1).tolist())
        given[FEATURES] = torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in parts if len(part)])
    sequence, position, target = supervised_tokens(given.pop("labels"))
    states = hidden_states(**to_model(net, given))[sequence, position]
    return sequence_log_probs(target_log_probs(states, target, head), sequence, pairs)[0]
