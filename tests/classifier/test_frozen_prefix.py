"""Training and evaluation on kept outputs of the frozen part, against computing everything in every step."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel
from watched_runs import CACHED, SETTINGS, Messages, Watched, assert_same, classifier, entries, run, trainer

from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models.backbone import Backbone
from ftkit.models.network import SequenceClassifier
from ftkit.training.feature_file import Features
from ftkit.training.feature_store import FeatureStore
from ftkit.training.frozen_prefix import FrozenPrefix
from memory_held import Held

pytestmark = pytest.mark.usefixtures("cache")
WINDOW = 8  # messages of one step


@pytest.mark.parametrize("name", SETTINGS)
def test_cached_is_uncached(name: str, folder: Path) -> None:
    model, data = SETTINGS[name]
    cached, plain = (run(folder, Messages(**data), cache_frozen=switch, **model) for switch in (True, False))
    assert set(plain.attached) == {False}
    assert set(cached.attached) == {name in CACHED}
    assert len(plain.losses) >= 12
    assert max(plain.losses) - min(plain.losses) > 1e-2
    assert_same(cached, plain)


@pytest.mark.slow
def test_every_setting_shares_one_store(folder: Path) -> None:
    """All of them one after the other: an entry taken for another's would show."""
    for name in CACHED:
        model, data = SETTINGS[name]
        assert_same(run(folder, Messages(**data), **model), run(folder, Messages(**data), cache_frozen=False, **model))


@pytest.mark.parametrize("trainable", ["last_block", "last_two_blocks"])
def test_accumulated_messages_without_padding_make_the_same_steps(
    trainable: str, folder: Path, messages_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 15: cached, computed, and computed one by one; of the last block the messages of a step come together."""

    def row(cached: bool) -> Watched:
        data = SpamDataModule(str(messages_file), split="balanced", padding="none", batch_size=1, seed=5)
        return run(folder, data, accumulate=WINDOW, trainable=trainable, cache_frozen=cached)

    cached, plain = row(True), row(False)
    monkeypatch.setattr(SpamDataModule, "join_steps", lambda *args: None)
    single = row(False)
    assert (set(cached.attached), set(plain.attached), set(single.attached)) == ({True}, {False}, {False})
    joined, messages = trainable == "last_block", 33
    assert len(single.losses) == 2 * messages
    assert len(cached.losses) == 2 * (-(-messages // WINDOW) if joined else messages)
    assert_same(cached, plain)
    steps = [sum(window) / WINDOW for part in split(single.losses, messages) for window in split(part, WINDOW)]
    if joined:
        torch.testing.assert_close(torch.tensor(cached.losses), torch.tensor(steps), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat(cached.logits), torch.cat(single.logits), atol=5e-6, rtol=0)
    assert max(steps) - min(steps) > 1e-2


def split(values: list[float], size: int) -> list[list[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


# What is shared


def test_one_computation_serves_the_rows_that_differ_behind_it(folder: Path, cache: Path) -> None:
    run(folder, Messages())
    kept = entries(cache)
    assert len(kept) == 3  # train, validation and test
    for arguments in ({"pooling": "first"}, {"pooling": "last_real"}, {"pooling": "mean"}, {"seed": 4}):
        run(folder, Messages(), **arguments)
    run(folder, Messages(padded=False, batch_size=1))
    run(folder, Messages(padded=False), pooling="last_real")
    run(folder, Messages(), pooling="last_real", mask_padding=True)
    assert entries(cache) == kept


def test_only_real_tokens_are_kept_where_nothing_else_is_read(folder: Path, cache: Path) -> None:
    data = Messages()
    run(folder, data, pooling="last_real")
    sizes = sorted(load_file(path)["rows"].nbytes for path in cache.glob("*.safetensors"))
    width = AutoConfig.from_pretrained(folder).hidden_size
    assert sizes == sorted(int(dataset.length.sum()) * width * 4 for dataset in data.datasets.values())


def test_a_deeper_entry_goes_on_from_a_shallower_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, Messages(), trainable="last_two_blocks")
    ran = blocks_run(monkeypatch)
    run(folder, Messages(), trainable="last_block")
    last = blocks_of(folder) - 1
    assert set(ran) == {last - 1, last}  # one more frozen block, and the one that learns


def blocks_of(folder: Path) -> int:
    return AutoConfig.from_pretrained(folder).num_hidden_layers


def blocks_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the number of every block whose MLP runs from now on, in models made from now on."""
    ran: list[int] = []
    build = SequenceClassifier.__init__

    def watched(self: Any, backbone: Any, *arguments: Any) -> None:
        build(self, backbone, *arguments)
        for number, block in enumerate(backbone.blocks):
            block.mlp.register_forward_hook(lambda *call, number=number: ran.append(number))

    monkeypatch.setattr(SequenceClassifier, "__init__", watched)
    return ran


def test_frozen_blocks_run_once_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = blocks_run(monkeypatch)
    run(folder, Messages())
    batches = 6 + 2 + 2  # of 4 messages, of train, validation and test
    assert ran.count(0) == batches
    ran.clear()
    run(folder, Messages(), seed=4)
    assert set(ran) == {blocks_of(folder) - 1}


@pytest.mark.parametrize("cached", [True, False])
def test_however_many_messages_few_batches_are_in_memory(
    cached: bool, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 13 pads to the whole context, so what its batches hold is what it costs."""
    model, data = SETTINGS["13 context"]

    def held(messages: int) -> Held:
        held = Held()
        with monkeypatch.context() as patch:
            for where, method in ((Features, "read"), (SequenceClassifier, "run"), (Backbone, "embed")):
                real = getattr(where, method)
                patch.setattr(where, method, lambda *given, real=real: held.watch(real(*given)))
            run(gpt2_folder, Messages(**data, train=messages), cache_frozen=cached, **model)
        return held

    few, many = held(messages=20), held(messages=100)
    assert many.given - few.given == (
        80 if cached else 40
    )  # 20 batches: embedded and run once, read twice; or embedded twice
    assert many.most == few.most <= 4
    assert many.now <= 2


@pytest.mark.parametrize("trainable", ["last_block", "last_layer"])
def test_features_wait_for_a_gpu_in_pinned_memory(
    trainable: str, gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = classifier(gpt2_folder, trainable=trainable), Messages()
    model.configure_model()
    data.setup("fit")
    prefix = FrozenPrefix(model.net, data.datasets, 4, torch.enable_grad, FeatureStore(tmp_path))
    batch = model.net.trim(next(iter(data.train_dataloader())))
    wanted, pinned = prefix.attach(batch)["features"], []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self.clone())
    prefix.attach(batch)
    assert pinned == []
    monkeypatch.setattr(prefix, "_device", torch.device("cuda"))
    features = prefix.attach(batch)["features"]
    assert len(pinned) == 1
    assert pinned[0] is not features
    assert torch.equal(features, wanted)


# What is not


def change(kind: str, folder: Path, tmp_path: Path) -> tuple[Path, Messages, dict[str, Any]]:
    """A run like the standard one but for one thing that the outputs of the frozen part depend on."""
    data, options = Messages(), standard_options(kind)
    if kind in ("weight", "nf4 scale", "8bit scale"):
        model = AutoModel.from_pretrained(folder)
        with torch.no_grad():
            if kind == "weight":
                inner_matrix(model)[0] += 0.5
            else:  # the integers of a matrix and of its double are the same
                inner_matrix(model).mul_(2)
        model.save_pretrained(folder := tmp_path / "changed")
    elif kind == "norm constant":
        name = {"gpt2": "layer_norm_epsilon", "llama": "rms_norm_eps"}[AutoConfig.from_pretrained(folder).model_type]
        AutoModel.from_pretrained(folder, **{name: 0.5}).save_pretrained(folder := tmp_path / "changed")
    elif kind == "message":
        data = Messages(seed=2)
    elif kind == "width":
        data = Messages(width=13)
    elif kind == "precision":
        options = {"precision": "bf16-mixed"}
    elif kind == "type":
        options = {"precision": "64-true"}
    elif kind == "depth":
        options = {"trainable": "last_two_blocks"}
    elif kind == "causal mask":
        options = {"causal_mask": False}
    elif kind == "padding mask":
        options = {"mask_padding": True}
    return folder, data, options


def inner_matrix(model: Any) -> Tensor:
    """A weight matrix of the MLP of block 1, which is frozen."""
    return next(value for name, value in model.named_parameters() if ".1.mlp." in name and name.endswith("weight"))


def standard_options(kind: str) -> dict[str, Any]:
    """The options of the run that a change is compared with."""
    return {"quantization": kind.split()[0]} if kind.endswith("scale") else {}


CHANGES = (
    "weight", "nf4 scale", "8bit scale", "norm constant", "message", "width", "precision", "type", "depth",
    "causal mask", "padding mask",
)  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_never_hits_a_stale_entry(kind: str, folder: Path, cache: Path, tmp_path: Path) -> None:
    standard = run(folder, Messages(), **standard_options(kind))
    before = entries(cache)
    folder, data, options = change(kind, folder, tmp_path)
    changed = run(folder, data, **options)
    assert len(entries(cache) - before) == 3
    assert all(changed.attached)
    plain = run(folder, data, cache_frozen=False, **options)
    assert_same(changed, plain, atol=1e-3 if kind == "precision" else 1e-6)
    assert (torch.tensor(changed.losses) - torch.tensor(standard.losses)).abs().max() > (
        1e-9 if kind == "type" else 1e-4 if kind in ("precision", "norm constant") else 1e-3
    )


class EndInPadding(Messages):
    """Texts that are the same once they are padded; ``spelt`` ones end in the padding's own token."""

    def __init__(self, spelt: bool) -> None:
        super().__init__()
        self.spelt = spelt

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.spelt:
            for dataset in self.datasets.values():
                dataset.length.add_(1).clamp_(max=self.width)


@pytest.mark.parametrize("pooling", ["last_real", "mean_real"])
def test_what_is_pooled_depends_on_the_length_where_padding_is_a_token_like_others(
    pooling: str, folder: Path, cache: Path
) -> None:
    """Without a causal mask every position is computed; only the pooling tells where a text ends."""
    options = {"trainable": "last_layer", "pooling": pooling, "causal_mask": False}
    shorter = run(folder, EndInPadding(spelt=False), **options)
    before = entries(cache)
    longer = run(folder, EndInPadding(spelt=True), **options)
    assert len(entries(cache) - before) == 3
    assert all(longer.attached)
    assert_same(longer, run(folder, EndInPadding(spelt=True), cache_frozen=False, **options))
    assert (torch.tensor(longer.losses) - torch.tensor(shorter.losses)).abs().max() > 1e-3


def test_another_precision_of_matrix_products_is_another_entry(folder: Path, cache: Path) -> None:
    run(folder, Messages())
    before = entries(cache)
    torch.set_float32_matmul_precision("medium")
    try:
        changed = run(folder, Messages())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(entries(cache) - before) == 3
    assert all(changed.attached)


def test_a_weight_changed_in_place_between_stages_is_seen(folder: Path) -> None:
    model, data = run(folder, Messages()), Messages()
    with torch.no_grad():
        next(model.net.backbone.blocks[0].parameters()).add_(0.5)
    model.logits.clear()
    trainer().test(model, datamodule=data, verbose=False)
    with torch.no_grad():
        wanted = [TextClassifier.forward(model, batch) for batch in data.test_dataloader()]
    torch.testing.assert_close(torch.cat(model.logits), torch.cat(wanted), atol=1e-5, rtol=0)


def test_dropout_in_the_frozen_part_is_drawn_anew(folder: Path, cache: Path) -> None:
    """In a Llama it is no layer of its own but a rate that the attention is told."""
    model = run(folder, Messages(), dropout=0.1)
    assert not any(model.attached)
    assert entries(cache) == set()
    without = run(folder, Messages())
    assert max(abs(a - b) for a, b in zip(model.losses, without.losses, strict=True)) > 1e-3


def fitted(folder: Path, callback: type[L.Callback], cached: bool, **arguments: Any) -> Watched:
    model = classifier(folder, cache_frozen=cached, **arguments)
    trainer(callbacks=[callback()]).fit(model, datamodule=Messages())
    return model


def test_a_block_that_thaws_is_trained_through(folder: Path) -> None:
    class Thaw(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                pl_module.net.backbone.blocks[1].requires_grad_(True)
                trainer.optimizers[0].add_param_group({"params": list(pl_module.net.backbone.blocks[1].parameters())})

    cached, plain = (fitted(folder, Thaw, switch) for switch in (True, False))
    assert cached.attached[0]
    assert not cached.attached[-1]
    torch.testing.assert_close(torch.tensor(cached.losses), torch.tensor(plain.losses), atol=1e-6, rtol=0)


def test_a_block_that_thaws_learns_and_freezes_again_is_not_read_as_it_was(folder: Path) -> None:
    class ThawForAWhile(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.optimizers[0].add_param_group({"params": list(pl_module.net.backbone.blocks[1].parameters())})

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
            pl_module.net.backbone.blocks[1].requires_grad_(trainer.global_step in (2, 3, 4))

    def fused(parameters: Any) -> torch.optim.Optimizer:  # it writes to weights without their noticing
        return torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    cached, plain = (fitted(folder, ThawForAWhile, switch, optimizer=fused) for switch in (True, False))
    assert cached.attached == [True] * 2 + [False] * 10
    torch.testing.assert_close(torch.tensor(cached.losses), torch.tensor(plain.losses), atol=1e-6, rtol=0)


def test_a_weight_changed_in_place_within_a_stage_is_seen(folder: Path) -> None:
    class Nudge(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
            if trainer.global_step == 3:
                with torch.no_grad():
                    next(pl_module.net.backbone.blocks[0].parameters()).add_(0.5)

    cached, plain = (fitted(folder, Nudge, switch) for switch in (True, False))
    assert cached.attached == [True] * 3 + [False] * 9
    torch.testing.assert_close(torch.tensor(cached.losses), torch.tensor(plain.losses), atol=1e-6, rtol=0)


def test_messages_padded_by_their_neighbours_are_not_kept(folder: Path, cache: Path) -> None:
    """What is read then depends on the batch, so there is nothing that could be kept of a message."""
    cached, plain = (run(folder, Messages(padded=False), cache_frozen=switch) for switch in (True, False))
    assert entries(cache) == set()
    assert_same(cached, plain)


def test_a_full_store_is_said_and_everything_computed(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTKIT_FEATURES_GB", "1e-9")
    with pytest.warns(UserWarning, match="FTKIT_FEATURES_GB"):
        model = run(folder, Messages())
    assert not any(model.attached)
    assert entries(cache) == set()
    assert_same(model, run(folder, Messages(), cache_frozen=False))


def test_new_texts_are_computed_whole(folder: Path) -> None:
    model = run(folder, Messages())
    dataset = model.trainer.datamodule.datasets["test"]
    with torch.no_grad():
        whole = TextClassifier.forward(model, dataset.__getitems__(list(range(6))))
    torch.testing.assert_close(torch.cat(model.logits), whole, atol=2e-6, rtol=0)


def test_seconds_count_the_frozen_part_once(folder: Path, tmp_path: Path) -> None:
    model = classifier(folder)
    model.configure_model()
    data = Messages()
    data.setup("fit")
    prefix = FrozenPrefix(model.net, data.datasets, 4, torch.enable_grad, FeatureStore(tmp_path))
    batch = model.net.trim(next(iter(data.train_dataloader())))
    started = time.perf_counter()
    features = prefix.attach(batch)["features"]
    assert 0 < prefix.seconds <= time.perf_counter() - started
    assert not features.requires_grad
    spent = prefix.seconds
    prefix.attach(batch)
    assert prefix.seconds == spent
