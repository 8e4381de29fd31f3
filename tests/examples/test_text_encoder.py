"""Examples as tokens, and what a batch of evaluation holds besides them."""

import pytest

from chat_folders import CHATML, ENDED_BY_TEMPLATE, tokenizer_of
from ftkit.errors import InputError
from ftkit.examples.affixes import Affixes
from ftkit.examples.encoder import Encoder, column_names
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example

EXAMPLES = [Example("a", "1+2=", "three", columns={"digits": "1"}), Example("b", "5+5=", "ten", columns={"carry": "1"})]


def test_a_batch_of_evaluation_expects_the_answers_as_the_template_writes_them() -> None:
    loud = "{{ message.content | upper if message.role == 'assistant' else message.content }}"
    encoder = Encoder(tokenizer_of(CHATML.replace("{{ message.content }}", loud), ENDED_BY_TEMPLATE))
    encoded = [encoder.encode(example) for example in EXAMPLES]
    batch = encoder.batch(encoded, column_names(EXAMPLES))
    assert batch["answer"] == ["THREE", "TEN"]
    assert batch["affixes"] == [Affixes("", "<|im_end|>\n")] * 2
    assert batch["columns"] == {"digits": ["1", ""], "carry": ["", "1"]}
    assert encoder.batch(encoded).keys() == {"inputs", "id"}


def test_an_answer_is_cut_to_the_length_that_is_allowed() -> None:
    tokenizer = tokenizer_of(CHATML, ENDED_BY_TEMPLATE)
    whole = Encoder(tokenizer).encode(EXAMPLES[0])
    assert not whole.cut
    assert whole.answers is not None
    cut = Encoder(tokenizer, LengthRule(len(whole) - 1)).encode(EXAMPLES[0])
    assert cut.cut
    assert cut.answers == [whole.answers[0][:-1]]
    skipping = Encoder(tokenizer, LengthRule(len(whole) - 1, "skip"))
    assert skipping.encode(EXAMPLES[0]).answers is None
    with pytest.raises(InputError, match="max_length: an example that is too long to train on was not left out"):
        skipping.batch([skipping.encode(EXAMPLES[0])])
