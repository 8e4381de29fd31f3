"""Every peft method in a generative module is what plain peft makes of it: start, gradients, count, saved folder."""

import copy
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ftkit.errors import InputError
from ftkit.examples.padding import prompt_batch, supervised_batch
from ftkit.models.base_model import hidden_states_and_head
from ftkit.models.generation import UNFINISHED
from ftkit.training import generative
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.generative import GenerativeModule
from peft_methods import METHODS, PROMPTS, STEPS, UNCHANGED

INPUTS = supervised_batch([([1, 2, 3], [4, 5]), ([6, 7], [8, 9, 10, 11]), ([3, 4], [5])], pad_id=0)


@pytest.fixture(scope="module")
def folder(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with an output head."""
    folder = tmp_path_factory.mktemp("language-model")
    torch.manual_seed(1)
    AutoModelForCausalLM.from_pretrained(llama_folder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(folder)
    return folder


class Tuned(GenerativeModule):
    auto_class = AutoModelForCausalLM

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"seed": 3, "dtype": "float32", "max_new_tokens": 4, "optimizer": adam, **options})


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def built(folder: Path, **options: Any) -> Tuned:
    module = Tuned(base_model=str(folder), **options)
    module.configure_model()
    return module


def fit(folder: Path, module: Tuned, ckpt_path: Path | None = None, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"max_steps": STEPS, "enable_model_summary": False, "default_root_dir": folder, **quiet, **options}
    trainer = L.Trainer(accelerator="cpu", **given)
    trainer.fit(module, DataLoader([{"inputs": INPUTS}] * STEPS, batch_size=None), ckpt_path=ckpt_path)
    return trainer


def plain(folder: Path, adapter: PeftConfig) -> PeftModel:
    """What peft makes by hand of the same base and seed."""
    config = copy.deepcopy(adapter)
    config.task_type = peft.TaskType.CAUSAL_LM
    torch.manual_seed(3)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config).train()


def logits(net: Any) -> Tensor:
    with torch.no_grad():
        found = net(input_ids=INPUTS["input_ids"], attention_mask=INPUTS["attention_mask"]).logits
    return found[:, -INPUTS["input_ids"].shape[1] :]


def train(net: PeftModel) -> None:
    """Train as peft's documentation does; the loss is a mean over tokens, as transformers computes it."""
    optimizer = adam([parameter for parameter in net.parameters() if parameter.requires_grad])
    for step in range(1, STEPS + 1):
        net(**INPUTS).loss.backward()
        optimizer.step()
        if hasattr(net.base_model, "update_and_allocate"):
            net.base_model.update_and_allocate(step)
        optimizer.zero_grad()


@pytest.mark.parametrize("method", UNCHANGED)
def test_a_method_starts_as_the_base(method: str, folder: Path) -> None:
    adapted, base = built(folder, adapter=METHODS[method]).eval(), built(folder).eval()
    torch.testing.assert_close(logits(adapted.net), logits(base.net), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        losses = [module.log_probs(INPUTS).log_probs.mean() for module in (adapted, base)]
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # by peft's own forward
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # by peft's own forward
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_as_in_plain_peft_and_its_folder_loads_there(method: str, folder: Path, tmp_path: Path) -> None:
    """In double precision, so that rounding decides no step of Adam's."""
    module, by_hand = built(folder, adapter=METHODS[method]).double(), plain(folder, METHODS[method]).double()
    trained = sum(value.numel() for value in trainable_parameters(module).values())
    assert trained == by_hand.get_nb_trainable_parameters()[0]
    before = logits(module.eval().net)
    fit(tmp_path, module.train())
    train(by_hand)
    after = logits(module.eval().net)
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, logits(by_hand.eval()), atol=1e-6, rtol=0)
    module.export(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval().double()
    torch.testing.assert_close(logits(loaded), after, atol=1e-5, rtol=1e-5)


def test_adalora_resumes_with_what_it_knew_of_its_ranks(folder: Path, tmp_path: Path) -> None:
    whole, resumed = (built(folder, adapter=METHODS["adalora"]) for _ in range(2))
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
    fit(tmp_path, whole, enable_checkpointing=True, callbacks=[keep])
    fit(tmp_path, resumed, ckpt_path=tmp_path / "step=2.ckpt")
    assert whole.net.active_peft_config.rank_pattern == resumed.net.active_peft_config.rank_pattern is not None
    torch.testing.assert_close(logits(resumed.eval().net), logits(whole.eval().net), atol=1e-6, rtol=0)


def test_adalora_is_planned_for_the_steps_there_are(folder: Path, tmp_path: Path) -> None:
    """Whatever it was told, as where a search tries other numbers of epochs."""
    told, right = (
        built(folder, adapter=peft.AdaLoraConfig(init_r=4, target_r=2, tinit=1, tfinal=1, total_step=steps))
        for steps in (900, STEPS)
    )
    for module in (told, right):
        fit(tmp_path, module)
    assert told.net.active_peft_config.rank_pattern == right.net.active_peft_config.rank_pattern is not None
    torch.testing.assert_close(logits(told.eval().net), logits(right.eval().net), atol=0, rtol=0)


def test_adalora_needs_steps_to_allocate_ranks_in_but_not_to_be_tried_out(folder: Path, tmp_path: Path) -> None:
    adapter = peft.AdaLoraConfig(tinit=3, tfinal=1, total_step=9)
    with pytest.raises(InputError, match=rf"tinit and tfinal: leave no step of {STEPS} .* \(got 4\); fix: lower them"):
        fit(tmp_path, built(folder, adapter=adapter))
    fit(tmp_path, built(folder, adapter=adapter), fast_dev_run=True)


def test_a_method_that_leaves_nothing_to_train_is_refused_by_name(gpt2_folder: Path) -> None:
    """OSF passes over GPT-2's layers without a word."""
    nothing = peft.OSFConfig(target_modules=["c_attn"])
    with pytest.raises(InputError, match=r"adapter: leaves nothing to train in this model \(got 'OSFConfig'\); fix: "):
        built(gpt2_folder, adapter=nothing)


def test_training_goes_on_from_a_folder_and_a_checkpoint_does_without_it(folder: Path, tmp_path: Path) -> None:
    first = built(folder, adapter=METHODS["dora"])
    fit(tmp_path, first)
    first.export(tmp_path / "adapter")
    second = built(folder, adapter=str(tmp_path / "adapter"), seed=8)
    assert trainable_parameters(second).keys() == trainable_parameters(first).keys()
    torch.testing.assert_close(logits(second.eval().net), logits(first.eval().net), atol=1e-6, rtol=0)
    fit(tmp_path, second.train()).save_checkpoint(tmp_path / "a.ckpt")
    shutil.rmtree(tmp_path / "adapter")
    loaded = Tuned.load(tmp_path / "a.ckpt")
    assert torch.equal(logits(loaded.net), logits(second.eval().net))
    assert not torch.equal(logits(loaded.net), logits(first.net))


def test_an_adapter_of_fewer_layers_is_not_taken_for_one_of_all(folder: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = 2
    shallow = get_peft_model(AutoModelForCausalLM.from_config(config), peft.LoraConfig(r=4, task_type="CAUSAL_LM"))
    shallow.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks weights of adapted layers: .*layers\.2"):
        built(folder, adapter=str(tmp_path))


def test_an_adapter_of_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    plain(folder, peft.LoraConfig()).save_pretrained(tmp_path)
    built(folder, adapter=str(tmp_path))  # peft notes no base
    (tmp_path / "base_fingerprint.json").write_text('{"config.json": "0"}')
    with pytest.raises(InputError, match="the base model is not the one that the adapter was trained on"):
        built(folder, adapter=str(tmp_path))


def test_ranks_that_were_cut_are_not_trained_further(folder: Path, tmp_path: Path) -> None:
    """A checkpoint of such a training would have ranks that its method, as it was read, has not."""
    module = built(folder, adapter=METHODS["adalora"])
    fit(tmp_path, module)
    module.export(tmp_path / "adapter")
    with pytest.raises(InputError, match="adapter: peft saves AdaLoRA's pruned ranks"):
        built(folder, adapter=str(tmp_path / "adapter"))


@pytest.mark.parametrize("method", ["dora", "pissa", "adalora", "ia3", "oft", "vera", "saved_norm"])
def test_merged_is_adapted(method: str, folder: Path, tmp_path: Path) -> None:
    module = built(folder, adapter=METHODS[method])
    fit(tmp_path, module)
    module.export(tmp_path / "merged", merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged.eval()), logits(module.eval().net), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", PROMPTS)
def test_answers_behind_virtual_tokens_are_greedy_by_hand(method: str, folder: Path, tmp_path: Path) -> None:
    module = built(folder, adapter=METHODS[method])
    fit(tmp_path, module)
    hidden_states, head = hidden_states_and_head(module.eval().net)
    prompts, expected = [[1, 2, 3, 4, 5], [6, 7]], []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        for _ in range(4):
            with torch.no_grad():
                ids = torch.cat((ids, head(hidden_states(input_ids=ids))[:, -1:].argmax(-1)), dim=1)
        expected.append(module.tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True).strip())
    found = module.generate(prompt_batch(prompts, pad_id=0)).texts
    assert [text.removesuffix(UNFINISHED) for text in found] == expected


REFUSED: dict[str, tuple[Any, str]] = {
    "no layer": (peft.LoraConfig(target_modules=["nowhere"]), "peft refuses it for this model: Target modules"),
    "no part": (peft.LoraConfig(modules_to_save=["nowhere"]), "modules_to_save: names no part of the model"),
    "sizes": (peft.RoadConfig(), "must be divisible by group_size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_peft_cannot_do_is_refused_before_weights_are_loaded(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, message = REFUSED[case]
    monkeypatch.setattr(generative, "load_base", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(InputError, match=message):
        built(folder, adapter=adapter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": peft.LoraConfig(init_lora_weights="eva")}, "starts from examples or from a quantization"),
        ({"adapter": peft.LoraConfig(init_lora_weights="pissa_niter_4")}, "differs each time it is loaded"),
        ({"adapter": peft.PolyConfig()}, "the method needs more than a text"),
        ({"adapter": peft.LoraConfig(kasa_config=peft.KasaConfig())}, "does not add this method's own term"),
        ({"adapter": "nowhere"}, "nowhere: adapter: contains no adapter_config.json"),
        ({"adapter": METHODS["prefix"], "gradient_checkpointing": True}, "a prefix is cached keys and values"),
        ({"quantization": "nf4"}, "quantized weights cannot be trained; fix: use an adapter"),
    ],
)
def test_what_ftkit_does_not_do_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tuned(base_model="demo", **options)
