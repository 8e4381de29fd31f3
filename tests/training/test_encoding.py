"""How texts become batches."""

import json
from dataclasses import asdict, replace

import pytest
from transformers import GPT2Tokenizer

from ftkit.training.encoding import Encoding

PAD = 256


@pytest.fixture(scope="module")
def tokenizer(gpt2_folder) -> GPT2Tokenizer:
    return GPT2Tokenizer.from_pretrained(gpt2_folder)


def rules(max_length: int = 4, pad_to_max: bool = True, single: bool = False) -> Encoding:
    return Encoding(("ham", "spam"), max_length, pad_to_max, PAD, single)


@pytest.mark.parametrize("length", [3, 4, 5])
def test_texts_are_cut_at_the_limit(tokenizer, length: int) -> None:
    (ids,) = rules().encode(tokenizer, ["abcde"[:length]])
    assert ids == tokenizer("abcd"[:length])["input_ids"]
    assert len(ids) == min(length, 4)


def test_an_empty_text_is_one_token_of_padding_and_nothing_is_added(tokenizer) -> None:
    assert rules().encode(tokenizer, ["", " "]) == [[PAD], tokenizer(" ")["input_ids"]]
    assert rules().encode(tokenizer, []) == []


@pytest.mark.parametrize(("pad_to_max", "width"), [(True, 4), (False, 3)])
def test_padding_is_on_the_right_and_not_counted(pad_to_max: bool, width: int) -> None:
    batch = rules(pad_to_max=pad_to_max).pad([[1, PAD, 3], [5]])
    assert batch["input_ids"].tolist() == [[1, PAD, 3, PAD][:width], [5, PAD, PAD, PAD][:width]]
    assert batch["length"].tolist() == [3, 1]


@pytest.mark.parametrize(("single", "sizes"), [(False, [2, 1]), (True, [1, 1, 1])])
def test_texts_that_must_not_share_a_batch_do_not(single: bool, sizes: list[int]) -> None:
    texts = [[1], [2, 3], [4, 5, 6]]
    batches = list(rules(pad_to_max=False, single=single).batches(texts, 2))
    assert [len(batch["length"]) for batch in batches] == sizes
    rows = [row[:n].tolist() for batch in batches for row, n in zip(batch["input_ids"], batch["length"], strict=True)]
    assert rows == texts
    assert batches[-1]["input_ids"].shape[1] == 3


def test_plain_values_make_the_same_rules() -> None:
    for kept in (rules(), replace(rules(), ends=(3, 4))):
        assert Encoding(**json.loads(json.dumps(asdict(kept)))) == kept
    assert {type(value) for value in asdict(kept).values()} == {tuple, int, bool}
