"""What the classifier's tests share: a tiny Llama, and a feature store of one's own."""

from pathlib import Path

import pytest


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a feature store that nothing else uses."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"
