"""What is supervised is the answer with its end, and nothing else, whatever the template and the padding token."""

from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from chat_folders import ENDED_BY_OTHER, tokenizer_of
from ftkit.errors import InputError
from ftkit.examples.padding import supervised_batch
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "1+2?"}]}]


@pytest.fixture
def tokenizer(gpt2_folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(gpt2_folder)
    tokenizer.pad_token = tokenizer.eos_token  # as most small models have it
    return tokenizer


def supervised(tokenizer: PreTrainedTokenizerBase, batch: dict[str, torch.Tensor]) -> list[str]:
    return [
        tokenizer.decode(ids[labels != -100]) for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]


def test_a_processor_without_a_place_for_images_is_refused(tokenizer) -> None:
    class Captioner:  # such as BLIP's
        def __init__(self) -> None:
            self.tokenizer = tokenizer

    with pytest.raises(InputError, match=r"model: the model's processor has no image token.*Captioner"):
        Renderer(Captioner())


def test_the_answer_and_its_end_are_learnt_though_padding_has_the_same_id(tokenizer) -> None:
    renderer = Renderer(tokenizer)
    examples = [Example("a", "1+2=", "3"), Example("b", "10+20=", "30")]
    encoded = [renderer.encode(example) for example in examples]
    batch = supervised_batch([(example.prompt, example.completion) for example in encoded], tokenizer.pad_token_id)
    assert supervised(tokenizer, batch) == ["3<|endoftext|>", "30<|endoftext|>"]
    assert batch["attention_mask"].sum(1).tolist() == [6, 9]
    assert (batch["labels"][0, 6:] == -100).all()
    assert (batch["input_ids"][0, 6:] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("prompt", [QUESTION, "1+2?"], ids=["messages", "text"])
def test_a_template_decides_where_the_answer_starts_and_ends(tokenizer, prompt) -> None:
    tokenizer.chat_template = TEMPLATE
    # The answer also occurs in the question: a search for it would find the wrong place.
    example = Example("a", prompt, "1+2?", "4")
    rendered = Renderer(tokenizer)(example)
    assert rendered.prompt == "[user]1+2?<|endoftext|>\n[assistant]"
    assert rendered.completion == "1+2?<|endoftext|>\n"
    assert rendered.rejected == "4<|endoftext|>\n"
    encoded = Renderer(tokenizer).encode(example)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2?"}, {"role": "assistant", "content": "1+2?"}], tokenize=True
    )["input_ids"]
    assert encoded.prompt + encoded.completion == ids


def test_of_several_templates_the_default_one_is_used(tokenizer, tmp_path: Path) -> None:
    tokenizer.chat_template = {"tool_use": "{{ 1 / 0 }}", "default": TEMPLATE}
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert Renderer(tokenizer)(Example("a", QUESTION, "3")) == (
        "[user]1+2?<|endoftext|>\n[assistant]",
        "3<|endoftext|>\n",
        None,
    )
    tokenizer.chat_template = {"tool_use": "{{ 1 / 0 }}"}
    assert Renderer(tokenizer)(Example("a", QUESTION, "3")).prompt == "1+2?"
    with pytest.raises(InputError, match="the model has no chat template"):
        Renderer(tokenizer, chat=True)


def test_an_empty_prompt_is_named_by_its_line(tokenizer) -> None:
    with pytest.raises(InputError, match=r"^examples\.jsonl:7: prompt: the prompt is empty"):
        Renderer(tokenizer).encode(Example("a", "", "3", file="examples.jsonl", line=7))
    tokenizer.chat_template = TEMPLATE
    assert Renderer(tokenizer).encode(Example("a", "", "3")).prompt  # the template writes something


def test_an_end_is_added_only_where_the_template_has_none(tokenizer) -> None:
    example = Example("a", QUESTION, "3")
    tokenizer.chat_template = TEMPLATE.replace("<|endoftext|>", "<end>")
    assert Renderer(tokenizer)(example).completion == "3<end>\n<|endoftext|>"


def test_a_template_whose_conversation_does_not_start_with_the_prompt_is_refused(tokenizer) -> None:
    tokenizer.chat_template = TEMPLATE.replace("[assistant]", "[assistant]think:")
    with pytest.raises(InputError, match=r"examples.jsonl:3: the chat template renders the conversation differently"):
        Renderer(tokenizer)(Example("a", QUESTION, "3", file="examples.jsonl", line=3))


def test_messages_that_the_template_refuses_are_named(tokenizer) -> None:
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    example = Example("a", [{"role": "system", "content": []}, *QUESTION], "3", file="examples.jsonl", line=3)
    with pytest.raises(
        InputError, match=r"examples.jsonl:3: messages: the chat template refuses the messages: no system"
    ):
        Renderer(tokenizer)(example)
    tokenizer.chat_template = "{{ messages[0]['content'] + 1 }}"
    with pytest.raises(
        InputError, match=r"examples.jsonl:3: messages: the chat template refuses the messages: can only concatenate"
    ):
        Renderer(tokenizer)(example)


def test_what_a_model_cannot_take_is_refused(tokenizer) -> None:
    for prompt in (
        [{"role": "system", "content": []}, *QUESTION],
        [{"role": "system", "content": QUESTION[0]["content"]}],
        [*QUESTION, {"role": "assistant", "content": []}, *QUESTION],
    ):
        with pytest.raises(InputError, match="no chat template, so it takes a single user message"):
            Renderer(tokenizer)(Example("a", prompt, "3"))
    with pytest.raises(InputError, match="takes no images"):
        Renderer(tokenizer)(Example("a", "<image>1", "3", images=(Path("a.png"),)))
    with pytest.raises(InputError, match="chat: the model has no chat template"):
        Renderer(tokenizer, chat=True)
    tokenizer.chat_template = TEMPLATE
    assert Renderer(tokenizer, chat=False)(Example("a", "1+2=", "3")).completion == "3<|endoftext|>"
    with pytest.raises(InputError, match="takes no images"):
        Renderer(tokenizer)(Example("a", "<image>1", "3", images=(Path("a.png"),)))
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="could not end"):
        Renderer(tokenizer)


@pytest.mark.parametrize("written", ["", "<s>"], ids=["", "beginning written"])
@pytest.mark.parametrize("added", ["<s> $A", "$A <|endoftext|>", "<s> $A <|endoftext|>", "$A"])
def test_what_a_tokenizer_adds_by_itself_comes_once_and_never_behind_a_prompt(added: str, written: str) -> None:
    tokenizer = tokenizer_of(None, ENDED_BY_OTHER)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "<|endoftext|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=added, special_tokens=special)
    prompt, completion, *_ = Renderer(tokenizer).encode(Example("a", f"{written}1+2=", "3"))
    beginning = added.replace(" ", "").partition("$A")[0]
    assert tokenizer.decode(prompt) == f"{beginning or written}1+2="
    assert tokenizer.decode(completion) == "3<|endoftext|>"


def test_an_end_that_the_prompt_itself_has_stays() -> None:
    tokenizer = tokenizer_of(None, ENDED_BY_OTHER)
    special = [("<|endoftext|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A <|endoftext|>", special_tokens=special)
    assert tokenizer.decode(Renderer(tokenizer).prompt_ids("1<|endoftext|>")) == "1<|endoftext|>"
