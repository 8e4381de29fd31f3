"""The data module: splits without shared images, samples, lengths, order, and what identifies the data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from transformers import AutoProcessor

from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example, image_bytes
from ftkit.results.predictions import write_predictions
from ftkit.run_folder import SPLITS
from ftkit.training.resume import compare_settings, settings
from ftkit.training.splits import split_by_groups
from ftkit.vlm import images as opening
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo


@pytest.fixture(scope="module")
def processor(idefics3_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(idefics3_folder)


def prepared(
    processor: Any, preference: bool = False, whole: LengthRule | None = None, **options: Any
) -> VLMDataModule:
    data = VLMDataModule(**{"batch_size": 5, "seed": 1, **options})
    data.prepare(processor, preference, whole)
    return data


def in_three(path: Path) -> dict[str, str]:
    return dict.fromkeys(("train", "val", "test"), str(path))


def test_batches_of_training_and_of_evaluation(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    data = prepared(processor, **in_three(vlm_examples("messages")), evaluation_batch_size=7)
    training = list(data.train_dataloader())
    assert [len(batch["id"]) for batch in training] == [5, 5, 2]  # nothing is dropped
    assert training[0].keys() == {"inputs", "id", "origin"}
    ids = [identity for batch in training for identity in batch["id"]]
    assert sorted(ids) == sorted(f"m{number}" for number in range(12)) != ids
    (loader,) = data.test_dataloader()
    batches = list(loader)
    assert [len(batch["id"]) for batch in batches] == [7, 5]
    assert [identity for batch in batches for identity in batch["id"]] == [f"m{number}" for number in range(12)]
    assert batches[1]["answer"] == ["green", "blue", "red", "green", "blue"]
    columns = batches[1]["columns"]
    assert columns == {"kind": ["k1", "k0", "k1", "k0", "k1"], "image": columns["image"]}
    assert columns["image"] == [str(one.images[0]) for one in data.examples("test")[7:]]
    assert Path(columns["image"][0]).is_file()
    assert batches[1]["prompts"].keys() == batches[1]["inputs"].keys() - {"labels"}
    assert (batches[1]["prompts"]["attention_mask"][:, -1] == 1).all()  # left padded
    assert (batches[1]["inputs"]["attention_mask"][:, 0] == 1).all()  # right padded
    assert len(list(data.predict_dataloader())) == len(list(data.val_dataloader())) == 2


def test_the_order_belongs_to_seed_and_epoch(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    def order(seed: int, epoch: int, workers: int = 0) -> list[str]:
        data = prepared(processor, **in_three(vlm_examples("messages")), seed=seed, num_workers=workers)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [identity for batch in loader for identity in batch["id"]]

    assert order(1, 0) == order(1, 0, workers=1)
    assert len({tuple(order(*which)) for which in ((1, 0), (1, 1), (2, 0))}) == 3


def test_pairs_for_a_model_that_learns_preferences(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    data = prepared(processor, preference=True, **in_three(vlm_examples("preference")))
    batch = next(iter(data.val_dataloader()))
    assert batch["inputs"]["labels"].shape[0] == 10
    assert batch["inputs"]["pixel_values"].shape[0] == len(batch["id"]) == 5
    assert "prompts" not in batch
    learnt_as_answers = next(iter(prepared(processor, **in_three(vlm_examples("preference"))).val_dataloader()))
    assert learnt_as_answers["inputs"]["labels"].shape[0] == 5


def test_long_examples_are_cut_or_left_out_and_counted(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    sources = in_three(vlm_examples("messages"))
    whole = prepared(processor, **sources)
    assert whole.report["cut"] == whole.report["skipped"] == dict.fromkeys(("train", "val", "test"), 0)
    lengths = [len(one.prompt) + len(one.answers[0]) for one in whole.datasets["train"]]
    limit = sorted(lengths)[6]
    whole_rule = LengthRule.for_evaluation(512, max_new_tokens=8)
    with pytest.warns(UserWarning, match="of 12 train examples") as said:
        cut = prepared(processor, **sources, max_length=limit, whole=whole_rule)
    longer = sum(length > limit for length in lengths)
    gone = sum(len(one.prompt) >= limit for one in whole.datasets["train"])
    assert cut.report["cut"] == {"train": longer - gone, "val": 0, "test": 0}
    assert cut.report["skipped"] == {"train": gone, "val": 0, "test": 0}  # evaluation is over all examples
    assert [str(warning.message) for warning in said] == [
        f"of 12 train examples: {longer - gone} with an answer that is cut, {gone} too long and left out"
    ]
    assert cut.report["sizes"]["test"] == len(list(cut.test_dataloader()[0].dataset)) == 12
    assert max(batch["inputs"]["input_ids"].shape[1] for batch in cut.train_dataloader()) <= limit
    skipped = prepared(processor, **sources, max_length=limit, too_long="skip")
    assert skipped.report["sizes"]["train"] == len(skipped.datasets["train"]) == 12 - longer
    with pytest.raises(InputError, match="max_length: all 12 train examples are longer"):
        prepared(processor, **sources, max_length=10)


def test_examples_are_evaluated_up_to_the_models_context_and_no_further(
    processor: Any, vlm_examples: Callable[[str], Path]
) -> None:
    sources = in_three(vlm_examples("messages"))
    examples = list(prepared(processor, **sources).datasets["test"])
    prompts = [len(one.prompt) for one in examples]
    longest = prompts.index(max(prompts))
    context = prompts[longest] + 2
    data = prepared(processor, **sources, max_length=1000, whole=LengthRule.for_evaluation(context, 2))
    longer = sum(len(one.prompt) + len(one.answers[0]) > context for one in examples)
    assert (data.report["cut"]["train"], data.report["cut"]["test"]) == (longer, longer)
    assert data.datasets["test"][longest].answers[0] == examples[longest].answers[0][:2]
    assert data.report["sizes"]["test"] == len(examples) == 12
    with pytest.raises(InputError, match=rf"messages\.jsonl:\d+: the prompt has {prompts[longest]} tokens, but only"):
        prepared(processor, **sources, max_length=1000, whole=LengthRule.for_evaluation(context, 3))


@pytest.mark.parametrize("too_long", ["cut", "skip"])
@pytest.mark.parametrize("max_length", [None, 1000])
def test_the_models_context_is_a_limit_of_training_too(
    max_length: int | None, too_long: Any, idefics3_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    def data_for(context: int) -> VLMDataModule:
        model = VLMSFT(base_model=str(idefics3_folder), max_new_tokens=2)
        assert model.context_length == 512
        model.context_length = context
        data = VLMDataModule(**in_three(vlm_examples("messages")), max_length=max_length, too_long=too_long, seed=1)
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        data.trainer.strategy.connect(model)
        data.setup("fit")
        return data

    whole = list(data_for(512).datasets["train"])
    context = max(len(one.prompt) for one in whole) + 2
    longer = {one.example.id for one in whole if len(one.prompt) + len(one.answers[0]) > context}
    assert 0 < len(longer) < 12
    data = data_for(context)
    changed, kept = ("skipped", longer) if too_long == "skip" else ("cut", set())
    assert data.report[changed]["train"] == len(longer)
    assert data.report["cut"]["test"] == len(longer)
    examples = {one.example.id: one for one in data.datasets["train"]}
    assert examples.keys() == {one.example.id for one in whole} - kept
    for one in whole:
        if one.example.id in examples:
            assert examples[one.example.id].prompt == one.prompt  # with all its image tokens
            assert examples[one.example.id].answers == [one.answers[0][: context - len(one.prompt)]]


@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "paligemma"])
def test_pictures_are_opened_only_of_examples_that_may_be_too_long(
    family: str, request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = AutoProcessor.from_pretrained(request.getfixturevalue(f"{family}_folder"))
    opened: list[Any] = []
    decode = opening.decode_image
    monkeypatch.setattr(opening, "decode_image", lambda *args: opened.append(args) or decode(*args))
    sources = in_three(vlm_examples("prefix" if family == "paligemma" else "messages"))
    data = prepared(processor, **sources, whole=LengthRule.for_evaluation(512, 8))
    assert data.report["cut"] == data.report["skipped"] == dict.fromkeys(("train", "val", "test"), 0)
    assert opened == []
    examples = list(data.datasets["train"])
    longest = max(len(one.prompt) for one in examples)
    opened.clear()
    prepared(processor, **sources, max_length=longest)
    assert opened


def test_pairs_without_a_preference_are_left_out_and_counted(
    processor: Any, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    source = vlm_examples("preference")
    examples = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    examples[2]["rejected"] = examples[2]["chosen"]
    begins_alike = examples[5] | {"rejected": examples[5]["chosen"] + " or " + "not " * 40}
    examples[5] = begins_alike
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")
    options: dict[str, Any] = {**in_three(path), "images": str(source.parent)}
    whole = prepared(processor, preference=True, **options)
    assert whole.report["equal"] == {"train": 1, "val": 1, "test": 1}
    assert whole.report["sizes"]["train"] == len(whole.datasets["train"]) == 11
    prompt = next(len(one.prompt) for one in whole.datasets["train"] if one.example.id == begins_alike["id"])
    cut = prepared(processor, preference=True, **options, max_length=prompt + len(begins_alike["chosen"]) + 1)
    ids = {one.example.id for one in cut.datasets["train"]}
    assert {"d2", "d5"}.isdisjoint(ids)
    assert cut.report["equal"]["train"] >= 2
    assert len(ids) + cut.report["equal"]["train"] + cut.report["skipped"]["train"] == 12
    assert prepared(processor, **options).report["sizes"]["train"] == 12  # their chosen answers can be learnt


def test_pairs_that_all_teach_nothing_are_refused(
    processor: Any, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    source = vlm_examples("preference")
    examples = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(f"{json.dumps(example | {'rejected': example['chosen']})}\n" for example in examples), encoding="utf-8"
    )
    with pytest.raises(InputError, match="rejected: no train example is left: in 12 pairs"):
        prepared(processor, preference=True, **in_three(path), images=str(source.parent))


def test_examples_that_share_an_image_stay_together() -> None:
    def example(number: int) -> Example:
        names = [f"{number // 4}"] + [f"{number // 4 + 1}"] * (number == 3)  # images 0 and 1 are joined by row 3
        return Example(str(number), "", "", images=tuple(map(Path, names)))

    examples = [example(number) for number in range(400)]

    def split(seed: int) -> dict[str, list[Example]]:
        parts = {"train": 0.7, "val": 0.2, "test": 0.1}
        return split_by_groups(examples, parts, seed, keys=lambda example: example.images)

    parts = split(seed=1)
    images = [{image for one in part for image in one.images} for part in parts.values()]
    assert not images[0] & images[1] | images[0] & images[2] | images[1] & images[2]
    assert [len(part) for part in parts.values()] == pytest.approx([280, 80, 40], abs=8)
    assert sorted(one.id for part in parts.values() for one in part) == sorted(one.id for one in examples)
    assert split(seed=2)["test"] != parts["test"]


def test_equal_images_of_a_saved_data_set_stay_together(vlm_examples: Callable[[str], Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = sorted(vlm_examples("prefix").parent.glob("*.png"))
    columns: dict[str, list[Any]] = {
        name: [f"{name} {number}" for number in range(30)] for name in ("prefix", "suffix")
    }
    table = datasets.Dataset.from_dict({**columns, "image": [str(pictures[number % 6]) for number in range(30)]})
    table.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    data = VLMDataModule(train=str(tmp_path / "saved"), fractions=(0.5, 0.2))
    seen = [{image_bytes(image) for example in data.examples(split) for image in example.images} for split in SPLITS]
    assert list(map(len, seen)) == [3, 1, 2]
    assert len(set.union(*seen)) == 6


def test_one_file_is_split(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    data = prepared(processor, train=str(vlm_examples("prefix")), fractions=(0.5, 0.2), chat=False)
    assert sum(data.report["sizes"].values()) == 12
    with pytest.raises(InputError, match="test: there are no examples for this split"):
        prepared(processor, train=str(vlm_examples("prefix")), val=str(vlm_examples("prefix")))
    only = prepared(
        processor, train=str(vlm_examples("prefix")), val=str(vlm_examples("prefix")), evaluate_splits=["val"]
    )
    assert only.report["sizes"] == {"train": 12, "val": 12, "test": 0}


@pytest.fixture
def yes_no(vlm_examples: Callable[[str], Path], tmp_path: Path) -> dict[str, str]:
    """12 examples, 8 yes and 4 no, and an earlier model that always said yes."""
    path = vlm_examples("prefix").with_name("yes_no.jsonl")
    examples = [json.loads(line) for line in vlm_examples("prefix").read_text().splitlines()]
    answers = ["no" if number % 3 == 0 else "yes" for number in range(12)]
    path.write_text(
        "".join(json.dumps({**example, "suffix": a}) + "\n" for example, a in zip(examples, answers, strict=True))
    )
    write_predictions(tmp_path / "earlier.tsv", [example["id"] for example in examples], answers, ["yes"] * 12)
    return {**in_three(path), "outcomes": str(tmp_path / "earlier.tsv")}


def test_training_examples_are_sampled_by_ratio_and_by_earlier_outcome(processor: Any, yes_no: dict[str, str]) -> None:
    def answers(**options: Any) -> list[str]:
        return [example.completion for example in prepared(processor, **options).datasets["train"].examples]

    outcomes = yes_no.pop("outcomes")
    drawn = answers(**yes_no, sample=6, ratio=(1, 2))
    assert (drawn.count("yes"), drawn.count("no")) == (2, 4)
    assert set(answers(**yes_no, sample=3, outcomes=outcomes, keep=["fp", "fn"])) == {"no"}
    assert len(answers(**yes_no, sample=5)) == 5
    first = prepared(processor, **yes_no, sample=5)
    assert [example.id for example in first.datasets["train"].examples] != [
        example.id for example in prepared(processor, **yes_no, sample=5, seed=2).datasets["train"].examples
    ]
    assert len(first.datasets["test"]) == 12  # evaluation is over all examples
    too_many = VLMDataModule(**yes_no, sample=13)
    for _ in range(2):  # what failed is not taken for prepared
        with pytest.raises(InputError, match="sample: there are 12 train examples"):
            too_many.prepare(processor)
    with pytest.raises(InputError, match="keep: there is no outcome to draw from"):
        prepared(processor, **yes_no, sample=3, keep=[])
    with pytest.raises(InputError, match="keep: examples can be chosen by outcome only with a prediction file"):
        prepared(processor, **yes_no, sample=3, keep=["fp", "fn"])
    examples = Path(yes_no["train"]).read_text(encoding="utf-8").split("\n")
    Path(yes_no["train"]).write_text("\n".join([*examples[:8], examples[8].replace('"yes"', '"maybe"'), *examples[9:]]))
    for options in ({"ratio": (1, 2)}, {"outcomes": outcomes}):
        with pytest.raises(InputError, match=r"yes_no.jsonl:9: the answer names neither class \(got 'maybe'\)"):
            prepared(processor, **yes_no, sample=3, **options)
    assert len(answers(**yes_no, sample=12)) == 12


@pytest.mark.parametrize("by", ["id", "image", "prepared image"])
def test_examples_are_found_in_the_moderation_record_by_id_or_image(
    processor: Any, yes_no: dict[str, str], tmp_path: Path, by: str
) -> None:
    """Its examples are id, expected answer, category, image and answer, without a header."""
    path = Path(yes_no["train"])
    examples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if by == "prepared image":
        yes_no |= {"images": str(tmp_path / "ads224")}
        (tmp_path / "ads224" / "images").mkdir(parents=True)
        for example in examples:
            picture, example["image"] = path.with_name(example["image"]), f"images/{example['image']}.gif"
            shutil.copy(picture, tmp_path / "ads224" / f"{example['image']}.png")
        yes_no |= in_three(tmp_path / "ads.jsonl")
        (tmp_path / "ads.jsonl").write_text(
            "".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8"
        )
    ids = [example["id"] if by == "id" else f"ad{number}" for number, example in enumerate(examples)]
    images = ["elsewhere.png" if by == "id" else example["image"] for example in examples]
    approved = [example["suffix"] == "yes" for example in examples]
    lines = (f"{k}\t{yes}\tcat\t{image}\tno\n" for k, yes, image in zip(ids, approved, images, strict=True))
    (tmp_path / "record.tsv").write_text("".join(lines), encoding="utf-8")
    options = {**yes_no, "outcomes": str(tmp_path / "record.tsv"), "keep": ["fn"]}
    found = prepared(processor, **options, sample=8).datasets["train"].examples
    assert [example.completion for example in found] == ["yes"] * 8
    (tmp_path / "record.tsv").write_text("1\tTrue\tcat\tnone.png\tno\n", encoding="utf-8")
    with pytest.raises(InputError, match="12 of 12 examples are not in the prediction file"):
        prepared(processor, **options, sample=8)


def test_the_answers_of_the_model_are_those_that_a_sample_counts(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    path = vlm_examples("prefix").with_name("safe_unsafe.jsonl")
    examples = [json.loads(line) for line in vlm_examples("prefix").read_text().splitlines()]
    answers = ["Safe" if number % 3 == 0 else "Unsafe" for number in range(12)]
    path.write_text(
        "".join(json.dumps({**example, "suffix": a}) + "\n" for example, a in zip(examples, answers, strict=True))
    )
    labels = [answer.lower() for answer in answers]
    write_predictions(tmp_path / "earlier.tsv", [example["id"] for example in examples], labels, ["unsafe"] * 12)

    def drawn(**options: Any) -> list[str]:
        data = VLMDataModule(**in_three(path), **options)
        data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        data.trainer.strategy.connect(VLMYesNo(base_model=str(idefics3_folder), positive="Unsafe", negative="Safe"))
        data.setup("fit")
        return sorted(example.completion for example in data.datasets["train"].examples)

    assert drawn(sample=3, ratio=(2, 1)) == ["Safe", "Unsafe", "Unsafe"]
    assert drawn(sample=3, outcomes=str(tmp_path / "earlier.tsv"), keep=["fp"]) == ["Safe"] * 3
    path.write_text(path.read_text().replace('"Safe"', '"maybe"', 1))
    with pytest.raises(InputError, match=r"safe_unsafe.jsonl:1: the answer names neither class \(got 'maybe'\)"):
        drawn()


def test_a_sample_of_other_outcomes_is_another_setting(yes_no: dict[str, str]) -> None:
    def stated(*keep: str) -> dict[str, Any]:
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        return settings(trainer, VLMDataModule(**yes_no, sample=3, keep=list(keep)))

    assert stated("fp", "fn") == stated("fn", "fp", "fn")
    assert compare_settings(stated("fp", "fn"), stated("fp"), allow_changed=True) == {
        "data.keep": ["['fn', 'fp']", "['fp']"]
    }


def test_another_model_gets_its_own_batches(
    processor: Any, idefics3_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    data = prepared(processor, **in_three(vlm_examples("preference")))
    before = data.datasets["train"]
    data.prepare(processor)
    assert data.datasets["train"] is before  # the examples are measured once
    data.prepare(processor, preference=True)
    assert len(next(iter(data.train_dataloader()))["inputs"]["labels"]) == 10
    other = AutoProcessor.from_pretrained(idefics3_folder)
    data.prepare(other, preference=True)
    assert data.datasets["train"].encoder.processor is other


def test_the_hash_is_that_of_examples_and_pictures(vlm_examples: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    def copied(name: str) -> tuple[Path, str]:
        folder = tmp_path / name
        shutil.copytree(vlm_examples("messages").parent, folder)
        return folder, VLMDataModule(**in_three(folder / "messages.jsonl")).data_sha256

    (first, sha), (second, same) = copied("a"), copied("b")
    assert sha == same  # wherever the files are
    (first / "0.png").write_bytes((first / "1.png").read_bytes())
    assert VLMDataModule(**in_three(first / "messages.jsonl")).data_sha256 != sha
    examples = (second / "messages.jsonl").read_text()
    (second / "messages.jsonl").write_text(examples.replace("What", "Which"))
    assert VLMDataModule(**in_three(second / "messages.jsonl")).data_sha256 != sha


def test_the_hash_is_that_of_the_outcomes_too(yes_no: dict[str, str], tmp_path: Path) -> None:
    def hashed(outcomes: str | None) -> str:
        return VLMDataModule(**{**yes_no, "outcomes": outcomes}, sample=3).data_sha256

    path = tmp_path / "predictions.tsv"
    path.write_text("id\tlabel\tprediction\na\tyes\tno\n")
    first = hashed(str(path))
    assert first == hashed(str(path)) != hashed(None)
    path.write_text("id\tlabel\tprediction\na\tyes\tyes\n")
    assert hashed(str(path)) != first
    with pytest.raises(InputError, match=r"outcomes: cannot be read.*predict the train examples first"):
        hashed(str(tmp_path / "none.tsv"))


def test_a_picture_that_is_gone_when_the_examples_are_hashed_is_named_by_its_example(
    vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(vlm_examples("messages").parent, tmp_path / "rows")
    data = VLMDataModule(**in_three(tmp_path / "rows" / "messages.jsonl"))
    assert data.examples("train")
    (tmp_path / "rows" / "0.png").unlink()
    with pytest.raises(InputError, match=r"messages\.jsonl:\d+: images: .*0\.png: the file cannot be read"):
        _ = data.data_sha256


ARGUMENTS = [
    ({"batch_size": 0}, "batch_size: must be at least 1"),
    ({"ratio": (1, 1)}, "sample: ratio, outcomes and keep need a sample"),
    ({"sample": 0}, "sample: must be at least 1"),
    ({"fractions": (0.9, 0.2)}, "fractions"),
    ({"evaluate_splits": ["test", "test"]}, "evaluate_splits: name one or more"),
    ({"max_length": 1}, "max_length"),
]


@pytest.mark.parametrize(("options", "problem"), ARGUMENTS, ids=[problem for _, problem in ARGUMENTS])
def test_arguments_that_make_no_sense(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        VLMDataModule("examples.jsonl", **options)


def test_a_global_seed_decides_where_none_is_given(processor: Any, vlm_examples: Callable[[str], Path]) -> None:
    def order(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return list(prepared(processor, **in_three(vlm_examples("messages")), seed=None).train_dataloader().sampler)

    assert order(5) == order(5) != order(6)
