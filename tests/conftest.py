"""What all tests share: no network, one thread, and a tiny GPT-2 with its tokenizer, messages and config."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before the first import of a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # of doctests: files of one name cannot all be imported
LOOPBACK = ("127.", "::1", "localhost")
LAYERS, WIDTH, HEADS, VOCAB, CONTEXT = 3, 32, 4, 257, 64


class NetworkUsed(BaseException):
    """A test reached for the network; nothing catches this by accident."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection and look-up beyond this machine."""

    def guarded(real: Any, address_of: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = address_of(args)
            if host is not None and not str(host).startswith(LOOPBACK):
                raise NetworkUsed(host)
            return real(*args, **kwargs)

        return call

    def of_socket(args: Any) -> Any:
        return args[1][0] if isinstance(args[1], tuple) else None  # a path is a local socket

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), of_socket))
        patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda args: args[0]))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of 3 layers x 32 x 4 heads, context 64, in transformers format, with a tokenizer of single bytes.

    Every parameter is random, norms and biases too, so that leaving one out shows.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    folder = tmp_path_factory.mktemp("weights") / "gpt2-tiny"
    model = GPT2Model(
        GPT2Config(n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, vocab_size=VOCAB, n_positions=CONTEXT, eos_token_id=256)
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        is_scale = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
        torch.nn.init.normal_(parameter, mean=float(is_scale), std=0.3, generator=generator)
    model.save_pretrained(folder)
    symbols = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    GPT2Tokenizer(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def messages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 short messages of 1 to 27 bytes, half of them spam, whose lengths differ."""
    words = ("win", "cash", "now!", "free", "ring"), ("ok", "see", "you", "at", "five")
    rows = []
    for index in range(48):
        spam = index % 2 == 0
        count = 1 + index // 2 % 5
        text = " ".join(words[0 if spam else 1][(index + step) % 5] for step in range(count))
        rows.append(f"{'spam' if spam else 'ham'}\t{text} {index}\n")
    path = tmp_path_factory.mktemp("messages") / "messages.tsv"
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_config(gpt2_folder: Path, messages_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file of the tiny model on the messages: 33 of them for training, two epochs of 4 steps on a CPU."""
    import yaml  # type: ignore[import-untyped]

    config = {
        "seed_everything": 123,
        "model": {
            "class_path": "ftkit.GPT2Classifier",
            "init_args": {
                "size": None,
                "source": str(gpt2_folder),
                "trainable": "last_block",
                "pooling": "last",
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2, "weight_decay": 0.1}},
            },
        },
        "data": {
            "class_path": "ftkit.SpamDataModule",
            "init_args": {
                "source": str(messages_file),
                "split": "balanced",
                "evaluate_splits": ["train", "val", "test"],
            },
        },
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"filename": "last", "enable_version_counter": False},
                }
            ],
        },
    }
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
