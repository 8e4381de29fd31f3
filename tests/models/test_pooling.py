"""Which position decides, and what attention lets it see."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Model

from ftkit.models.backbone import Backbone
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import needed_positions, pool, reads_padding, real_tokens

PAD = 256
POSITIONS = 4


@pytest.mark.parametrize(
    ("pooling", "length", "expected"),
    [  # the vectors are 1, 2, 4 and 8
        ("first", 1, 1.0),
        ("first", 4, 1.0),
        ("last", 1, 8.0),
        ("last", 4, 8.0),
        ("last_real", 1, 1.0),
        ("last_real", 3, 4.0),
        ("last_real", 4, 8.0),
        ("mean", 1, 3.75),
        ("mean", 4, 3.75),
        ("mean_real", 1, 1.0),
        ("mean_real", 3, 7 / 3),
        ("mean_real", 4, 3.75),
    ],
)
def test_pooled_positions(pooling, length, expected) -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
    beside = torch.tensor([[[16.0], [32.0], [64.0], [128.0]]])  # each row by its own length
    other = 5 - length
    pooled = pool(torch.cat([hidden, beside]), torch.tensor([length, other]), pooling)
    torch.testing.assert_close(pooled[0], torch.tensor([expected]))
    torch.testing.assert_close(pooled[1:], pool(beside, torch.tensor([other]), pooling))


def test_real_tokens_are_those_before_the_length() -> None:
    assert real_tokens(torch.tensor([1, 4, 2]), POSITIONS).tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("causal", "masked", "harmed"),
    [
        (True, False, {"last", "mean"}),
        (True, True, {"last", "mean"}),
        (False, True, {"last", "mean"}),
        (False, False, {"first", "last", "last_real", "mean", "mean_real"}),
    ],
)
def test_reads_padding_says_what_a_model_does(gpt2_folder: Path, causal: bool, masked: bool, harmed: set[str]) -> None:
    for pooling in ("first", "last", "last_real", "mean", "mean_real"):
        net = classifier(gpt2_folder, pooling, causal, masked)
        change = (net(*padded(3)) - net(*padded(9))).abs().max()
        assert reads_padding(pooling, causal, masked) == (pooling in harmed)  # type: ignore[arg-type]
        assert change > 1e-3 if pooling in harmed else change < 1e-6, pooling


def test_a_padding_id_inside_a_text_is_text(gpt2_folder: Path) -> None:
    """The position is counted by the length; searching the padding id would stop at the first one."""
    net = classifier(gpt2_folder, "last_real", causal=True, masked=True)
    text = [5, PAD, 7, PAD]
    expected = net(torch.tensor([text]), torch.tensor([4]))
    torch.testing.assert_close(net(torch.tensor([[*text, PAD, PAD]]), torch.tensor([4])), expected, atol=1e-6, rtol=0)
    assert (net(torch.tensor([text]), torch.tensor([3])) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [True, False])
def test_causal_mask_hides_later_tokens(gpt2_folder: Path, masked: bool) -> None:
    ids, changed = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[5, 6, 7, 99, 9]])
    mask = torch.ones_like(ids) if masked else None
    causal, open_ = backbone(gpt2_folder, causal=True), backbone(gpt2_folder, causal=False)
    with torch.no_grad():
        assert torch.equal(causal(ids, mask)[:, :3], causal(changed, mask)[:, :3])
        assert (causal(ids, mask)[:, 3:] - causal(changed, mask)[:, 3:]).abs().amin(dim=(0, 1)).max() > 1e-3
        assert ((open_(ids, mask) - open_(changed, mask)).abs().amax(-1) > 1e-3).all()


def backbone(folder: Path, causal: bool) -> Backbone:
    return Backbone(GPT2Model.from_pretrained(folder).eval(), causal)


def classifier(folder: Path, pooling, causal: bool, masked: bool) -> SequenceClassifier:
    torch.manual_seed(3)
    return SequenceClassifier(backbone(folder, causal), pooling, masked).requires_grad_(False)


def padded(width: int) -> tuple[Tensor, Tensor]:
    """A text of three tokens and one of two, padded to a width."""
    ids = torch.full((2, width), PAD)
    ids[0, :3], ids[1, :2] = torch.tensor([5, 6, 7]), torch.tensor([8, 9])
    return ids, torch.tensor([3, 2])


def test_the_first_token_of_an_encoder_depends_on_all_real_tokens() -> None:
    length = torch.tensor([2, 3])
    assert needed_positions(length, 4, "first", causal_mask=False, mask_padding=True).tolist() == [2, 3]
    assert needed_positions(length, 4, "first", causal_mask=True, mask_padding=True).tolist() == [1, 1]
