"""The parts of gpu_check.py."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import yaml  # type: ignore[import-untyped]
from peft import LoraConfig
from torch import Tensor
from torch.utils.data import DataLoader

import ablation_contestants
import vlm_contestants
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.spam import SpamDataModule
from ftkit.language.arithmetic import ArithmeticDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.pair_log_probs import answer_log_probs
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo

STEPS = 20
HERE = Path(__file__).parent
CH06 = HERE.parent / "configs/ch06"
# Largest differences that rounding explains: of logits or log-probabilities before, and of losses during the training.
EXACT, TRAINED = 1e-3, 1e-2
SETTING = (("trainer.max_epochs", 1),)
LONGEST_LAST = "1-5,10,11,13-19,6,7,8,12,9"


class Skipped(Exception):
    """A part cannot run here."""


class Check:
    """What a part is given, and the file that has its figures, also if it is ended.

    Args:
        folder: What the part ``prepare`` has written.
        small: Whether shapes are small.
        messages: The real messages, or None.
        tokenizer: The folder of GPT-2's tokenizer, or None.
        file: Where the figures go.
    """

    def __init__(self, folder: Path, small: bool, messages: Path | None, tokenizer: Path | None, file: Path) -> None:
        self.folder, self.small, self.messages, self.tokenizer = folder, small, messages, tokenizer
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._file, self._figures = file, dict[str, Any]()

    def note(self, name: str, figures: Any) -> None:
        """Keep some figures."""
        self._figures[name] = figures
        self._file.write_text(json.dumps({"figures": self._figures}))

    def end(self, status: str) -> None:
        """Keep how the part ended."""
        self._file.write_text(json.dumps({"status": status, "figures": self._figures}))

    def need_cuda(self) -> None:
        """Leave the part out on a CPU."""
        if self.device == "cpu":
            raise Skipped("needs CUDA")

    def each(self, runs: Mapping[str, Callable[[], Any]]) -> None:
        """Note what each of some runs finds; one that fails does not stop the next."""
        failed = []
        for name, run in runs.items():
            try:
                self.note(name, run())
            except Exception as error:
                self.note(name, f"{type(error).__name__}: {error}")
                failed.append(f"{name}: {error}")
        if failed:
            raise AssertionError("; ".join(failed))


class Trained(NamedTuple):
    """Logits or log-probabilities of the first batch before the training, and the loss of each step."""

    outputs: Tensor
    losses: list[float]


class Watch(L.Callback):
    """Note the outputs before the first step, and losses."""

    def __init__(self) -> None:
        self.outputs, self.losses = torch.empty(0), list[float]()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Note the outputs."""
        if trainer.global_step == 0:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                self.outputs = outputs_of(module, batch).float().cpu()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Note the loss."""
        self.losses.append(trainer.callback_metrics["train/loss"].item())


def outputs_of(module: Any, batch: Any) -> Tensor:
    """A classifier's logits, or the log-probabilities of the answers' tokens."""
    if isinstance(module, GPT2Classifier):
        return module(batch)
    if isinstance(module, VLMDPO):
        return answer_log_probs(module.net, batch["inputs"])[0]
    return module.log_probs(batch["inputs"]).log_probs


def trainer_on(device: str, **options: Any) -> L.Trainer:
    """A trainer that logs, writes and shows nothing."""
    off = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    placed = {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, "num_sanity_val_steps": 0}
    return L.Trainer(**{**dict.fromkeys(off, False), **placed, "limit_val_batches": 0, **options})


def trained(make: Callable[[], Any], data: Any, device: str, callbacks: Any = (), **options: Any) -> Trained:
    """Train a module for some steps."""
    L.seed_everything(1, verbose=False)
    watch = Watch()
    trainer_on(device, callbacks=[watch, *callbacks], **{"max_steps": STEPS, "max_epochs": -1, **options}).fit(
        make(), data
    )
    return Trained(watch.outputs, watch.losses)


def drift(one: Trained, other: Trained, outputs: float = math.inf, losses: float = math.inf) -> dict[str, float]:
    """The largest differences of two trainings.

    Raises:
        AssertionError: One is larger than its limit, or is no number.
    """
    pairs = zip(one.losses, other.losses, strict=True)
    found = {
        "outputs": (one.outputs - other.outputs).abs().max().item(),
        "losses": max(abs(mine - yours) for mine, yours in pairs),
        "first_loss": other.losses[0],
        "last_loss": other.losses[-1],
    }
    assert all(map(math.isfinite, found.values())), f"not finite: {found}"
    assert found["outputs"] <= outputs, f"outputs differ by {found['outputs']:.2g}"
    assert found["losses"] <= losses, f"losses differ by {found['losses']:.2g}"
    return found


def tasks(folder: Path) -> dict[str, tuple[Callable[..., Any], Callable[[], Any]]]:
    """Each task's module and data, small; nothing of a frozen part is cached, for a cache would hide the device."""

    def pictures(name: str) -> VLMDataModule:
        return VLMDataModule(*[str(folder / "vlm" / name)] * 3, batch_size=2, seed=1)

    lora = LoraConfig(r=8, lora_alpha=16)
    images = {"base_model": str(folder / "vlm/model"), "adapter": lora, "seed": 1, "cache_vision": False}
    sums = partial(ArithmeticDataModule, train_size=64, val_size=4, test_size=4, batch_size=4)
    return {
        "classifier": (classifier(folder, trainable="all"), lambda: messages(folder)),
        "language": (partial(CausalLMSFT, seed=1), sums),
        "vlm_sft": (partial(VLMSFT, **images), lambda: pictures("rows.jsonl")),
        "vlm_dpo": (partial(VLMDPO, **images, cache_reference=False), lambda: pictures("rows.jsonl")),
        "vlm_yes_no": (partial(VLMYesNo, **images), lambda: pictures("yes-no.jsonl")),
    }


def classifier(folder: Path, **options: Any) -> Callable[[], Any]:
    """What makes a small classifier."""
    model = {"size": None, "base_model": str(folder / "gpt2/model"), "seed": 1, "cache_frozen": False}
    return partial(GPT2Classifier, **model, **options)


def messages(folder: Path) -> SpamDataModule:
    """The messages, a few at a time."""
    return SpamDataModule(source=str(folder / "gpt2/messages.tsv"), batch_size=4)


def prepare(check: Check) -> None:
    """Write models and data."""
    ablation_contestants.prepare(
        check.folder / "gpt2", ablation_contestants.SIZES["tiny"], check.messages, check.tokenizer
    )
    folder = check.folder / "vlm"
    folder.mkdir()
    vlm_contestants.prepare(folder, "tiny", 16)
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["chosen"], line["rejected"] = ("yes", "no")[:: 1 if number % 2 else -1]
    (folder / "yes-no.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    check.note("device", torch.cuda.get_device_name() if check.device == "cuda" else "cpu")


def allow_tf32(allowed: bool) -> None:
    """Let float32 products and convolutions be computed in TF32, or not."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def numbers(check: Check) -> None:
    """Compare each task on the device with the CPU in float32, TF32 off."""

    def both(make: Any, data: Any) -> dict[str, float]:
        return drift(trained(make, data(), "cpu"), trained(make, data(), check.device), EXACT, TRAINED)

    check.each({name: partial(both, *task) for name, task in tasks(check.folder).items()})


def bfloat16(check: Check) -> None:
    """Note how far bf16-mixed is from float32 on the device."""

    def both(make: Any, data: Any) -> dict[str, float]:
        rounded = trained(make, data(), check.device, precision="bf16-mixed")
        return drift(trained(make, data(), check.device), rounded)

    check.each({name: partial(both, *task) for name, task in tasks(check.folder).items()})


def tf32(check: Check) -> None:
    """Note how far TF32 is from float32."""
    check.need_cuda()

    def both(make: Any, data: Any) -> dict[str, float]:
        exact = trained(make, data(), check.device)
        allow_tf32(True)
        try:
            return drift(exact, trained(make, data(), check.device))
        finally:
            allow_tf32(False)

    check.each({name: partial(both, *task) for name, task in tasks(check.folder).items()})


def quantized(check: Check) -> None:
    """Note how far nf4 and int8 are from the unquantized base, on the device."""
    adapter = LoraConfig(r=8, lora_alpha=16)
    kinds = {
        "classifier": (classifier(check.folder, adapter=adapter), lambda: messages(check.folder)),
        "language": (partial(CausalLMSFT, seed=1, adapter=adapter), tasks(check.folder)["language"][1]),
    }

    def both(make: Any, data: Any, kind: str) -> dict[str, float]:
        packed = trained(partial(make, quantization=kind), data(), check.device)
        return drift(trained(make, data(), check.device), packed)

    check.each({
        f"{name} {kind}": partial(both, *task, kind) for name, task in kinds.items() for kind in ("nf4", "8bit")
    })  # fmt: skip


def optimizer(check: Check) -> None:
    """Compare fused AdamW with the same in single operators."""
    one, other = (
        trained(
            classifier(check.folder, trainable="all", optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=fused)),
            messages(check.folder),
            check.device,
        )
        for fused in (False, True)
    )
    check.note("classifier", drift(one, other, EXACT, TRAINED))


def compiled(check: Check) -> None:
    """Compare training through torch.compile with training without."""
    from ftkit.training.compiled import CompiledTraining

    make = classifier(check.folder, trainable="all")
    plain = trained(make, messages(check.folder), check.device)
    quick = trained(make, messages(check.folder), check.device, [CompiledTraining()])
    check.note("classifier", drift(plain, quick, EXACT, TRAINED))


def resumed(check: Check) -> None:
    """Compare two epochs with one that ends in a checkpoint and a second one that starts from it."""
    make, file = classifier(check.folder, trainable="last_block"), check.folder / "resumed.ckpt"

    def epochs(number: int, **resume: Any) -> tuple[L.Trainer, Any]:
        L.seed_everything(1, verbose=False)
        trainer, module = trainer_on(check.device, max_epochs=number, limit_train_batches=STEPS), make()
        trainer.fit(module, messages(check.folder), **resume)
        return trainer, module

    _, whole = epochs(2)
    epochs(1)[0].save_checkpoint(file)
    _, second = epochs(2, ckpt_path=file)
    mine, yours = whole.state_dict(), second.state_dict()
    furthest = max((mine[name].float() - yours[name].float()).abs().max().item() for name in mine)
    check.note("classifier", {"weights": furthest, "steps": 2 * STEPS})
    assert furthest <= EXACT, f"weights differ by {furthest:.2g}"


def ddp(check: Check) -> None:
    """Compare DDP with one process (NCCL on a GPU) with no strategy."""
    make = classifier(check.folder, trainable="all")
    plain = trained(make, messages(check.folder), check.device)
    check.note(
        "classifier", drift(plain, trained(make, messages(check.folder), check.device, strategy="ddp"), 0, EXACT)
    )


def row_files(check: Check) -> dict[str, list[Path]]:
    """The config files of the rows, those that take long last: random weights, an epoch of five."""
    from ftkit.ablation.folder import row_configs
    from ftkit.ablation.setting import nested

    model = {"weights": "random_transformers", "tokenizer": str(check.folder / "gpt2/model")}
    data = {"source": str(check.folder / "gpt2/messages.tsv")}
    overlays = [CH06 / "demo.yaml"] if check.small else [CH06 / "gpu.yaml", check.folder / "real.yaml"]
    overlays.append(check.folder / "setting.yaml")
    (check.folder / "real.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": model}, "data": {"init_args": data}})
    )
    (check.folder / "setting.yaml").write_text(yaml.safe_dump(nested(SETTING)))
    numbers = "1,11" if check.small else LONGEST_LAST
    return {label: files for one in numbers.split(",") for label, files in row_configs(CH06, overlays, one).items()}


def rows(check: Check) -> None:
    """Run rows for an epoch, each as `ablation run` does by itself."""
    from ftkit.lightning_engine import LightningEngine

    check.note("setting", dict(SETTING))
    engine, found = LightningEngine(lambda done, total: None), list[Any]()
    for label, files in row_files(check).items():
        run = check.folder / "runs" / label
        engine.run(files, 123, run)
        result = json.loads((run / "result.json").read_text())
        seconds, peak = result["seconds"], result["peak_memory_mb"] / 1e3
        minutes = sum(seconds.values()) / 60
        found.append({"row": label, "minutes": minutes, "training": seconds["fit"] / 60, "peak_gb": peak})
        check.note("rows", found)


def planned(check: Check) -> None:
    """Plan the rows that were measured, on the known device that this GPU is."""
    from ftkit.plan.against import Measured
    from ftkit.plan.device import Device, known
    from ftkit.plan.here import measured
    from ftkit.plan.plan import plan_rows

    name = "here" if check.device == "cpu" else torch.cuda.get_device_name()
    words = re.split(r"[^a-z0-9]", name.lower().replace("rtx ", "rtx"))
    device = measured() if check.device == "cpu" else next((Device.load(one) for one in known() if one in words), None)
    if device is None:
        raise Skipped(f"no device file describes {name}; give one to ftkit plan --against")
    found = Measured.of(name, json.loads((check.folder / "rows.json").read_text())["figures"])
    files = {label: configs for label, configs in row_files(check).items() if label in found.rows}
    beside = [found.beside(row) for row in plan_rows(files, device)]
    kept = ("minutes_ratio", "peak_ratio", "positions_per_second", "share_of_peak")
    check.note("rows", {row["row"]: {figure: row[figure] for figure in kept} for row in beside})


def vlm(check: Check) -> None:
    """Time SFT and DPO of a model of SmolVLM-256M's shape beside TRL's."""
    small = ["--shape", "tiny", "--batch", "1", "--steps", "1"]
    options = small if check.small else ["--shape", "256m", "--batch", "2", "--steps", "8"]
    bench(check, "bench_vlm.py", "--trainings", "dpo", "sft", "--epochs", "2", "--repeats", "1", *options)


def serving(check: Check) -> None:
    """Time answers to many requests at once beside a server that answers one at a time."""
    small = ["--model", "demo", "--requests", "4", "--tokens", "4"]
    bench(check, "bench_serve.py", "--repeats", "1", *(small if check.small else ["--random", "12", "768", "12"]))


def bench(check: Check, script: str, *options: str) -> None:
    """Run a benchmark, and note its record."""
    target = check.folder / script.partition(".")[0]
    command = [sys.executable, "-W", "ignore", str(HERE / script), *options, "--results", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, (done.stderr or done.stdout).strip().splitlines()[-1]
    (record,) = (json.loads(file.read_text()) for file in target.glob("*.json"))
    check.note(script, {name: value for name, value in record.items() if name not in ("versions", "hardware")})


def paligemma(check: Check) -> None:
    """Time SFT and DPO of a model of PaliGemma-3B's shape, bfloat16 with LoRA; TRL can run neither."""
    check.need_cuda()
    if check.small:
        raise Skipped("has one shape, which is large")
    import vlm_memory

    config = vlm_memory.models()["PaliGemma-3B"]
    config.save_pretrained(check.folder / "paligemma")

    def timed(kind: Any) -> dict[str, Any]:
        class Drawn(kind):  # type: ignore[misc, valid-type]
            def pretrained(self) -> Any:
                with torch.device("cuda"):
                    return self.auto_class.from_config(config, dtype=torch.bfloat16).train()

            def keep_fingerprint(self) -> None:
                """Leave it: there are no files."""

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ends: list[float] = []

        class Clock(L.Callback):
            def on_train_batch_end(self, *args: Any) -> None:
                torch.cuda.synchronize()
                ends.append(time.perf_counter())

        model = {"base_model": str(check.folder / "paligemma"), "adapter": LoraConfig(r=8), "seed": 1}
        module = Drawn(**model, cache_vision=False, **({"cache_reference": False} if kind is VLMDPO else {}))
        batches = DataLoader([image_batch(config, 2 if kind is VLMDPO else 1)], collate_fn=lambda found: found[0])
        trainer_on("cuda", max_steps=8, max_epochs=-1, precision="bf16-true", callbacks=[Clock()]).fit(module, batches)
        steps = sorted(later - earlier for earlier, later in pairwise(ends))
        peak = torch.cuda.max_memory_allocated() / 1e9
        return {"seconds_of_a_step": steps[len(steps) // 2], "peak_gb": peak, "examples": 4}

    check.each({"sft": partial(timed, VLMSFT), "dpo": partial(timed, VLMDPO)})


def image_batch(config: Any, answers: int, size: int = 4, text: int = 44, supervised: int = 32) -> dict[str, Any]:
    """A batch of pictures with random questions, and as many answers to each."""
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    images = (side // patch) ** 2
    ids = torch.randint(5, 1000, (size, images + text))
    ids[:, :images] = config.image_token_id
    ids = ids.repeat(answers, 1)
    ids[:, -supervised:] = torch.randint(5, 1000, (size * answers, supervised))
    behind = torch.arange(images + text) >= images + text - supervised
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": behind.long().expand_as(ids).clone(),
        "labels": torch.where(behind, ids, -100),
        "pixel_values": torch.randn(size, 3, side, side),
    }
    return {"inputs": inputs, "id": [str(number) for number in range(size)]}


class Part(NamedTuple):
    """A part, and its time limit in seconds."""

    run: Callable[[Check], None]
    limit: float


PARTS = {
    "prepare": Part(prepare, 45),
    "numbers": Part(numbers, 70),
    "bfloat16": Part(bfloat16, 50),
    "tf32": Part(tf32, 50),
    "quantized": Part(quantized, 40),
    "optimizer": Part(optimizer, 25),
    "compiled": Part(compiled, 90),
    "resumed": Part(resumed, 30),
    "ddp": Part(ddp, 30),
    "rows": Part(rows, 200),
    "planned": Part(planned, 60),
    "vlm": Part(vlm, 90),
    "paligemma": Part(paligemma, 60),
    "serving": Part(serving, 45),
}
