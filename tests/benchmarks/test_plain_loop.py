from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

import plain_loop as plain

TINY = plain.Size(layers=3, width=8, heads=2, vocab=11, context=16)
PAD = 10


def transformers_gpt2(attention: str = "sdpa", causal: bool = True) -> GPT2Model:
    """A tiny transformers GPT-2 with every parameter random, norms and biases too."""
    config = GPT2Config(
        n_layer=TINY.layers,
        n_embd=TINY.width,
        n_head=TINY.heads,
        vocab_size=TINY.vocab,
        n_positions=TINY.context,
        is_causal=causal,
    )
    model = GPT2Model._from_config(config, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


def messages(count: int, length: int | None = None) -> list[tuple[list[int], int]]:
    """Random messages of `length` (or 1 to 9) ids, never the padding id; the first decides the label."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 10, (count,), generator=generator).tolist()
    texts = [torch.randint(0, PAD, (length or own,), generator=generator).tolist() for own in lengths]
    return [(ids, int(ids[0] >= 5)) for ids in texts]


def splits(train: int, length: int | None = None) -> dict[str, list[tuple[list[int], int]]]:
    return {"train": messages(train, length), "val": messages(5, length), "test": messages(6, length)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("causal", [True, False])
def test_hidden_states_equal_transformers(attention: str, causal: bool) -> None:
    reference = transformers_gpt2(attention, causal)
    model = plain.GPT(TINY, causal)  # its head is the identity
    plain.load_gpt2_state(model, reference.state_dict())
    ids = torch.randint(0, TINY.vocab, (4, 13), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = reference(ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(model(ids), expected, atol=1e-5, rtol=0)


def test_names_of_a_language_model_load_too() -> None:
    state = {f"transformer.{name}": tensor for name, tensor in transformers_gpt2().state_dict().items()}
    model = plain.build(plain.ROWS[1], TINY, state | {"lm_head.weight": torch.zeros(1)})
    assert torch.equal(model.token_embedding.weight, state["transformer.wte.weight"])
    assert torch.equal(model.blocks[2].key.weight, state["transformer.h.2.attn.c_attn.weight"][:, 8:16].T)


def test_random_weights_are_torch_defaults_in_the_published_order() -> None:
    model = plain.build(plain.ROWS[10], TINY)
    torch.manual_seed(123)
    tokens, positions = nn.Embedding(11, 8), nn.Embedding(16, 8)
    blocks = [[*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 32), nn.Linear(32, 8)] for _ in range(3)]
    torch.manual_seed(123)
    head = nn.Linear(8, 2)
    assert torch.equal(model.token_embedding.weight, tokens.weight)
    assert torch.equal(model.position_embedding.weight, positions.weight)
    for block, linears in zip(model.blocks, blocks, strict=True):
        own = (block.query, block.key, block.value, block.out, block.up, block.down)
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(own, linears, strict=True))
        assert all(torch.equal(a.bias, b.bias) for a, b in zip(own, linears, strict=True))
    assert torch.equal(model.head.weight, head.weight)
    assert torch.equal(model.head.bias, head.bias)


def test_lora_starts_as_the_base_and_adds_alpha_times_x_a_b() -> None:
    state = transformers_gpt2().state_dict()
    row = plain.ROWS[11] | {"lora_rank": 4, "lora_alpha": 3}
    base, lora = plain.build(plain.ROWS[3], TINY, state), plain.build(row, TINY, state)
    ids = torch.tensor([[1, 2, 3], [4, 5, PAD]])
    assert torch.equal(lora(ids), base(ids))

    layer, x = lora.blocks[1].up, torch.randn(5, 8)
    nn.init.normal_(layer.b)
    dense = layer.linear.weight + 3 * (layer.a @ layer.b).T
    torch.testing.assert_close(layer(x), x @ dense.T + layer.linear.bias)


def test_lora_matrices_are_drawn_after_the_head_in_module_order() -> None:
    lora = plain.build(plain.ROWS[11], TINY, transformers_gpt2().state_dict())
    torch.manual_seed(123)
    nn.Linear(8, 2)
    for block in lora.blocks:
        for layer in (block.query, block.key, block.value, block.out, block.up, block.down):
            expected = torch.empty(layer.linear.in_features, 16).uniform_(-0.25, 0.25)  # 1 / sqrt(16)
            torch.testing.assert_close(layer.a, expected, atol=1e-7, rtol=0)
    assert torch.allclose(lora.head.a, torch.empty(8, 16).uniform_(-0.25, 0.25), atol=1e-7)


# Width 8: a block has 12 * 64 + 13 * 8 = 872 parameters, the final norm 16, the head 18, the embeddings 216.
# Rank 2: a block's adapters are 4 * (8 + 8) * 2 + 2 * (8 + 32) * 2 = 288, the head's (8 + 2) * 2 = 20.
@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("last_layer", 18),
        ("last_block", 872 + 16 + 18),
        ("last_two_blocks", 2 * 872 + 16 + 18),
        ("all", 216 + 3 * 872 + 16 + 18),
        ("lora", 3 * 288 + 20 + 18),
    ],
)
def test_trainable_parameters_counted_by_hand(trainable: str, expected: Any) -> None:
    row = plain.ROWS[10] | {"trainable": trainable, "lora_rank": 2, "lora_alpha": 2}
    assert trainable_count(plain.build(row, TINY)) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, 7_087_872 + 1_536 + 1_538),
        (3, 1_538),
        (4, 2 * 7_087_872 + 1_536 + 1_538),
        (5, 124_439_808 + 1_538),
        (11, 12 * 16 * (4 * 2 * 768 + 2 * 5 * 768) + 16 * 770 + 1_538),
    ],
)
def test_trainable_parameters_of_gpt2_small(number: int, expected: Any) -> None:
    with torch.device("meta"):
        model = plain.build(plain.ROWS[number] | {"weights": "random"}, plain.SIZES["small"])
    assert trainable_count(model) == expected


def trainable_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("ids", "position"),
    [
        ([5, 6, PAD, PAD], 1),
        ([5, 6, 7, 8], 3),
        ([5, PAD, PAD, PAD], 0),
        ([5, PAD, 6, PAD], 1),  # counted, not searched: a padding id inside the text shifts the position
        ([PAD, PAD, PAD, PAD], -1),
    ],
)
def test_flexible_position(ids: list[int], position: int) -> None:
    row, batch = plain.ROWS[16], torch.tensor([ids])
    logits = torch.arange(8.0).view(1, 4, 2)
    assert plain.last_real(batch, PAD).tolist() == [position]
    assert torch.equal(plain.choose(logits, batch, row, PAD), logits[:, position])
    assert torch.equal(plain.choose(logits, batch, row | {"mean": True}, PAD), logits[:, position])


@pytest.mark.parametrize(("number", "expected"), [(1, [6.0, 7.0]), (2, [0.0, 1.0]), (19, [3.0, 4.0])])
def test_other_choices_of_logits_see_padding(number: int, expected: Any) -> None:
    logits = torch.arange(8.0).view(1, 4, 2)
    ids = torch.tensor([[5, PAD, PAD, PAD]])
    assert plain.choose(logits, ids, plain.ROWS[number], PAD).tolist() == [expected]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, [[1, 2, 3], [4, PAD, PAD], [1, 2, 3]]),
        (13, [[1, 2, 3, *[PAD] * 13], [4, *[PAD] * 15], [1, 2, 3, 4, *[PAD] * 12]]),
        (14, [[1, 2, 3], [4], [1, 2, 3, 4]]),
    ],
)
def test_padding_follows_the_training_messages(number: int, expected: Any) -> None:
    train, other = [([1, 2, 3], 0), ([4], 1)], [([1, 2, 3, 4], 1)]
    length = plain.padded_length(plain.ROWS[number], train, TINY.context)
    prepared = plain.prepare([*train, *other], length, PAD)
    assert [ids.tolist() for ids, _, _ in prepared] == expected
    assert [(label, index) for _, label, index in prepared] == [(0, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(("number", "count", "batch"), [(14, 27, 1), (1, 27, 8)])
def test_epoch_orders_follow_the_global_generator(number: int, count: int, batch: int) -> None:
    """Each iterator draws a base seed, a shuffled one its order's too; at batch 1, step 50 is in epoch 2."""

    def draw() -> int:
        return int(torch.empty((), dtype=torch.int64).random_())

    def shuffled() -> list[int]:
        draw()
        order = torch.randperm(count, generator=torch.Generator().manual_seed(draw()))
        return order[: count // batch * batch].tolist()

    def evaluation() -> None:
        shuffled()
        draw()

    torch.manual_seed(123)
    expected, step = [], 0
    for _ in range(3):
        expected.append(shuffled())
        for _ in range(count // batch):
            if step % 50 == 0:
                evaluation()
            step += 1
        evaluation()

    model = plain.build(plain.ROWS[number], TINY, transformers_gpt2().state_dict())
    torch.manual_seed(7)  # what was drawn before training does not matter
    result = plain.train(model, plain.ROWS[number], splits(count), PAD, epochs=3)
    assert result.orders == expected
    assert [step for step, _, _ in result.curve] == ([0, 50] if batch == 1 else [0])
    assert len(result.losses) == 3 * (count // batch)


def test_accumulation_averages_and_steps_on_the_shorter_last_window(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    real_step = torch.optim.AdamW.step

    def recording_step(self: Any, *args: Any) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        gradients.append([p.grad.clone() for p in parameters])
        return real_step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording_step)
    row, data = plain.ROWS[15] | {"accumulation": 2}, splits(5, length=4)
    model = plain.build(row, TINY, transformers_gpt2().state_dict())
    before = deepcopy(model)
    result = plain.train(model, row, data, PAD, epochs=2)
    assert len(gradients) == 2 * 3  # windows of 2, 2 and 1 messages an epoch

    pair = [data["train"][i] for i in result.orders[0][:2]]
    logits = before(torch.tensor([ids for ids, _ in pair]))[:, -1]
    nn.functional.cross_entropy(logits, torch.tensor([label for _, label in pair])).backward()
    expected = [p.grad for p in before.parameters() if p.requires_grad]
    for got, wanted in zip(gradients[0], expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    frozen = [name for name, p in before.named_parameters() if not p.requires_grad]
    assert all(torch.equal(model.get_parameter(name), before.get_parameter(name)) for name in frozen)


def test_figures_are_of_the_trained_model_in_data_order() -> None:
    row, data = plain.ROWS[5], splits(19)
    model = plain.build(row, TINY, transformers_gpt2().state_dict())
    result = plain.train(model, row, data, PAD, epochs=20, lr=1e-2)
    length = max(len(ids) for ids, _ in data["train"])
    for name, examples in data.items():
        rows = torch.stack([ids for ids, _, _ in plain.prepare(examples, length, PAD)])
        assert result.predictions[name] == model(rows)[:, -1].argmax(1).tolist()
    hits = [p == label for p, (_, label) in zip(result.predictions["test"], data["test"], strict=True)]
    assert result.accuracy["test"] == sum(hits) / 6
    # 3 of the 19 training messages are dropped from each epoch, and from the accuracy, as published
    assert result.accuracy["train"] * 16 % 1 == 0
    assert [len(order) for order in result.orders] == [16] * 20
    assert result.losses[-1] < result.losses[0]


def test_ignore_index_of_row_18_changes_nothing_and_a_label_would() -> None:
    data = splits(8)
    losses = {}
    for ignored in (-100, 50256, 1):
        row = plain.ROWS[1] | {"ignore_index": ignored}
        model = plain.build(row, TINY, transformers_gpt2().state_dict())
        losses[ignored] = plain.train(model, row, data, PAD, epochs=1).losses
    assert losses[50256] == losses[-100] != losses[1]


def test_pretrained_rows_need_weights() -> None:
    with pytest.raises(ValueError, match="state dict"):
        plain.build(plain.ROWS[1], TINY)
