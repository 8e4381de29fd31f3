"""Tiny encoders of five families, all parameters random, with a tokenizer of single characters that adds its tokens."""

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModel, BertTokenizer, PreTrainedTokenizerBase, RobertaTokenizer

FAMILIES = ("bert", "distilbert", "minilm", "modernbert", "roberta")
LAYERS = 3
_COMMON = {
    "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 48,
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "minilm": {**_COMMON, "num_attention_heads": 8, "intermediate_size": 128},  # a BERT with short heads
    "roberta": {**_COMMON, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "distilbert": {
        "vocab_size": 300, "dim": 64, "hidden_dim": 64, "n_layers": LAYERS, "n_heads": 4, "max_position_embeddings": 48,
    },
    "modernbert": {
        **_COMMON, "local_attention": 6, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
        "sep_token_id": 3,
    },
}  # fmt: skip


def tiny_encoder(family: str, **options: Any) -> Any:
    """An encoder as ``AutoModel`` makes it, pooler and dropout included."""
    kind = "bert" if family == "minilm" else family
    torch.manual_seed(5)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **_OPTIONS[family], **options))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def character_tokenizer(family: str) -> PreTrainedTokenizerBase:
    if family == "roberta":
        symbols = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
        return RobertaTokenizer(vocab={symbol: code for code, symbol in enumerate(symbols)}, merges=[])
    letters = [*string.ascii_lowercase, *string.digits, "!"]
    symbols = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={symbol: code for code, symbol in enumerate(symbols)})


def save_encoder(family: str, folder: Path) -> Path:
    tiny_encoder(family).save_pretrained(folder)
    character_tokenizer(family).save_pretrained(folder)
    return folder
