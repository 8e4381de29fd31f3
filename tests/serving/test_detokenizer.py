"""Text piece by piece: nothing lost, no half characters, nothing behind a stop."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.serving.detokenizer import Detokenizer


def pieces(
    tokenizer: Any, ids: list[int], stop: tuple[str, ...] = (), affixes: Affixes = NO_AFFIXES
) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(tokenizer, stop, affixes)
    said = []
    for token in ids:
        said.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return [*said, detokenizer.finish()], detokenizer.stopped


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 256), max_size=30))
def test_any_bytes_come_out_as_decoded_at_once(tiny: Any, ids: list[int]) -> None:
    _, tokenizer = tiny
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces(tokenizer, ids)[0]) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_answer_ends_before_the_first_stop(tiny: Any, text: str, stops: list[str]) -> None:
    _, tokenizer = tiny
    ids = tokenizer(text)["input_ids"]
    said, stopped = pieces(tokenizer, ids, tuple(stops))
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # the first stop to be complete, as tokens come one by one
    ends = [(whole.index(stop) + len(stop), whole.index(stop)) for stop in stops if stop in whole]
    assert stopped == bool(ends)
    answer = "".join(said)
    assert answer == (whole[: min(start for end, start in ends if end == min(ends)[0])] if ends else whole)
    assert not any(stop in answer for stop in stops)


def test_a_character_of_several_tokens_comes_whole(tiny: Any) -> None:
    _, tokenizer = tiny
    ids = tokenizer("a€b")["input_ids"]
    assert len(ids) == 5
    assert pieces(tokenizer, ids)[0] == ["a", "", "", "€", "b", ""]


def test_what_may_become_a_stop_is_held_back(tiny: Any) -> None:
    _, tokenizer = tiny
    ids = tokenizer("abcabd!")["input_ids"]
    assert pieces(tokenizer, ids, ("abd",))[0] == ["", "", "abc", "", "", "", ""]
    assert pieces(tokenizer, tokenizer("xab")["input_ids"], ("abd",))[0] == ["x", "", "", "ab"]


@pytest.mark.parametrize(
    ("generated", "said"),
    [
        ("<t></t>blue\nEnd", ["b", "l", "u", "e"]),
        ("<t></t>a\nEnd\nEnd", ["a", "\nEnd"]),
        ("<t>Hm</t>a", ["<t>H", "m", "<", "/", "t", ">", "a"]),
        ("<t></", ["<t></"]),
        ("a\nEnds", ["a", "\nEnds"]),
        ("a\nEn", ["a", "\nEn"]),
        ("<t></t><t></t>a", ["<", "t", ">", "<", "/", "t", ">", "a"]),
        ("<t></t>\nEnd", []),
    ],
)
def test_what_the_template_adds_is_left_out_where_it_stands(tiny: Any, generated: str, said: list[str]) -> None:
    _, tokenizer = tiny
    ids, affixes = tokenizer(generated)["input_ids"], Affixes("<t></t>", "\nEnd")
    assert [piece for piece in pieces(tokenizer, ids, (), affixes)[0] if piece] == said
    stopped = pieces(tokenizer, tokenizer("<t></t>a</t>b")["input_ids"], ("</t>",), affixes)
    assert ("".join(stopped[0]), stopped[1]) == ("a", True)


@pytest.mark.parametrize("demo", ["demo"])
def test_the_blank_before_a_word_is_kept(demo: str) -> None:
    from transformers import AutoTokenizer

    from ftkit.models.base_model import load_processor

    tokenizer = load_processor(AutoTokenizer, demo)
    ids = tokenizer("you have won £500, call now")["input_ids"]
    said = pieces(tokenizer, ids)[0]
    assert "".join(said) == "you have won £500, call now"
    assert sum(piece.startswith(" ") for piece in said) >= 4
