"""DPO by the module: TRL's numbers, a reference that stays, and the same result kept or live, in one batch or more."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pandas
import pytest
import torch
from peft import IA3Config, LoraConfig, OFTConfig, PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from random_vlm import FAMILIES, IMAGE, frozen, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.examples.reader import Example, read_examples
from ftkit.models.base_model import load_base, plain_model
from ftkit.models.vision_families import FAMILIES as VISION_FAMILIES
from ftkit.models.vision_families import FEATURES
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.recorder import RunRecorder
from ftkit.vlm import dpo
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.pair_log_probs import corrupted_log_probs
from ftkit.vlm.preference import LOSSES
from ftkit.vlm.vision import with_features

TEXT = {"input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids"}
IA3 = IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``folder(family)`` holds the weights of :func:`random_vlm.frozen`."""
    root = tmp_path_factory.mktemp("models")

    def saved(family: str) -> str:
        if not (root / family).is_dir():
            frozen(family).save_pretrained(root / family)
        return str(root / family)

    return saved


def module(model: str, **options: Any) -> VLMDPO:
    lora = LoraConfig(r=8, lora_alpha=16)
    return VLMDPO(**{"base_model": model, "adapter": lora, "seed": 3, "optimizer": sgd, "beta": 0.5, **options})


def batches(family: str, count: int = 2) -> list[dict[str, Any]]:
    return [{"id": [f"{seed}a", f"{seed}b"], "inputs": pairs(family, seed)} for seed in range(count)]


def singles(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of a batch, one a batch."""
    inputs, count = batch["inputs"], len(batch["id"])
    layout = next(one.images for one in VISION_FAMILIES.values() if set(one.images.tensors) >= inputs.keys() - TEXT)
    tokens = (inputs["input_ids"] == IMAGE).sum(1).tolist()[:count]
    return [
        {
            "id": [name],
            "inputs": {key: inputs[key][number::count] for key in TEXT & inputs.keys()}
            | layout.examples(inputs, tokens, [number]),
        }
        for number, name in enumerate(batch["id"])
    ]


class Losses(L.Callback):
    """What was logged in every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.steps.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def trainer(tmp_path: Path, **options: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given = {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "logger": False, **options}
    return L.Trainer(**quiet, **given, default_root_dir=tmp_path)


def fit(tmp_path: Path, net: VLMDPO, data: list[dict[str, Any]], **options: Any) -> list[dict[str, float]]:
    losses = Losses()
    trainer(tmp_path, callbacks=[losses], **options).fit(net, DataLoader(data, batch_size=None))
    return losses.steps


def learnt(net: VLMDPO) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainable_parameters(net).values()])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_at_ln_2_and_learns(tmp_path: Path, folder: Any, family: str) -> None:
    steps = fit(tmp_path, module(folder(family)), batches(family, 1), max_epochs=16)
    first, last = steps[0], steps[-1]
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["train/rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert first["train/drift/chosen"] == pytest.approx(0, abs=1e-6)
    assert last["train/loss"] < 0.6
    assert last["train/rewards/accuracies"] == 1
    assert last["train/rewards/margins"] == pytest.approx(
        last["train/rewards/chosen"] - last["train/rewards/rejected"], abs=1e-6
    )


@pytest.mark.parametrize("fixture", ["idefics3_folder", "smolvlm_folder"])
def test_trl_computes_the_same(tmp_path: Path, fixture: str, vlm_examples: Any, request: pytest.FixtureRequest) -> None:
    """Same examples, weights and moved adapters; pictures of one to five tiles, one or two an example; every loss."""
    model, examples = str(request.getfixturevalue(fixture)), read_examples(vlm_examples("preference"))
    peer = trl_trainer(tmp_path, model, examples, loss_type=["sigmoid"], beta=0.5)
    net = module(model, adapter=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    net.configure_model()
    torch.manual_seed(0)
    moved = {name: 0.1 * torch.randn_like(value) for name, value in get_peft_model_state_dict(net.net).items()}
    for one in (net.net, peer.model):
        assert not set_peft_model_state_dict(one, moved).unexpected_keys
    theirs = peer.data_collator([copy.deepcopy(example) for example in peer.examples[:5]])
    peer.model.eval()

    @torch.no_grad()
    def of_trl(inputs: dict[str, Any], loss: list[str], weights: list[float], smoothing: float = 0.0) -> float:
        peer.loss_types, peer.loss_weights, peer.label_smoothing = loss, weights, smoothing
        return peer.compute_loss(peer.model, peer._prepare_inputs(dict(inputs))).item()

    wanted = of_trl(theirs, ["sigmoid"], [1.0])
    metrics = {name: values[0] for name, values in peer._metrics["eval"].items()}
    assert abs(metrics["rewards/margins"]) > 1e-3

    encoder = ChatEncoder(net.processor, preference=True)
    mine = encoder.inputs([encoder.encode(example) for example in examples[:5]])
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(mine[name], theirs[name])
    assert torch.equal(mine["labels"] != -100, theirs["completion_mask"].bool())
    with torch.no_grad():
        losses, found = net.compare({"inputs": mine})
    assert losses.losses.mean().item() == pytest.approx(wanted, abs=1e-5)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        assert found[name].mean().item() == pytest.approx(metrics[name], abs=1e-5)
    for loss, kind in LOSSES.items():
        net.loss, net.label_smoothing = loss, 0.2 * (kind.smoothed and loss != "sigmoid")  # TRL's sigmoid reads none
        with torch.no_grad():
            losses, found = net.compare({"inputs": mine})
        got = losses.losses.mean().item()
        assert got == pytest.approx(of_trl(theirs, [loss], [1.0], net.label_smoothing), abs=1e-5), loss
        for name in ("rewards/margins", "rewards/accuracies"):  # sums over tokens, whatever the loss
            assert found[name].mean().item() == pytest.approx(peer._metrics["eval"][name][-1], abs=1e-5), loss
    net.loss, net.label_smoothing, net.rpo_alpha = "sigmoid", 0.0, 0.3
    alone = encoder.inputs([encoder.encode(examples[3])])  # TRL's SFT term is a mean over all tokens of a batch
    with torch.no_grad():
        got = net.compare({"inputs": alone})[0].losses.item()
    one = peer.data_collator([copy.deepcopy(peer.examples[3])])
    assert got == pytest.approx(of_trl(one, ["sigmoid", "sft"], [1.0, 0.3]), abs=1e-5)
    net.rpo_alpha = 0.0
    dropped = {**mine, "pixel_values": 0.5 * mine["pixel_values"].sign()}
    with torch.no_grad():
        assert abs(net.compare({"inputs": dropped})[0].losses.mean().item() - wanted) > 1e-4  # the image counts


def trl_trainer(tmp_path: Path, model: str, examples: list[Example], **options: Any) -> Any:
    """TRL's trainer of the same adapters; ``examples`` of it are the examples in TRL's shape."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    pictures = [[Image.open(image) for image in example.images] for example in examples]
    converted = [
        {
            "images": images,
            "prompt": [{"role": "user", "content": example.prompt[0]["content"][-1]["text"]}],
            "chosen": [{"role": "assistant", "content": example.completion}],
            "rejected": [{"role": "assistant", "content": example.rejected}],
        }
        for example, images in zip(examples, pictures, strict=True)
    ]
    quiet = {"report_to": "none", "use_cpu": True, "bf16": False, "activation_checkpointing": False}
    peer = trl.DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model),
        args=trl.DPOConfig(output_dir=str(tmp_path), max_length=None, **quiet, **options),
        train_dataset=datasets.Dataset.from_list(converted),
        processing_class=AutoProcessor.from_pretrained(model),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=r".*text_model.*(q_proj|v_proj)"),
    )
    peer.examples = converted
    return peer


@pytest.mark.parametrize("adapter", [LoraConfig(), IA3, OFTConfig(oft_block_size=8), None])
def test_the_reference_stays_bit_by_bit(tmp_path: Path, folder: Any, adapter: PeftConfig | None) -> None:
    net, data = module(folder("smolvlm"), adapter=adapter), batches("smolvlm", 1)
    options = {"cache_reference": False}
    before = module(folder("smolvlm"), adapter=adapter, **options)
    trainer(tmp_path).validate(before, DataLoader(data, batch_size=None), verbose=False)
    reference = before._reference(data[0], data[0]["inputs"])
    fit(tmp_path, net, data, max_epochs=3)
    net.kept = None
    after = net._reference(data[0], data[0]["inputs"])
    assert torch.equal(after, reference)
    base = dict(frozen("smolvlm").named_parameters())
    holder = net.net.get_base_model() if adapter else net.reference_net
    stored = {
        name.replace(".base_layer", ""): value for name, value in holder.named_parameters() if ".default" not in name
    }
    assert stored.keys() == base.keys()
    assert all(torch.equal(stored[name], base[name]) for name in base)
    assert not any(value.requires_grad for value in stored.values())
    assert (learnt(net) - learnt(before)).abs().max() > 1e-4
    assert all(value.grad is None for value in stored.values())


class Counted:
    """How often a module ran."""

    def __init__(self, part: nn.Module) -> None:
        self.runs = 0
        part.register_forward_pre_hook(self._count)

    def _count(self, *args: Any) -> None:
        self.runs += 1


def counted(net: VLMDPO) -> tuple[Counted, Counted]:
    """Counters of the vision tower and the text model."""
    net.configure_model()
    body = net.net.get_base_model().model
    return Counted(body.vision_model), Counted(body.text_model)


def test_kept_is_live_and_runs_once(tmp_path: Path, folder: Any) -> None:
    data = batches("idefics3")  # 2 batches, 2 epochs
    live = module(folder("idefics3"), cache_reference=False, cache_vision=False)
    tower, text = counted(live)
    wanted = fit(tmp_path, live, data)
    assert (tower.runs, text.runs) == (4, 8)  # the tower once a step for policy and reference
    first = module(folder("idefics3"))
    tower, text = counted(first)
    got = fit(tmp_path, first, data)
    assert (tower.runs, text.runs) == (2, 6)  # tower and reference in the first epoch only
    torch.testing.assert_close(learnt(first), learnt(live), atol=1e-6, rtol=0)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    sweep = module(folder("idefics3"), beta=0.1, seed=4, loss="ipo", adapter=LoraConfig(r=2))
    tower, text = counted(sweep)
    fit(tmp_path, sweep, data)
    assert (tower.runs, text.runs) == (0, 4)  # another beta, seed, loss and rank: the policy alone


def test_full_tuning_keeps_no_second_model_where_the_reference_is_kept(
    tmp_path: Path, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, first = batches("smolvlm", 1), module(folder("smolvlm"), adapter=None)
    wanted = fit(tmp_path, first, data)
    loaded: list[Any] = []
    monkeypatch.setattr(dpo, "load_base", lambda *args, **options: loaded.append(1) or load_base(*args, **options))
    second = module(folder("smolvlm"), adapter=None)
    assert fit(tmp_path, second, data) == wanted
    assert (len(loaded), second._base_net) == (1, [])  # its weights name the entry
    fit(tmp_path, second, batches("smolvlm"), max_epochs=1)  # a batch that is not kept
    assert len(second._base_net) == 1


def test_no_step_is_logged_at_every_0_steps(tmp_path: Path, folder: Any) -> None:
    (step,) = fit(tmp_path, module(folder("smolvlm")), batches("smolvlm", 1), max_epochs=1, log_every_n_steps=0)
    assert "train/loss" in step
    assert "train/rewards/accuracies" not in step


def test_a_step_runs_the_prompt_once_a_pair(tmp_path: Path, folder: Any) -> None:
    net = module(folder("idefics3"))
    net.configure_model()
    examples: list[int] = []
    net.net.get_base_model().model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: examples.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    fit(tmp_path, net, batches("idefics3", 1), max_epochs=1)
    assert examples == [2, 2]  # two pairs: reference and policy


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_of_a_frozen_tower_is_off_also_where_nothing_is_kept(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, family: str
) -> None:
    model, (data,) = str(tmp_path_factory.mktemp(family)), batches(family, 1)
    frozen(family, attention_dropout=0.5).save_pretrained(model)
    live, kept = module(model, cache_vision=False), module(model)
    got, wanted = (fit(tmp_path, net, [data], max_epochs=1) for net in (live, kept))
    assert live.training
    assert live.net.training
    assert got[0] == pytest.approx(wanted[0], abs=1e-5)


def test_a_reference_that_validation_needed_first_serves_training(tmp_path: Path, folder: Any) -> None:
    data, net = batches("smolvlm", 1), module(folder("smolvlm"), adapter=None)
    loader = DataLoader(data, batch_size=None)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=1).fit(net, loader, loader)
    alone = module(folder("smolvlm"), adapter=None)
    fit(tmp_path, alone, data, max_epochs=1)
    torch.testing.assert_close(learnt(net), learnt(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_learn_what_one_batch_learns(tmp_path: Path, folder: Any, family: str) -> None:
    (whole,) = batches(family, 1)
    once, split = module(folder(family)), module(folder(family))
    steps = fit(tmp_path, once, [whole])
    for step, said in zip(steps, fit(tmp_path, split, singles(whole), accumulate_grad_batches=2)[1::2], strict=True):
        assert said == pytest.approx(step, abs=1e-5)  # a logger is told of the whole window
    torch.testing.assert_close(learnt(split), learnt(once), atol=1e-6, rtol=0)


def test_a_step_is_the_mean_over_the_pairs_of_its_window(tmp_path: Path, folder: Any) -> None:
    first, second = batches("smolvlm")
    three = [*singles(first), singles(second)[0]]
    net = module(folder("smolvlm"))
    net.configure_model()
    start = learnt(net)
    sum(net.compare(pair)[0].losses.sum() / 3 for pair in three).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in trainable_parameters(net).values()])
    # Two pairs and one: a mean of the micro-batches' means would be another. A window at an epoch's end may be short.
    for data, window in ((three, 3), ([first, three[2]], 2), ([first, three[2]], 5)):
        other = module(folder("smolvlm"))
        fit(tmp_path, other, data, accumulate_grad_batches=window, max_epochs=1)
        torch.testing.assert_close(learnt(other), start - 0.5 * gradient, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, {"freeze_vision": False, "adapter": None}], ids=["lora", "all"])
def test_checkpointing_runs_the_layers_again_and_changes_nothing(
    tmp_path: Path, folder: Any, options: dict[str, Any]
) -> None:
    def tuned(on: bool) -> tuple[VLMDPO, list[int]]:
        live = {"cache_reference": False, "cache_vision": False}  # no run saves another one's work
        net = module(folder("idefics3"), gradient_checkpointing=on, **live, **options)
        net.configure_model()
        body = plain_model(net.net).model
        # Checkpointing is inside of a layer's hooks, so a part of the layer is counted.
        parts = [Counted(layer.mlp) for layer in (*body.text_model.layers, *body.vision_model.encoder.layers)]
        fit(tmp_path, net, batches("idefics3"), max_epochs=1)
        return net, [part.runs for part in parts]

    (plain, once), (checkpointed, again) = tuned(False), tuned(True)
    torch.testing.assert_close(learnt(checkpointed), learnt(plain), atol=1e-6, rtol=0)
    backward = [2, 2, 2, 2] if options else [2, 2, 0, 0]  # two batches; a frozen tower has no backward pass
    assert [count - before for count, before in zip(again, once, strict=True)] == backward


def test_a_vision_tower_that_learns_gets_gradients_from_both_answers(tmp_path: Path, folder: Any) -> None:
    net = module(folder("smolvlm"), adapter=None, freeze_vision=False, optimizer=torch.optim.AdamW)
    data = batches("smolvlm", 1)
    steps = fit(tmp_path, net, data, max_epochs=3)
    assert steps[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert steps[-1]["train/loss"] < steps[0]["train/loss"]
    start, end = (part.model.vision_model.embeddings.patch_embedding.weight for part in (frozen("smolvlm"), net.net))
    assert not torch.equal(start, end)


def test_evaluation_is_preference_accuracy(tmp_path: Path, folder: Any) -> None:
    net, data = module(folder("smolvlm")), batches("smolvlm", 1)
    fit(tmp_path, net, data, max_epochs=6)
    loader = DataLoader(data, batch_size=None)
    run = trainer(tmp_path)
    (figures,) = run.test(net, loader, verbose=False)
    (examples,) = run.predict(net, loader)
    assert examples["id"] == ["0a", "0b"]
    assert examples["label"] == ["chosen", "chosen"]
    assert figures["test/rewards/accuracies"] == examples["prediction"].count("chosen") / 2
    assert set(examples["columns"]) == {"logps_chosen", "logps_rejected", "drift_chosen", "drift_rejected"}
    assert figures["test/rewards/margins"] == pytest.approx(examples["score"].mean().item(), abs=1e-6)
    assert net.score_name == "log_odds:chosen"
    drift = sum(map(float, examples["columns"]["drift_chosen"])) / 2
    assert figures["test/drift/chosen"] == pytest.approx(drift, abs=1e-5)
    swapped = copy.deepcopy(data)
    swapped[0]["inputs"] |= {
        name: torch.cat(value.chunk(2)[::-1]) for name, value in data[0]["inputs"].items() if "pixel" not in name
    }
    (other,) = run.predict(net, DataLoader(swapped, batch_size=None))
    torch.testing.assert_close(other["score"], -examples["score"], atol=1e-5, rtol=0)


def test_before_training_every_pair_is_a_tie_and_the_accuracy_that_of_chance(tmp_path: Path, folder: Any) -> None:
    net, loader = module(folder("smolvlm")), DataLoader(batches("smolvlm", 1), batch_size=None)
    run = L.Trainer(default_root_dir=tmp_path, logger=False, callbacks=[RunRecorder()], enable_progress_bar=False)
    (figures,) = run.test(net, loader, verbose=False)
    assert figures["test/rewards/accuracies"] == 0.5
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["splits"]["test"] == {"n": 2, "correct": 0, "ties": 2, "accuracy": 0.5}
    table = pandas.read_csv(tmp_path / "predictions-test.tsv", sep="\t")
    assert table.prediction.tolist() == ["tie", "tie"]
    assert table["log_odds:chosen"].tolist() == table.drift_chosen.tolist() == table.drift_rejected.tolist() == [0, 0]
    (report,) = evaluate([tmp_path / "predictions-test.tsv"]).reports
    assert (report.outcomes.accuracy, report.outcomes.p, report.means["margin"]) == (0.5, 1.0, (0.0, None))


def test_a_tuned_model_that_is_loaded_keeps_its_reference(tmp_path: Path, folder: Any) -> None:
    data = DataLoader(batches("smolvlm", 1), batch_size=None)
    for adapter in (LoraConfig(), None):
        net, run = module(folder("smolvlm"), adapter=adapter), trainer(tmp_path)
        run.fit(net, data)
        run.save_checkpoint(tmp_path / "dpo.ckpt")
        wanted = run.test(net, data, verbose=False)
        loaded = VLMDPO.load(tmp_path / "dpo.ckpt")
        with torch.no_grad():  # without a trainer too
            margin = loaded.compare(batches("smolvlm", 1)[0])[1]["rewards/margins"].mean().item()
        assert margin == pytest.approx(wanted[0]["test/rewards/margins"], abs=1e-5)
        assert (loaded.beta, loaded.adapter is None) == (0.5, adapter is None)
        assert trainer(tmp_path).test(loaded, data, verbose=False) == wanted
        assert abs(wanted[0]["test/rewards/margins"]) > 1e-3


@pytest.mark.parametrize("options", [{"init_lora_weights": "pissa"}, {"bias": "all"}])
def test_an_adapter_without_which_the_base_is_another_is_refused(folder: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="adapter: changes weights of the base model, which is the reference"):
        module(folder("smolvlm"), adapter=LoraConfig(**options)).configure_model()


def test_an_adapter_to_go_on_from_is_refused_since_no_reference_has_it(folder: Any, tmp_path: Path) -> None:
    LoraConfig(r=2).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="adapter: the reference would be the base model without this adapter"):
        module(folder("smolvlm"), adapter=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"beta": 0.0}, "beta"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        VLMDPO(base_model="anything", **options)


@pytest.mark.parametrize("family", ["idefics3", "paligemma", "gemma3", "qwen3_vl"])
def test_the_image_term_compares_with_images_without_content(tmp_path: Path, folder: Any, family: str) -> None:
    """Cached and live, against a forward pass with the mean of each example's vectors."""
    (data,) = batches(family, 1)
    net = module(folder(family), image_weight=0.7, anchor_weight=0.2)
    net.configure_model()
    for parameter in trainable_parameters(net).values():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        losses, metrics = net.compare(data)
        net.image_weight = net.anchor_weight = 0.0
        plain, own = net.compare(data)[0].losses, net.compare(data)[1]["drift/chosen"]
        policy, reference = corrupted_log_probs(net.net, data["inputs"]), None
        with net.net.disable_adapter():
            reference = corrupted_log_probs(net.net, data["inputs"])
    margin = 0.5 * (own - policy + reference)
    assert margin.abs().min() > 1e-5
    torch.testing.assert_close(metrics["image/margins"], margin, atol=1e-5, rtol=0)
    log_s = torch.nn.functional.logsigmoid
    torch.testing.assert_close(losses.losses, plain - 0.7 * log_s(margin) - 0.2 * log_s(0.5 * own), atol=1e-5, rtol=0)
    live = fit(tmp_path / "live", module(folder(family), image_weight=0.7, cache_reference=False), [data])
    kept = fit(tmp_path / "kept", module(folder(family), image_weight=0.7), [data])
    again = fit(tmp_path / "again", module(folder(family), image_weight=0.7), [data])
    for found in (kept, again):
        assert found[-1] == pytest.approx(live[-1], abs=1e-5)


def test_an_image_without_content_is_the_same_wherever_its_content_was(folder: Any) -> None:
    net, inputs = frozen("paligemma"), pairs("paligemma")
    before = corrupted_log_probs(net, inputs)
    assert before.shape == (2,)
    features = with_features(net, inputs)
    moved = {**features, FEATURES: features[FEATURES].unflatten(0, (2, -1)).flip(1).flatten(0, 1)}
    torch.testing.assert_close(corrupted_log_probs(net, moved), before, atol=1e-5, rtol=0)
    text = {**{name: inputs[name] for name in TEXT & inputs.keys()}}
    text["input_ids"] = text["input_ids"].masked_fill(text["input_ids"] == IMAGE, 9)
    net = module(folder("paligemma"), image_weight=1.0)
    net.configure_model()
    with torch.no_grad():
        with_term, alone = net.compare({"inputs": text})[0].losses, torch.full((2,), math.log(2))
    torch.testing.assert_close(with_term, alone)  # there is no image to look at


def test_without_a_reference_there_is_no_drift(tmp_path: Path, folder: Any) -> None:
    net, (data,) = module(folder("smolvlm"), reference_free=True, loss="sigmoid_norm", beta=2.0), batches("smolvlm", 1)
    steps = fit(tmp_path, net, [data], max_epochs=8)
    assert net.kept is None
    assert "train/drift/chosen" not in steps[-1]
    assert steps[-1]["train/loss"] < steps[0]["train/loss"]
    with torch.no_grad():
        losses, metrics = net.eval().compare(data)
    tokens = (data["inputs"]["labels"] != -100).sum(1)
    a_token = torch.cat([metrics["logps/chosen"], metrics["logps/rejected"]]) / tokens
    margin = 2.0 * (a_token[:2] - a_token[2:])
    torch.testing.assert_close(losses.losses, -torch.nn.functional.logsigmoid(margin), atol=1e-5, rtol=0)
    trainer(tmp_path, callbacks=[RunRecorder()]).test(net, DataLoader([data], batch_size=None), verbose=False)
    assert "drift_chosen" not in pandas.read_csv(tmp_path / "predictions-test.tsv", sep="\t").columns


@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl", "llava_onevision"])
def test_with_the_image_term_a_tower_that_learns_runs_once_a_model(tmp_path: Path, folder: Any, family: str) -> None:
    net = module(folder(family), adapter=None, freeze_vision=False, image_weight=1.0, cache_reference=False)
    net.configure_model()
    towers = [getattr(one.model, VISION_FAMILIES[family].parts[0]) for one in (net.net, net.reference_net)]
    runs = [Counted(tower) for tower in towers]
    steps = fit(tmp_path, net, batches(family), max_epochs=2)
    assert [one.runs for one in runs] == [4, 4]  # two batches twice, of the policy and of the reference
    assert steps[-1]["train/image/margins"] != 0


def test_margins_of_images_are_those_of_pairs_with_images(tmp_path: Path, folder: Any) -> None:
    first, second = batches("smolvlm")
    shown, blind = (singles(batch)[0] for batch in (first, second))
    text = {name: value for name, value in blind["inputs"].items() if name in TEXT}
    text["input_ids"] = text["input_ids"].masked_fill(text["input_ids"] == IMAGE, 9)
    options = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1e-12), "image_weight": 1.0}
    data = [shown, {**blind, "inputs": text}]
    net = module(folder("smolvlm"), **options)
    net.configure_model()
    for parameter in trainable_parameters(net).values():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        (wanted,), (none,) = (net.compare(one)[1]["image/margins"].tolist() for one in data)
    assert abs(wanted) > 1e-3
    assert math.isnan(none)
    window = fit(tmp_path, net, data, max_epochs=1, accumulate_grad_batches=2)[-1]
    assert window["train/image/margins"] == pytest.approx(wanted, abs=1e-5)
    (figures,) = trainer(tmp_path).test(net, DataLoader(data, batch_size=None), verbose=False)
    assert figures["test/image/margins"] == pytest.approx(wanted, abs=1e-5)


def test_falling_chosen_answers_are_told_of(tmp_path: Path, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, data = module(folder("smolvlm"), optimizer=lambda p: torch.optim.SGD(p, lr=1e-9)), batches("smolvlm", 2)
    compare = VLMDPO.compare

    def falling(self: VLMDPO, batch: dict[str, Any]) -> Any:
        losses, metrics = compare(self, batch)
        return losses, {**metrics, "drift/chosen": metrics["drift/chosen"] - 3}

    fit(tmp_path, net, data, max_epochs=1)  # nothing falls
    monkeypatch.setattr(VLMDPO, "compare", falling)
    with pytest.warns(UserWarning, match="the chosen answers are 3 nats less likely than under the reference"):
        fit(tmp_path, net, data, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"loss": "dpo"}, "loss: no such loss .*sigmoid_norm"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing: applies to sigmoid, robust, exo_pair only"),
        ({"loss": "exo_pair"}, "label_smoothing: must be above 0"),
        ({"rpo_alpha": -1.0}, "rpo_alpha: must be"),
        ({"reference_free": True, "image_weight": 1.0}, "reference_free: mDPO's terms compare with the reference"),
    ],
)
def test_losses_that_cannot_be_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        VLMDPO(base_model="x", **options)
