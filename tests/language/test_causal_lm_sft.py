"""CausalLMSFT: the same loss as TRL's, through the command line, with its prompts kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from ftkit import ArithmeticDataModule, CausalLMSFT
from ftkit.errors import InputError
from ftkit.language.data import TextDataModule
from ftkit.lightning_cli import FtkitCLI
from ftkit.models.base_model import locate
from ftkit.results.predictions import read_predictions

PAIRS = [("1 + 1 =", " 2"), ("12 + 30 =", " 42"), ("7 - 9 =", " -2")]


def config(folder: Path, **changes: Any) -> list[str]:
    tree = {
        "seed_everything": 1,
        "model": {
            "class_path": "ftkit.CausalLMSFT",
            "init_args": {
                "base_model": "demo",
                "dtype": "float32",
                "adapter": {"class_path": "peft.LoraConfig", "init_args": {"target_modules": "all-linear"}},
                "max_new_tokens": 4,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
                **changes,
            },
        },
        "data": {
            "class_path": "ftkit.ArithmeticDataModule",
            "init_args": {"train_size": 40, "val_size": 8, "test_size": 12, "bucket": True, "batch_size": 8},
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": str(folder / "run"),
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return ["--config", str(path)]


def test_batch_and_loss_are_those_of_trl(tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    from transformers import AutoModelForCausalLM

    module = CausalLMSFT(dtype="float32").eval()
    module.configure_model()
    module.net.eval()
    theirs = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(locate("demo"), dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=None, disable_tqdm=True
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": p, "completion": c} for p, c in PAIRS]),
        processing_class=module.tokenizer,
    )
    theirs.model.eval()
    batch = theirs.data_collator(list(theirs.train_dataset))
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS))
    data = TextDataModule(examples, examples, batch_size=3)
    data.prepare(module.tokenizer, module.context_length, module.max_new_tokens)
    inputs = next(iter(data.val_dataloader()))["inputs"]
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(inputs[name], batch[name]), name
    own = -module.log_probs(inputs).log_probs.mean()
    assert own.item() == pytest.approx(theirs.compute_loss(theirs.model, dict(batch)).item(), rel=1e-5)


def test_from_the_command_line_to_the_prediction_file_and_back(tmp_path: Path) -> None:
    arguments = config(tmp_path)
    FtkitCLI(["fit", *arguments])
    FtkitCLI(["test", *arguments])
    run = tmp_path / "run"
    found = read_predictions(run / "predictions-test.tsv")
    data = ArithmeticDataModule(train_size=40, val_size=8, test_size=12)
    assert found.labels == [problem.answer for problem in data.problems("test")]
    assert found.extra.keys() == {"operation", "length", "carry", "negative", "stopped"}
    assert found.extra["operation"] == [problem.operation for problem in data.problems("test")]
    result = json.loads((run / "result.json").read_text())
    assert result["splits"]["test"] == {
        "n": 12,
        "correct": int(found.correct.sum()),
        "accuracy": found.correct.mean(),
    }
    assert result["data"]["sha256"] == data.data_sha256
    files = {"config.json", "model.safetensors", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    assert result["base"].pop("fingerprint").keys() == files
    assert result["base"] == {"model": "demo", "revision": None}
    loaded = CausalLMSFT.load(run)
    assert loaded.prompt_style == "{question} ="
    questions = [problem.question for problem in data.problems("test")]
    assert loaded.answer(questions, batch_size=5) == found.predictions


def test_quantized_with_a_paged_optimizer_and_a_scheduler_from_a_config(tmp_path: Path) -> None:
    arguments = config(
        tmp_path,
        quantization="nf4",
        optimizer={"class_path": "bitsandbytes.optim.PagedAdamW8bit", "init_args": {"lr": 1e-3}},
        scheduler={
            "class_path": "torch.optim.lr_scheduler.LinearLR",
            "init_args": {"start_factor": 0.1, "total_iters": 10},
        },
    )
    cli = FtkitCLI(["fit", *arguments])
    assert type(cli.trainer.optimizers[0]).__name__ == "PagedAdamW8bit"
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * (0.1 + 0.9 * 5 / 10))
    stored = torch.load(next((tmp_path / "run").rglob("*.ckpt")), weights_only=True)["state_dict"]
    assert stored
    assert all("lora_" in name for name in stored)


def test_an_answer_that_goes_on_is_wrong_and_one_that_never_stops_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    module = CausalLMSFT(dtype="float32", max_new_tokens=5)
    module.configure_model()
    data = ArithmeticDataModule(train_size=40, val_size=8, test_size=12, batch_size=3)
    data.prepare(module.tokenizer, module.context_length, module.max_new_tokens)
    batch = next(iter(data.test_dataloader()[0]))
    batch["answer"] = [" 2"] * 3
    width, end = batch["prompts"]["input_ids"].shape[1], module.tokenizer.eos_token_id
    said = [module.tokenizer(text).input_ids for text in (" 2", " 2.5$", " 2")]
    written = torch.full((3, width + 5), end)
    for example, ids in enumerate(said):
        written[example, width : width + len(ids)] = torch.tensor(ids)
    written[2, width:] = said[2][0]
    monkeypatch.setattr(module.net, "generate", lambda **inputs: SimpleNamespace(sequences=written))
    found = module.predictions(batch)
    right = [label == text for label, text in zip(found["label"], found["prediction"], strict=True)]
    assert right == [True, False, False]
    assert found["prediction"][1] == "2.5$"
    assert found["columns"]["stopped"] == ["yes", "yes", "no"]


def test_a_configuration_without_a_context_is_told(tmp_path: Path) -> None:
    from transformers import BloomConfig, MptConfig

    BloomConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type: does not give its context length"):
        _ = CausalLMSFT(str(tmp_path)).context_length
    MptConfig(max_seq_len=64).save_pretrained(tmp_path)
    assert CausalLMSFT(str(tmp_path)).context_length == 64


def test_a_question_is_asked_in_the_spelling_of_training(tmp_path: Path) -> None:
    arguments = [*config(tmp_path), "--data.spaced_digits", "true"]
    FtkitCLI(["fit", *arguments])
    FtkitCLI(["test", *arguments])
    found = read_predictions(tmp_path / "run" / "predictions-test.tsv")
    problems = ArithmeticDataModule(train_size=40, val_size=8, test_size=12).problems("test")
    loaded = CausalLMSFT.load(tmp_path / "run")
    assert loaded.spaced_digits
    assert loaded.answer([problem.question for problem in problems]) == found.predictions


def test_a_question_that_fails_leaves_the_model_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    module = CausalLMSFT(dtype="float32")

    def broken(prompts: Any) -> Any:
        assert not module.training
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "generate", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        module.answer(["1 + 1"])
    assert module.training


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on a core of its own
def test_the_demo_model_learns_additions_it_has_not_seen(tmp_path: Path) -> None:
    import lightning as L

    L.seed_everything(123, verbose=False)
    data = ArithmeticDataModule(
        train_size=5000, operations=("+",), spaced_digits=True, batch_size=16, test_size=200, bucket=True
    )
    module = CausalLMSFT(
        max_new_tokens=6,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, fused=True),
    )
    trainer = L.Trainer(
        default_root_dir=tmp_path, max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, limit_val_batches=0, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, data)
    batches: Any = trainer.predict(module, datamodule=data)
    pairs = [pair for batch in batches for pair in zip(batch["label"], batch["prediction"], strict=True)]
    assert sum(label == said for label, said in pairs) / len(pairs) > 0.3
