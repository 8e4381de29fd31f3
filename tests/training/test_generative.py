"""What both generative wings rely on: steps averaged over tokens, small checkpoints, greedy answers, export."""

import csv
import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftkit.errors import InputError
from ftkit.examples.padding import prompt_batch, supervised_batch
from ftkit.models.base_model import plain_model
from ftkit.models.generation import UNFINISHED
from ftkit.models.losses import IGNORE_INDEX, SupervisedLogProbs
from ftkit.training.checkpoint import read_checkpoint, trainable_parameters
from ftkit.training.generative import GenerativeModule

Example = tuple[list[int], list[int]]
LORA = LoraConfig(r=2, target_modules="all-linear")


def examples(count: int) -> list[Example]:
    """Prompts and answers of ragged lengths; the answer of number i has 1 + (3 i mod 11) tokens."""
    numbers = torch.Generator().manual_seed(0)
    draw = lambda length: torch.randint(0, 256, (length,), generator=numbers).tolist()  # noqa: E731
    return [(draw(2 + i % 5), [*draw(3 * i % 11), 256]) for i in range(count)]


def collate(rows: Sequence[Example]) -> dict[str, Any]:
    return {
        "inputs": supervised_batch(rows, pad_id=0),
        "prompts": prompt_batch([prompt for prompt, _ in rows], pad_id=0),
        "id": [str(prompt) for prompt, _ in rows],
        "answer": ["x" for _ in rows],
        "columns": {"tokens": [str(len(answer)) for _, answer in rows]},
    }


class Tuned(GenerativeModule):
    auto_class = AutoModelForCausalLM

    def __init__(self, shade: int = 1, **options: Any) -> None:
        super().__init__(**{"seed": 0, "max_new_tokens": 5, **options})
        self.shade = shade


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def fit(
    folder: Path,
    module: GenerativeModule,
    rows: Sequence[Example],
    batch_size: int = 1,
    ckpt_path: Any = None,
    **options: Any,
) -> L.Trainer:
    trainer = L.Trainer(
        default_root_dir=folder,
        **{
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


def learnt(module: GenerativeModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainable_parameters(module).values()])


def change(folder: Path, base: Tensor, options: dict[str, Any], *run: Any, **trainer: Any) -> Tensor:
    module = Tuned(optimizer=sgd, **options)
    fit(folder, module, *run, **trainer)
    return learnt(module) - base


@pytest.fixture(scope="module")
def calm_folder(gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 without dropout."""
    folder = tmp_path_factory.mktemp("calm")
    shutil.copytree(gpt2_folder, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def options(calm_folder: Path) -> dict[str, Any]:
    return {"base_model": str(calm_folder), "dtype": "float32"}


@pytest.fixture
def base(options: dict[str, Any]) -> Tensor:
    module = Tuned(**options)
    module.configure_model()
    return learnt(module)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_eight_batches_of_one_learn_what_one_of_eight_learns(
    clip: float | None, options: dict[str, Any], base: Tensor, tmp_path: Path
) -> None:
    """19 rows: two whole windows and one of three. Clipping sees the averaged gradient in both."""
    rows, steps = examples(19), {"gradient_clip_val": clip}
    together = change(tmp_path, base, options, rows, 8, **steps)
    apart = change(tmp_path, base, options, rows, 1, accumulate_grad_batches=8, **steps)
    assert together.norm() > (0.1 * clip if clip else 0.1)
    assert (apart - together).norm() / together.norm() < 1e-5
    if clip:
        assert together.norm() <= 3 * 0.1 * clip * 1.001  # three steps at rate 0.1


def test_a_logger_is_told_the_mean_of_the_step(options: dict[str, Any], tmp_path: Path) -> None:
    def told(name: str, batch_size: int, **trainer: Any) -> list[float]:
        logger = CSVLogger(tmp_path, name)
        every = {"logger": logger, "log_every_n_steps": 1, **trainer}
        fit(tmp_path, Tuned(optimizer=sgd, **options), examples(19), batch_size, **every)
        with Path(logger.log_dir, "metrics.csv").open(newline="") as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file)]

    together = told("together", 8)
    assert len(together) == 3
    assert told("apart", 1, accumulate_grad_batches=8) == pytest.approx(together, abs=1e-4)


def test_the_usual_mean_of_means_is_another_step(
    options: dict[str, Any], base: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(8)
    together = change(tmp_path, base, options, rows, 8)
    monkeypatch.setattr(Tuned, "window_loss", lambda self, total, count: total / count)
    monkeypatch.setattr(Tuned, "on_before_optimizer_step", lambda self, optimizer: None)
    apart = change(tmp_path, base, options, rows, 1, accumulate_grad_batches=8)
    assert (apart - together).norm() / together.norm() > 0.05


def test_a_step_is_the_mean_loss_over_the_tokens_of_its_window(
    options: dict[str, Any], base: Tensor, tmp_path: Path
) -> None:
    """Transformers' own mean over each window as one batch, two steps at rate 0.1 by hand."""
    rows = examples(12)
    module = Tuned(**options)
    module.configure_model()
    for window in (rows[:6], rows[6:]):
        module.zero_grad()
        module.net(**collate(window)["inputs"]).loss.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad  # type: ignore[operator]
    step = change(tmp_path, base, options, rows, 2, accumulate_grad_batches=3)
    torch.testing.assert_close(step, learnt(module) - base, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_are_held_only_until_they_are_used(accumulate: int, options: dict[str, Any], tmp_path: Path) -> None:
    held: list[tuple[str, bool]] = []

    class Watched(Tuned):
        def note(self, where: str) -> None:
            held.append((where, any(parameter.grad is not None for parameter in self.parameters())))

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            self.note(f"batch {batch_idx}")
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            self.note("end of the epoch, before validation")

    fit(tmp_path, Watched(**options), examples(4), accumulate_grad_batches=accumulate)
    within = accumulate > 1  # the second and third batch add to the first one's
    assert held == [
        ("batch 0", False),
        ("batch 1", within),
        ("batch 2", within),
        ("batch 3", False),
        ("end of the epoch, before validation", False),
    ]


def test_gradients_are_divided_only_where_a_step_has_several_micro_batches(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide, divisors = torch._foreach_div_, []

    def counted(gradients: list[Tensor], divisor: float) -> None:
        divisors.append(divisor)
        divide(gradients, divisor)

    monkeypatch.setattr(torch, "_foreach_div_", counted)
    rows = examples(4)
    fit(tmp_path, Tuned(optimizer=sgd, **options), rows)
    assert not divisors
    fit(tmp_path, Tuned(optimizer=sgd, **options), rows, accumulate_grad_batches=2)
    lengths = [len(answer) for _, answer in rows]
    assert divisors == [(lengths[first] + lengths[first + 1]) / lengths[first] for first in (0, 2)]


def test_no_step_waits_for_the_device(
    options: dict[str, Any], tmp_path: Path, reads_of: Callable[[Callable[[], Any]], int]
) -> None:
    class Plain(Tuned):
        def log_probs(self, inputs: dict[str, Tensor]) -> SupervisedLogProbs:
            """Without transformers' network, which looks at each batch to find packed rows."""
            return SupervisedLogProbs(learnt(self)[:3] * next(self.parameters()).sum(), torch.zeros(3))

    def reads(steps: int) -> int:
        module, rows = Plain(optimizer=sgd, **options), examples(4 * steps)
        return reads_of(lambda: fit(tmp_path, module, rows, 1, accumulate_grad_batches=4))

    assert reads(2) == reads(1)


def test_a_window_without_supervised_tokens_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    class Blank(Tuned):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            if batch_idx >= 2:
                batch["inputs"]["labels"] = torch.full_like(batch["inputs"]["labels"], IGNORE_INDEX)
            return super().training_step(batch, batch_idx)

    with pytest.raises(InputError, match=r"no supervised token in the batches of a step.*step 1"):
        fit(tmp_path, Blank(**options), examples(4), accumulate_grad_batches=2)
    fit(tmp_path, Blank(**options), examples(4), accumulate_grad_batches=4)  # two of four have some


def test_the_logged_loss_is_a_mean_over_the_tokens_of_the_epoch(options: dict[str, Any], tmp_path: Path) -> None:
    rows = examples(5)
    module = Tuned(**options, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-12))
    trainer = fit(tmp_path, module, rows, 2)
    module.eval()
    total = sum(-module.log_probs(collate([row])["inputs"]).log_probs.sum().item() for row in rows)
    assert trainer.validate(module, DataLoader(rows, 2, collate_fn=collate), verbose=False)[0][  # type: ignore[arg-type]
        "val/loss"
    ] == pytest.approx(total / sum(len(answer) for _, answer in rows), rel=1e-5)


def _fit_on_two(rank: int, folder: Path, port: int, options: dict[str, Any], rows: list[Example]) -> None:
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0")
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    module = Tuned(optimizer=sgd, **options)
    strategy = L.pytorch.strategies.DDPStrategy(process_group_backend="gloo")
    own = {"devices": 2, "strategy": strategy, "use_distributed_sampler": False}  # Lightning's would shuffle
    fit(folder, module, rows[rank::2], 1, accumulate_grad_batches=2, **own)
    if rank == 0:
        torch.save(learnt(module), folder / "learnt.pt")


def test_two_processes_learn_what_one_learns(options: dict[str, Any], base: Tensor, tmp_path: Path) -> None:
    """Each process has other tokens: 2 processes x 2 micro-batches of 1 are a batch of 4."""
    rows = examples(8)
    together = change(tmp_path, base, options, rows, 4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_fit_on_two, (tmp_path, port, options, rows), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]
    assert (torch.load(tmp_path / "learnt.pt") - base - together).norm() / together.norm() < 1e-5


@pytest.mark.parametrize("quantization", [None, "nf4", "8bit"])
def test_a_checkpoint_holds_the_adapters_and_a_resumed_run_ends_the_same(quantization: Any, tmp_path: Path) -> None:
    options = {"base_model": "demo", "quantization": quantization, "dtype": "float32", "adapter": LORA}
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)  # noqa: E731
    rows = examples(6)
    keep = {
        "enable_checkpointing": True,
        "callbacks": [ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_epochs=1)],
    }
    whole = Tuned(**options, optimizer=optimizer)
    fit(tmp_path, whole, rows, 3, max_epochs=2, **keep)
    stored = read_checkpoint(tmp_path / "step=2.ckpt")["state_dict"]
    assert len(stored) == 4 * 4 * 2
    assert all("lora_" in name for name in stored)
    resumed = Tuned(**options, optimizer=optimizer)
    fit(tmp_path, resumed, rows, 3, max_epochs=2, ckpt_path=tmp_path / "step=2.ckpt")
    torch.testing.assert_close(learnt(resumed), learnt(whole), rtol=1e-5, atol=1e-7)
    loaded = Tuned.load(tmp_path / "step=4.ckpt")
    assert not loaded.net.training
    assert torch.equal(learnt(loaded), learnt(whole))
    assert (loaded.quantization, loaded.shade) == (quantization, 1)
    with torch.no_grad():
        inputs = collate(rows)["inputs"]
        torch.testing.assert_close(loaded.log_probs(inputs).log_probs, whole.eval().log_probs(inputs).log_probs)


def test_a_checkpoint_of_another_base_is_refused(tmp_path: Path) -> None:
    module = Tuned(base_model="demo", adapter=LORA)
    fit(tmp_path, module, examples(2), 2).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="another base"):
        Tuned.load(tmp_path / "a.ckpt", base_model="demo-medium")
    with pytest.raises(InputError, match="does not fit the model"):
        Tuned.load(tmp_path / "a.ckpt", adapter=LoraConfig(r=4, target_modules="all-linear"))


def test_no_answer_has_no_tokens() -> None:
    with pytest.raises(InputError, match="max_new_tokens: must be at least 1"):
        Tuned(base_model="demo", max_new_tokens=0)


def test_all_weights_learn_in_float32_and_adapters_leave_the_base_as_it_is(tmp_path: Path) -> None:
    full, adapted = Tuned(base_model="demo"), Tuned(base_model="demo", adapter=LORA)
    full.configure_model()
    adapted.configure_model()
    assert {parameter.dtype for parameter in full.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in adapted.parameters()} == {torch.bfloat16, torch.float32}
    assert {parameter.dtype for parameter in trainable_parameters(adapted).values()} == {torch.float32}


def test_the_global_random_state_is_left_alone_and_the_seed_decides(options: dict[str, Any]) -> None:
    def built(seed: int) -> Tensor:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        module = Tuned(**{**options, "adapter": LORA})
        module.configure_model()
        assert torch.equal(torch.get_rng_state(), before)
        return learnt(module)

    assert torch.equal(built(1), built(2))


def test_dropout_works_in_training(gpt2_folder: Path, tmp_path: Path) -> None:
    """Transformers loads in evaluation mode, and Lightning keeps what it finds."""

    class Watched(Tuned):
        modes: list[bool]

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            self.modes.append(all(part.training for part in self.net.modules()))
            return super().training_step(batch, batch_idx)

    module = Watched(base_model=str(gpt2_folder))
    module.modes = []
    fit(tmp_path, module, examples(3))
    assert module.modes == [True] * 3
    inputs = collate(examples(3))["inputs"]
    assert not torch.equal(module.log_probs(inputs).log_probs, module.log_probs(inputs).log_probs)


def test_greedy_answers_of_a_batch_are_those_of_single_prompts(options: dict[str, Any]) -> None:
    module = Tuned(**{**options, "max_new_tokens": 8}).eval()
    module.configure_model()
    module.net.eval()
    prompts = [prompt for prompt, _ in examples(7)]
    together = module.generate(prompt_batch(prompts, pad_id=0))
    single = [module.generate(prompt_batch([prompt], pad_id=0)) for prompt in prompts]
    assert together.texts == [answers.texts[0] for answers in single]
    assert len(set(together.texts)) > 1


def test_answers_are_greedy_whatever_the_checkpoint_recommends(options: dict[str, Any]) -> None:
    module = Tuned(**{**options, "max_new_tokens": 12}).eval()
    module.configure_model()
    prompts = prompt_batch([prompt for prompt, _ in examples(4)], pad_id=0)
    wanted = module.generate(prompts).texts
    recommended = plain_model(module.net).generation_config
    recommended.update(repetition_penalty=1.5, no_repeat_ngram_size=1, min_length=40)  # Qwen2.5-Instruct sets the first
    assert module.generate(prompts).texts == wanted


def test_an_answer_ends_at_its_end_token_or_is_marked(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = Tuned(**options).eval()
    module.configure_model()
    ids = module.tokenizer("42").input_ids
    written = torch.tensor([[9, 9, *ids, 256, 0, 0], [9, 9, 256, 0, 0, 0, 0], [9, 9, *ids, *ids, ids[0]]])
    monkeypatch.setattr(module.net, "generate", lambda **inputs: SimpleNamespace(sequences=written))
    answers = module.generate({"input_ids": written[:, :2]})
    assert answers[:2] == (["42", "", f"42424{UNFINISHED}"], [True, True, False])


def test_predictions_are_texts_with_the_rows_columns(options: dict[str, Any]) -> None:
    module = Tuned(**options).eval()
    module.configure_model()
    batch = collate(examples(3))
    found = module.predictions(batch)
    assert (found["id"], found["label"]) == (batch["id"], ["x"] * 3)
    assert found["columns"].keys() == {"tokens", "stopped"}
    del batch["prompts"]
    assert module.predictions(batch) == {}


def test_exported_and_reloaded_is_the_same_model(tmp_path: Path) -> None:
    module = Tuned(base_model="demo", dtype="float32", adapter=LoraConfig(r=2, target_modules=["c_attn", "lm_head"]))
    fit(tmp_path, module, examples(4), 2)
    module.eval()
    for name, parameter in trainable_parameters(module).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    module.export(tmp_path / "adapter")
    module.export(tmp_path / "merged", merge=True)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not list((tmp_path / "adapter").glob("model*"))
    base = Tuned(base_model="demo", dtype="float32")
    base.configure_model()
    inputs = {"input_ids": torch.arange(50).view(2, 25)}
    with torch.no_grad():
        expected = module.net(**inputs).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        adapted = PeftModel.from_pretrained(base.net, tmp_path / "adapter").eval()
        torch.testing.assert_close(adapted(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
    for folder in ("adapter", "merged"):
        assert (
            AutoTokenizer.from_pretrained(tmp_path / folder)("1 + 1").input_ids == module.tokenizer("1 + 1").input_ids
        )


@pytest.mark.parametrize(("interval", "times"), [("step", 6), ("epoch", 2)])
def test_a_scheduler_is_stepped_at_its_interval(
    interval: Any, times: int, options: dict[str, Any], tmp_path: Path
) -> None:
    module = Tuned(
        **options,
        optimizer=sgd,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5),
        scheduler_interval=interval,
    )
    trainer = fit(tmp_path, module, examples(6), 1, accumulate_grad_batches=2, max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**times)


def test_lightnings_finder_sets_the_learning_rate(options: dict[str, Any], tmp_path: Path) -> None:
    module = Tuned(**options, optimizer=sgd)
    finder = LearningRateFinder(num_training_steps=30, min_lr=1e-5, max_lr=1.0, early_stop_threshold=None)
    trainer = fit(
        tmp_path, module, examples(16), 1, callbacks=[finder], enable_checkpointing=True, max_steps=2, max_epochs=-1
    )
    assert module.lr is not None
    assert trainer.optimizers[0].param_groups[0]["lr"] == module.lr != 0.1


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_a_paged_eight_bit_optimizer_steps(tmp_path: Path) -> None:
    import bitsandbytes as bnb

    module = Tuned(
        base_model="demo",
        quantization="nf4",
        adapter=LoraConfig(r=64),
        optimizer=lambda p: bnb.optim.PagedAdamW8bit(p, lr=1e-2),
    )
    trainer = fit(tmp_path, module, examples(4), 2)
    states = trainer.optimizers[0].state.values()
    assert {state["state1"].dtype for state in states} == {torch.uint8}
    assert all(
        parameter.abs().max() > 0 for name, parameter in trainable_parameters(module).items() if "lora_B" in name
    )
