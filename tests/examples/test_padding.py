"""Token ids as padded batches."""

import pytest

from ftkit.errors import InputError
from ftkit.examples.padding import prompt_batch, supervised_batch


def test_nothing_or_everything_to_learn_is_refused() -> None:
    with pytest.raises(InputError, match="no supervised token"):
        supervised_batch([([1], [2]), ([1], [])], 0)
    with pytest.raises(InputError, match="all tokens of an example are supervised"):
        supervised_batch([([], [2])], 0)


def test_prompts_are_padded_on_the_left() -> None:
    batch = prompt_batch([[5], [6, 7, 8]], 0)
    assert batch["input_ids"].tolist() == [[0, 0, 5], [6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
