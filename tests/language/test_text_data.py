"""Examples of text as batches: supervision, padding, buckets, lengths."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from ftkit.errors import InputError
from ftkit.language.data import LengthSampler, TextDataModule
from ftkit.models.base_model import load_processor
from ftkit.training.resume import compare_settings, settings

EXAMPLES = [
    {"prompt": "1 + 1 =", "completion": " 2", "kind": "sum"},
    {"prompt": "twelve minus two =", "completion": " ten", "kind": "words"},
    {"prompt": "7 - 9 =", "completion": " -2"},
]


def write(folder: Path, examples: list[dict[str, Any]], name: str = "examples.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return load_processor(AutoTokenizer, "demo")


def prepared(tokenizer: Any, train: Path, **options: Any) -> TextDataModule:
    data = TextDataModule(train, **{"fractions": (1.0, 0.0), **options})
    data.prepare(tokenizer, context_length=64, max_new_tokens=8)
    return data


@pytest.mark.parametrize(
    ("option", "value", "was"),
    [("bucket", True, "False"), ("max_length", 9, "None"), ("too_long", "skip", "cut"), ("chat", False, "None")],
)
def test_a_resumed_training_takes_the_same_tokens_in_the_same_order(
    option: str, value: Any, was: str, tmp_path: Path
) -> None:
    train = write(tmp_path, EXAMPLES)
    trainer = L.Trainer(logger=False, barebones=True)
    stored, now = settings(trainer, TextDataModule(train)), settings(trainer, TextDataModule(train, **{option: value}))
    with pytest.raises(InputError, match=rf"other settings: data\.{option} was {was}, is {value}; fix: "):
        compare_settings(stored, now)


def test_the_answer_is_supervised_and_its_end_although_padding_is_the_same_token(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = write(tmp_path, EXAMPLES)
    data = prepared(tokenizer, path, val=path, batch_size=3)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    inputs = next(iter(data.val_dataloader()))["inputs"]
    for example, labels, mask in zip(EXAMPLES, inputs["labels"], inputs["attention_mask"], strict=True):
        taught = labels[labels != -100].tolist()
        assert taught[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(taught[:-1]) == example["completion"]
        assert labels[int(mask.sum()) - 1] == tokenizer.eos_token_id  # the last real token
        assert (labels[mask == 0] == -100).all()


def test_an_evaluation_batch_has_prompts_answers_and_columns(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLES)
    data = prepared(tokenizer, path, test=path, batch_size=2)
    first, last = data.test_dataloader()[0]
    assert first["id"] == ["r00001", "r00002"]
    assert first["answer"] == [" 2", " ten"]
    assert first["columns"] == {"kind": ["sum", "words"]}
    assert last["columns"] == {"kind": [""]}
    prompts = first["prompts"]
    assert [tokenizer.decode(ids[mask == 1]) for ids, mask in zip(*prompts.values(), strict=True)] == [
        "1 + 1 =",
        "twelve minus two =",
    ]
    assert prompts["attention_mask"][:, -1].tolist() == [1, 1]  # left padded
    train = next(iter(data.train_dataloader()))
    assert train.keys() == {"inputs", "id"}


def test_messages_go_through_the_chat_template(tokenizer: Any, tmp_path: Path) -> None:
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}<|endoftext|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    messages = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    data = prepared(chatty, write(tmp_path, [{"messages": messages}]), batch_size=1)
    inputs = next(iter(data.train_dataloader()))["inputs"]
    ids, labels = inputs["input_ids"][0], inputs["labels"][0]
    assert chatty.decode(ids) == "<user>1 + 1<assistant>2<|endoftext|>"
    assert chatty.decode(labels[labels != -100]) == "2<|endoftext|>"


def test_too_long_is_cut_or_skipped_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, [*EXAMPLES, {"prompt": "say", "completion": " word" * 40}])
    cut = prepared(tokenizer, path, max_length=16)
    assert (cut.report["cut"]["train"], cut.report["skipped"]["train"]) == (1, 0)
    assert max(map(len, cut.datasets["train"])) == 16
    skipped = prepared(tokenizer, path, max_length=16, too_long="skip")
    assert (skipped.report["cut"]["train"], skipped.report["skipped"]["train"]) == (0, 1)
    assert skipped.report["sizes"] == {"train": 3, "val": 0, "test": 0}
    assert prepared(tokenizer, path).report["max_length"] == 64  # the model's context


def test_a_prompt_without_room_for_an_answer_is_named_in_evaluation(tokenizer: Any, tmp_path: Path) -> None:
    examples = [*EXAMPLES, {"prompt": "word " * 60, "completion": " x"}]
    with pytest.raises(InputError, match=r"jsonl:4: .*only 56 fit"):
        prepared(tokenizer, write(tmp_path, EXAMPLES), test=write(tmp_path, examples, "test.jsonl"))


@pytest.mark.parametrize("options", [{}, {"max_length": 16}, {"too_long": "skip", "max_length": 16}])
def test_only_the_context_cuts_what_is_evaluated(tokenizer: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    train, long = write(tmp_path, EXAMPLES), {"prompt": "say", "completion": " word" * 80}
    data = prepared(tokenizer, train, test=write(tmp_path, [*EXAMPLES, long], "test.jsonl"), **options)
    assert len(data.datasets["test"]) == 4  # no example of an evaluation is left out
    assert max(map(len, data.datasets["test"])) == 64
    assert data.report["cut"]["test"] == 1


def test_no_training_example_left_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training example is left"):
        prepared(tokenizer, write(tmp_path, EXAMPLES), max_length=2)


def test_the_hash_follows_the_examples_and_not_the_path(tmp_path: Path) -> None:
    first, same = TextDataModule(write(tmp_path, EXAMPLES)), TextDataModule(write(tmp_path, EXAMPLES, "b.jsonl"))
    assert first.data_sha256 == same.data_sha256
    assert TextDataModule(write(tmp_path, EXAMPLES[:2], "c.jsonl")).data_sha256 != first.data_sha256


def test_buckets_have_every_example_once_less_padding_and_another_order_each_epoch(
    tokenizer: Any, tmp_path: Path
) -> None:
    examples = [{"prompt": "go", "completion": " word" * (1 + i * 7 % 20)} for i in range(90)]
    padding, epochs = {}, []
    for bucket in (False, True):
        torch.manual_seed(0)
        loader = prepared(tokenizer, write(tmp_path, examples), batch_size=8, bucket=bucket).train_dataloader()
        assert len(loader) == 12
        batches = list(loader)
        loader.sampler.set_epoch(1)  # type: ignore[attr-defined]  # Lightning's part
        seen = Counter(name for batch in batches for name in batch["id"])
        assert set(seen.values()) == {1}
        assert len(seen) == 90
        padding[bucket] = sum(int((batch["inputs"]["attention_mask"] == 0).sum()) for batch in batches)
        epochs = [[batch["id"] for batch in each] for each in (batches, loader)]
    assert padding[True] < 0.25 * padding[False]
    assert epochs[0] != epochs[1]


def test_two_processes_share_the_buckets() -> None:
    lengths = list(range(40))
    parts = [set(LengthSampler(lengths, seed=0, batch_size=4, num_replicas=2, rank=rank)) for rank in range(2)]
    assert parts[0] | parts[1] == set(lengths)
    assert not parts[0] & parts[1]


def test_an_own_seed_decides_the_order_and_else_the_global_one(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": f"{number} =", "completion": " x"} for number in range(40)])

    def order(everywhere: int, seed: int | None = None) -> list[int]:
        torch.manual_seed(everywhere)
        return list(prepared(tokenizer, path, seed=seed).train_dataloader().sampler)

    assert order(1) == order(1) != order(2)
    assert order(1, seed=5) == order(2, seed=5)


def test_a_split_without_examples_cannot_be_evaluated(tokenizer: Any, tmp_path: Path) -> None:
    data = prepared(tokenizer, write(tmp_path, EXAMPLES), evaluate_splits=["train", "val"])
    assert data.val_dataloader() == []
    with pytest.raises(InputError, match=r"data\.val: there are no examples to evaluate"):
        data.test_dataloader()


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"max_length": 1},
        {"evaluate_splits": []},
        {"evaluate_splits": ["test", "test"]},
        {"evaluate_splits": ["dev"]},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(bad: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TextDataModule(tmp_path / "a.jsonl", **bad)
