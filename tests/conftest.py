"""What all tests share: no network, one thread, tiny models with their tokenizers, messages and a config."""

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before the first import of a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_ERROR_REPORTING"] = "false"  # or a test of its online mode leaves a thread that calls home

import hypothesis
import pytest

from vlm_folders import build_idefics3, draw_pictures, write_rows

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")
collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # of doctests: files of one name cannot all be imported
LOOPBACK = ("127.", "::1", "localhost")
LAYERS, WIDTH, HEADS, VOCAB, CONTEXT = 3, 32, 4, 257, 64


class NetworkUsed(BaseException):
    """A test reached for the network; nothing catches this by accident."""


@pytest.fixture(scope="session", autouse=True)
def forks_can_train() -> None:
    """Have autograd count this machine's devices before ``torch.compile`` makes up some in a test's process.

    It starts threads for devices, and in a process that has them it refuses to run in forks.
    """
    import torch

    torch.zeros((), requires_grad=True).backward()


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
    import lightning  # noqa: F401  now: its log keeps the stream of this moment, and a test's is closed after it
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage() -> None:
    """Take what was imported so far out of the garbage collector's view, which every training calls."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def reads_of() -> Callable[[Callable[[], Any]], int]:
    """``reads_of(call)`` is how often a call reads numbers from tensors: each time a GPU would be waited for."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    reads, tolist = [], torch.Tensor.tolist

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:  # item, float, int, bool
                reads.append(function)
            return function(*args, **(kwargs or {}))

    def watched(tensor: torch.Tensor) -> Any:
        reads.append(tolist)
        return tolist(tensor)

    def count(call: Callable[[], Any]) -> int:
        reads.clear()
        with pytest.MonkeyPatch.context() as patch, Watch():
            patch.setattr(torch.Tensor, "tolist", watched)
            call()
        return len(reads)

    return count


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
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 4 layers x 32, 4 heads and 2 key heads, context 64, with a tokenizer of bytes and ``in``.

    Every parameter is random, norms too, so that leaving one out shows.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Tokenizer, LlamaConfig, LlamaModel

    folder = tmp_path_factory.mktemp("weights") / "llama-tiny"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": 258, "bos_token_id": 257, "eos_token_id": 257, "pad_token_id": 257}
    model = LlamaModel(LlamaConfig(**shape, **heads, **tokens, max_position_embeddings=64))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2, generator=generator)
    model.save_pretrained(folder)
    symbols = [*sorted(ByteLevel.alphabet()), "in", "<|endoftext|>"]
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    GPT2Tokenizer(vocab=vocab, merges=[("i", "n")]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_file(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama and its tokenizer as a GGUF file, as llama.cpp's converter writes them."""
    import json

    import numpy as np
    from transformers import LlamaConfig, LlamaModel

    gguf = pytest.importorskip("gguf")
    config = LlamaConfig.from_pretrained(llama_folder)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = json.loads((llama_folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["i n"])
    writer.add_eos_token_id(257)
    writer.add_bos_token_id(257)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in LlamaModel.from_pretrained(llama_folder).state_dict().items():
        weight = value.numpy()
        if (projection := name.split(".")[-2]) in heads:  # llama.cpp rotates pairs, transformers halves
            halves = weight.reshape(heads[projection], 2, -1, weight.shape[1])
            weight = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
        writer.add_tensor(names.get_name(f"model.{name}", try_suffixes=(".weight",)), weight)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


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
                "base_model": str(gpt2_folder),
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


@pytest.fixture(scope="session")
def idefics3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Idefics3 in transformers format, with a processor that splits pictures of more than 32 pixels."""
    return build_idefics3(tmp_path_factory.mktemp("weights") / "idefics3-tiny")


@pytest.fixture(scope="session")
def vlm_examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``vlm_examples(shape)`` is a JSONL file of 12 rows on 6 pictures beside it.

    Shapes: ``messages`` (a question on one picture, some on two), ``preference`` (chosen and rejected answers) and
    ``prefix`` (PaliGemma's). Pictures differ in size, so they differ in tiles. The colour is the answer.
    """
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder)
    return lambda shape: write_rows(folder, shape)


@pytest.fixture
def count_file(tmp_path):
    """Write a prediction file that has the given counts, positives first."""
    from ftkit.results.predictions import write_predictions

    def write(name: str, tp: int, tn: int, fp: int, fn: int) -> Path:
        labels = ["yes"] * (tp + fn) + ["no"] * (tn + fp)
        predictions = ["yes"] * tp + ["no"] * fn + ["no"] * tn + ["yes"] * fp
        write_predictions(tmp_path / name, [f"images/{k}.jpg" for k in range(len(labels))], labels, predictions)
        return tmp_path / name

    return write


@pytest.fixture
def text_file(tmp_path):
    """Write text or bytes as they are."""

    def write(content: str | bytes, name: str = "a.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
