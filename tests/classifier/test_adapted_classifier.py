"""Every peft method in a classifier is what plain peft makes of its backbone; frozen blocks stay cached."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from encoders import save_encoder
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModel

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.models.peft_internals import orthogonality_gradients
from ftkit.models.trainable import frozen_blocks
from ftkit.training.checkpoint import trainable_parameters
from peft_methods import METHODS, STEPS, UNCHANGED

NAMES = ("net.head.weight", "net.head.bias")
ON_GPT2 = [name for name in METHODS if name not in ("oft", "saved_norm")]  # OFT: linear layers alone


def classifier(folder: Path, **options: Any) -> TextClassifier:
    model = TextClassifier(str(folder), **{"seed": 5, "pooling": "last_real", "optimizer": adam, **options})
    model.configure_model()
    return model


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def batch() -> dict[str, Tensor]:
    ids = torch.randint(0, 256, (4, 6), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "length": torch.tensor([6, 3, 1, 2]), "label": torch.tensor([0, 1, 0, 1])}


def fit(model: TextClassifier) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=STEPS, enable_model_summary=False, **quiet)
    trainer.fit(model, DataLoader([batch()] * STEPS, batch_size=None))


def by_hand(folder: Path, adapter: PeftConfig, head: nn.Linear) -> Callable[[], Tensor]:
    """Train the backbone with plain peft, and a head on its last real token; return what computes the logits."""
    config, head = copy.deepcopy(adapter), copy.deepcopy(head)
    config.task_type = peft.TaskType.FEATURE_EXTRACTION
    body = AutoModel.from_pretrained(folder, dtype=torch.float32)
    body.config.pad_token_id = None
    torch.manual_seed(5)
    nn.Linear(body.config.hidden_size, 2)  # is drawn before the adapter
    net = get_peft_model(body, config).double()

    def logits() -> Tensor:
        states = net(input_ids=batch()["input_ids"])[0]
        ahead = states.shape[1] - batch()["input_ids"].shape[1]
        return head(states[torch.arange(4), ahead + batch()["length"] - 1])

    optimizer = adam([parameter for parameter in [*net.parameters(), *head.parameters()] if parameter.requires_grad])
    for step in range(1, STEPS + 1):
        nn.functional.cross_entropy(logits(), batch()["label"]).backward()
        if isinstance(config, peft.AdaLoraConfig):
            for parameter, gradient in orthogonality_gradients(net):
                parameter.grad += gradient  # type: ignore[operator]
        optimizer.step()
        if isinstance(config, peft.AdaLoraConfig):
            net.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return torch.no_grad()(logits)


@pytest.mark.parametrize("method", [name for name in ON_GPT2 if name in UNCHANGED])
def test_a_method_starts_as_the_base(method: str, gpt2_folder: Path) -> None:
    adapted = classifier(gpt2_folder, adapter=METHODS[method]).eval()
    base = classifier(gpt2_folder, trainable="last_layer").eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(batch()), base(batch()), atol=2e-5, rtol=1e-5)
    assert adapted.net.backbone.splits


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # by peft's own forward
@pytest.mark.parametrize("method", ON_GPT2)
def test_a_method_trains_as_in_plain_peft_and_a_checkpoint_holds_it(
    method: str, gpt2_folder: Path, tmp_path: Path
) -> None:
    """In double precision, so that rounding decides no step of Adam's."""
    model = classifier(gpt2_folder, adapter=METHODS[method]).double()
    expected = by_hand(gpt2_folder, METHODS[method], model.net.head)
    with torch.no_grad():
        before = model.eval()(batch())
    fit(model.train())
    with torch.no_grad():
        after = model.eval()(batch())
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, expected(), atol=1e-6, rtol=0)
    trainer = L.Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = TextClassifier.load(tmp_path / "a.ckpt").double()
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch()), after, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt", "prefix", "p_tuning"])
def test_an_encoder_takes_adapters_too(method: str, tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path)
    model = classifier(folder, adapter=METHODS[method], pooling="mean")
    given = {**batch(), "input_ids": batch()["input_ids"] % 40}
    with torch.no_grad():
        padded = model.eval()(given)
        alone = torch.cat([model({key: value[[row]] for key, value in given.items()}) for row in range(4)])
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=0)
    model(given).sum().backward()
    starting = [name for name, value in trainable_parameters(model).items() if "lora_A" not in name]
    assert all(model.get_parameter(name).grad.abs().max() > 0 for name in starting)


def test_blocks_before_the_first_adapter_stay_frozen_and_cached(gpt2_folder: Path) -> None:
    late = classifier(gpt2_folder, adapter=peft.LoraConfig(layers_to_transform=[2]))
    assert frozen_blocks(late.net.backbone) == 2
    everywhere = classifier(gpt2_folder, adapter=peft.LoraConfig())
    assert frozen_blocks(everywhere.net.backbone) == 0


def test_virtual_tokens_run_the_whole_model_and_take_up_context(gpt2_folder: Path) -> None:
    model = classifier(gpt2_folder, adapter=METHODS["prompt"])
    assert not model.net.backbone.splits
    assert frozen_blocks(model.net.backbone) == 0
    assert model.context_length == classifier(gpt2_folder).context_length - 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": METHODS["prompt"], "causal_mask": False}, "virtual tokens need a causal mask"),
        ({"adapter": METHODS["oft"]}, "peft refuses it for this model: Target module Conv1D"),
        ({"adapter": METHODS["prefix"], "frozen_dtype": "bfloat16"}, "needs a model that can be split into blocks"),
        ({"quantization": "nf4", "trainable": "lora"}, "nor split as the published adapters need it"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str, gpt2_folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        classifier(gpt2_folder, **options)


def test_a_family_that_takes_no_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adapter: ModernBertModel does not run with it: "):
        classifier(save_encoder("modernbert", tmp_path), adapter=METHODS["prefix"], pooling=None)
