"""What ftkit assumes of transformers' blocks, masks, caches and rotary positions, one assumption a test."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, DynamicCache, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from ftkit.models import one_position
from ftkit.models import transformers_internals as internals
from ftkit.plan.torch_internals import fake_tensors

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 50, "pad_token_id": None,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
POSITION = torch.tensor([2, 6])


def llama(**options: Any) -> LlamaModel:
    torch.manual_seed(1)
    return LlamaModel(LlamaConfig(**SHAPE, num_key_value_heads=2, intermediate_size=48, **options)).eval()


def gpt2(**options: Any) -> GPT2Model:
    torch.manual_seed(1)
    return GPT2Model(GPT2Config(**SHAPE, max_position_embeddings=16, **options)).eval()


MODELS = [llama, gpt2]


def ids() -> Tensor:
    return torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(3))


def states(model: Any) -> tuple[Any, Tensor, list[dict[str, Any]]]:
    parts = internals.block_parts(model)
    assert parts is not None
    hidden = internals.embed(model, parts, ids())
    return parts, hidden, internals.block_arguments(model, parts, hidden, None)


@pytest.mark.parametrize("make", MODELS)
def test_a_decoder_has_one_list_of_blocks_and_one_norm_behind_it(make: Any) -> None:
    model = make()
    parts = internals.block_parts(model)
    assert parts == (("h", "ln_f") if make is gpt2 else ("layers", "norm"))
    assert all(map(internals.is_block, getattr(model, parts.blocks)))
    assert not internals.is_block(getattr(model, parts.norm))
    two = make()
    two.more = nn.ModuleList(getattr(two, parts.blocks))
    assert internals.block_parts(two) is None


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_of_a_model_without_its_blocks_gives_what_its_first_block_gets(make: Any) -> None:
    model, seen = make(), []
    parts, hidden, _ = states(model)
    getattr(model, parts.blocks)[0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    model(ids(), use_cache=False)
    assert torch.equal(seen[0], hidden)
    assert internals.block_parts(model) == parts  # the model itself is as it was


@pytest.mark.parametrize("make", MODELS)
def test_blocks_called_with_the_recorded_arguments_give_the_models_own_output(make: Any) -> None:
    model = make()
    parts, hidden, arguments = states(model)
    blocks = getattr(model, parts.blocks)
    assert len(arguments) == len(blocks) == 3
    for block, given in zip(blocks, arguments, strict=True):
        hidden = internals.run_block(block, hidden, given)
    assert torch.equal(getattr(model, parts.norm)(hidden), model(ids(), use_cache=False).last_hidden_state)


def test_recording_arguments_draws_nothing() -> None:
    model = gpt2(embd_pdrop=0.5).train()
    parts, hidden, _ = states(model)
    before = torch.get_rng_state()
    internals.block_arguments(model, parts, hidden, None)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_block_has_is_found_on_its_stand_in() -> None:
    """Some models ask a block for its kind of attention before they call it."""
    block = llama().layers[1]
    block.attention_type = "full_attention"
    assert internals._Recorder(block, None).attention_type == "full_attention"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", MODELS)
def test_a_mask_of_four_dimensions_reaches_the_blocks_as_it_is(make: Any, attention: str) -> None:
    model = make()
    model.set_attn_implementation(attention)
    parts, hidden, _ = states(model)
    mask = internals.attention_mask_4d(model, torch.ones(1, 7, dtype=torch.bool))
    assert (mask.dtype, mask.shape) == (torch.bool if attention == "sdpa" else torch.float32, (1, 1, 7, 7))
    for given in internals.block_arguments(model, parts, hidden, mask):
        assert given["attention_mask"] is mask


def test_other_attentions_take_no_such_mask() -> None:
    model = llama()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2 takes no mask of four dimensions"):
        internals.attention_mask_4d(model, torch.ones(1, 7, dtype=torch.bool))
    assert not one_position.runs_at_one_position(model, model.layers[-1])


@pytest.mark.parametrize("make", MODELS)
def test_a_block_names_its_cache_and_reads_transformers_own(make: Any) -> None:
    """The cache gives back what it holds followed by what the block adds, and the block knows its place in it."""
    model = make()
    parts, _, calls = states(model)
    block, given = getattr(model, parts.blocks)[2], calls[2]
    assert internals.cache_name(given) in given.keys() & inspect.signature(type(block).forward).parameters.keys()
    cache = DynamicCache()
    layer = (block.attn if make is gpt2 else block.self_attn).layer_idx
    assert layer == 2
    cache.update(torch.ones(2, 2, 7, 8), torch.ones(2, 2, 7, 8), layer)
    keys, _ = cache.update(torch.zeros(2, 2, 1, 8), torch.zeros(2, 2, 1, 8), layer)
    assert keys.shape == (2, 2, 8, 8)
    assert keys[:, :, :7].min() == 1
    assert keys[:, :, 7].max() == 0


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("case", ["llama", "gpt2", "gpt2 split"])
def test_a_block_at_one_position_gives_what_it_gives_there(case: str, causal: bool) -> None:
    model = llama() if case == "llama" else gpt2()
    parts, hidden, _ = states(model)
    blocks = getattr(model, parts.blocks)
    if case == "gpt2 split":
        internals.split_fused_projections(blocks)
    mask = None if causal else internals.attention_mask_4d(model, torch.ones(1, 7, dtype=torch.bool))
    given = internals.block_arguments(model, parts, hidden, mask)[-1]
    wanted = internals.run_block(blocks[-1], hidden, given)[torch.arange(2), POSITION]
    got = one_position.run_block_at(blocks[-1], hidden, given, POSITION)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_gradient_checkpointing_and_dropout_need_the_whole_block() -> None:
    model = llama().train()
    block = model.layers[-1]
    assert one_position.runs_at_one_position(model, block)
    model.activation_checkpointing_enable()
    assert not one_position.runs_at_one_position(model, block)
    assert one_position.runs_at_one_position(model.eval(), block)
    dropping = llama(attention_dropout=0.1)
    assert internals.drops_out(dropping.layers[0])
    assert not one_position.runs_at_one_position(dropping.train(), dropping.layers[-1])


def test_gpt2_stores_query_key_and_value_side_by_side_and_transposed() -> None:
    fused = gpt2().h[0].attn.c_attn
    assert type(fused) is internals.Conv1D
    assert fused.weight.shape == (32, 96)
    x = torch.randn(2, 7, 32)
    split = internals.SplitProjection(fused)
    torch.testing.assert_close(split(x), fused(x), atol=1e-6, rtol=0)
    storages = {parameter.untyped_storage().data_ptr() for parameter in split.parameters()}
    assert storages == {parameter.untyped_storage().data_ptr() for parameter in fused.parameters()}  # no copies


def test_gelu_of_gpt2_has_the_class_that_is_replaced() -> None:
    assert isinstance(gpt2().h[0].mlp.act, internals.NewGELUActivation)


def test_a_dynamic_cache_keeps_keys_and_values_in_layers() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    assert internals.keeps_every_position(cache)
    assert cache.layers[0].keys.shape == cache.layers[0].values.shape == (1, 2, 3, 4)


def test_image_features_enter_a_model_as_a_pooled_output() -> None:
    features = torch.ones(2, 3, 4)
    assert internals.BaseModelOutputWithPooling(pooler_output=features).pooler_output is features


def test_the_attention_implementation_is_in_the_configuration() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("llama", **SHAPE), attn_implementation="eager")
    assert internals.attention_implementation(model.config) == "eager"


def test_generation_asks_a_model_whether_it_is_sharded() -> None:
    from transformers.integrations.fsdp import is_fsdp_managed_module

    model = llama()
    assert not is_fsdp_managed_module(model)
    internals.mark_sharded(model)
    assert "_is_fsdp_managed_module" in inspect.getsource(is_fsdp_managed_module)
    assert model._is_fsdp_managed_module is True


def test_transformers_asks_in_one_place_whether_tensors_are_fake() -> None:
    from transformers.masking_utils import is_tracing

    with fake_tensors():
        tensor = torch.ones(1)
    assert is_tracing(tensor)
    with internals.fake_tensors_are_real():
        assert not is_tracing(tensor)
    assert is_tracing(tensor)
