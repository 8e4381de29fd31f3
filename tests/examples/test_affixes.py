"""What a template writes around an answer is found by rendering, whatever the template."""

from typing import Any

import pytest

from chat_folders import CHATML, ENDED_BY_OTHER, ENDED_BY_TEMPLATE, QWEN3, TEMPLATES, tokenizer_of
from ftkit.examples.affixes import Affixes
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer
from ftkit.models.generation import text_until_end

EXAMPLE = Example("a", "What colour?", "blue")


def generated(renderer: Renderer, example: Example) -> str:
    """What a model that has learnt an example's answer writes, up to its end token."""
    tokenizer = renderer.tokenizer
    ids = renderer.encode(example).completion
    return tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("name", "affixes"),
    [
        ("qwen3", Affixes("<think>\n\n</think>\n\n", "<|im_end|>\n")),
        ("chatml", Affixes("", "<|im_end|>\n")),
        ("chatml, its tokens unknown", Affixes("", "<|im_end|>\n<|endoftext|>")),
        ("plain text", Affixes("", "\n### End\n<|endoftext|>")),
        ("full stop", Affixes("", ".<|im_end|>\n")),
    ],
)
def test_affixes_are_what_stands_around_an_answer(name: str, affixes: Affixes) -> None:
    assert Renderer(tokenizer_of(*TEMPLATES[name])).affixes(EXAMPLE) == affixes


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "answer", ["blue", " blue\n", "A", "B", ".", "blue.", "### End", "<think>", "1 , 2", "két szó", "<|im_start|>"]
)
def test_a_learnt_answer_equals_its_reference(name: str, answer: str) -> None:
    renderer, example = Renderer(tokenizer_of(*TEMPLATES[name])), Example("a", "What colour?", answer)
    affixes = renderer.affixes(example)
    written = affixes.generated(renderer.tokenizer, {renderer.tokenizer.eos_token_id})
    assert written.taken_off(generated(renderer, example)) == renderer.reference(example, affixes).strip()


def test_without_a_template_the_end_token_alone_is_behind_an_answer() -> None:
    renderer = Renderer(tokenizer_of(None, ENDED_BY_OTHER))
    assert renderer.affixes(EXAMPLE) == Affixes("", "<|endoftext|>")
    assert renderer.reference(EXAMPLE, renderer.affixes(EXAMPLE)) == "blue"


@pytest.mark.parametrize(
    ("template", "answer", "reference"),
    [
        (QWEN3, "blue", "blue"),
        (QWEN3, "<think>The sky.</think>blue", "<think>\nThe sky.\n</think>\n\nblue"),
        (CHATML.replace("content }}", "content | upper }}"), "blue", "BLUE"),
        (CHATML.replace("content }}", "content | trim }}"), " blue ", " blue "),
        (CHATML, "<|im_start|>blue", "blue"),  # what is generated is decoded without special tokens
    ],
)
def test_the_reference_is_the_answer_as_the_model_learns_it(template: str, answer: str, reference: str) -> None:
    renderer, example = Renderer(tokenizer_of(template, ENDED_BY_TEMPLATE)), Example("a", "What?", answer)
    affixes = renderer.affixes(example)
    assert renderer.reference(example, affixes) == reference
    written = affixes.generated(renderer.tokenizer, {renderer.tokenizer.eos_token_id})
    assert written.taken_off(generated(renderer, example)) == reference.strip()


def test_what_the_template_does_not_write_stays() -> None:
    affixes = Affixes("<think>\n\n</think>\n\n", "\n### End")
    assert affixes.taken_off("<think>\nThe sky.\n</think>\n\nblue") == "<think>\nThe sky.\n</think>\n\nblue"
    assert affixes.taken_off("<think>\n\n</think>\n\nblue\n### E…") == "blue\n### E…"
    assert affixes.taken_off("") == ""


def test_a_template_that_leaves_answers_out_writes_nothing_around_them() -> None:
    assert Affixes.of("Yes.", "Yes.") == Affixes()


def test_text_behind_the_end_token_is_never_generated() -> None:
    tokenizer: Any = tokenizer_of(None, ENDED_BY_TEMPLATE)
    affixes = Affixes("<|im_start|>Answer: ", "!<|im_end|>\nnext<|im_end|>")
    assert affixes.generated(tokenizer, {tokenizer.eos_token_id}) == Affixes("Answer: ", "!")


def test_blanks_before_punctuation_are_not_cleaned_up() -> None:
    tokenizer: Any = tokenizer_of(None, ENDED_BY_TEMPLATE)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    ids = tokenizer.encode("1 , 2<|im_end|>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "1, 2"
    assert text_until_end(ids, {tokenizer.eos_token_id}, tokenizer) == ("1 , 2", True)
