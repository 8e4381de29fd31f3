"""SFT of vision-language models: TRL's loss, planted bugs, and runs from examples to the prediction file."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit.errors import InputError
from ftkit.examples.reader import Example, read_examples
from ftkit.models.generation import Answers
from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.sft import VLMSFT

SHAPE_OF = {"idefics3": "messages", "smolvlm": "messages", "paligemma": "prefix", "paligemma2": "prefix"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def trainer_in(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, callbacks=[RunRecorder()],
        **{**quiet, **options},
    )  # fmt: skip


def data_of(path: Path, **options: Any) -> VLMDataModule:
    return VLMDataModule(str(path), str(path), str(path), **{"batch_size": 4, "seed": 1, **options})


def prepared(folder: Path, path: Path, **options: Any) -> tuple[VLMSFT, dict[str, Any]]:
    """A module in evaluation mode with one batch of its examples."""
    module = VLMSFT(base_model=str(folder), seed=1, **options)
    module.configure_model()
    data = data_of(path)
    data.prepare(module.processor)
    return module.eval(), next(iter(data.val_dataloader()))


def mean_loss(module: VLMSFT, inputs: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return -module.log_probs(inputs).log_probs.mean().item()


# Not PaliGemma: TRL's collator puts the answers through the processor by themselves, and PaliGemma's takes no text
# without an image. Its loss is held against transformers' own, below.
@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def of_trl(
    request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], float]:
    """A model's folder, what TRL's collator makes of the first four examples, and TRL's loss of it."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    folder = request.getfixturevalue(f"{request.param}_folder")

    def as_trl(example: Example) -> dict[str, Any]:
        text = next(part["text"] for part in example.prompt[0]["content"] if part["type"] == "text")
        prompt, told = [{"role": "user", "content": text}], [{"role": "assistant", "content": example.completion}]
        return {"prompt": prompt, "completion": told, "images": [Image.open(path) for path in example.images]}

    examples = [as_trl(example) for example in read_examples(vlm_examples("messages"))[:4]]
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none", "activation_checkpointing": False}
    config = trl.SFTConfig(output_dir=str(tmp_path_factory.mktemp("trl")), max_length=None, **quiet)
    trainer = trl.SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(folder),
        args=config,
        train_dataset=Dataset.from_list(examples),
        processing_class=AutoProcessor.from_pretrained(folder),
    )
    batch = trainer.data_collator([copy.deepcopy(example) for example in examples])
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch))).item()
    return folder, batch, loss


def test_the_batch_and_the_loss_are_those_of_trl(
    of_trl: tuple[Path, dict[str, Any], float], vlm_examples: Callable[[str], Path]
) -> None:
    folder, expected, loss = of_trl
    module, batch = prepared(folder, vlm_examples("messages"))
    assert batch["inputs"].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(batch["inputs"][name], tensor), name
    assert abs(mean_loss(module, batch["inputs"]) - loss) < 1e-5


def planted(bug: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    inputs = {name: tensor.clone() for name, tensor in inputs.items()}
    if bug == "prompt in the loss":
        real = inputs["attention_mask"] == 1
        inputs["labels"][real] = inputs["input_ids"][real]
    elif bug == "image dropped":
        inputs["pixel_values"][inputs["pixel_values"] != 0] = 0.1  # tiles of zeros would be taken for padding
    elif bug == "end not learnt":
        inputs["labels"][inputs["labels"] == 3] = -100
    elif bug == "pads attended, on the left":
        inputs = {name: tensor.roll(5, 1) if tensor.ndim == 2 else tensor for name, tensor in inputs.items()}
        inputs["attention_mask"][:] = 1
    return inputs


@pytest.mark.parametrize("bug", ["prompt in the loss", "image dropped", "end not learnt", "pads attended, on the left"])
def test_a_planted_bug_is_no_longer_trls_loss(
    bug: str, of_trl: tuple[Path, dict[str, Any], float], vlm_examples: Callable[[str], Path]
) -> None:
    folder, _, loss = of_trl
    module, batch = prepared(folder, vlm_examples("messages"))
    assert abs(mean_loss(module, planted(bug, batch["inputs"])) - loss) > 1e-3


@pytest.mark.parametrize("family", SHAPE_OF)
def test_the_loss_is_transformers_own(
    family: str, request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path]
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    path = vlm_examples(SHAPE_OF[family])
    module, batch = prepared(folder, path)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**batch["inputs"]).loss.item()
    assert abs(mean_loss(module, batch["inputs"]) - expected) < 1e-5


@pytest.mark.parametrize(("family", "masked"), [("idefics3", False), ("paligemma", True)])
def test_padding_is_masked_only_where_a_token_could_see_it(
    family: str, masked: bool, request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path]
) -> None:
    module, batch = prepared(request.getfixturevalue(f"{family}_folder"), vlm_examples(SHAPE_OF[family]))
    inputs = batch["inputs"]
    assert not inputs["attention_mask"].all()
    given: list[bool] = []
    body = module.net.model
    body.register_forward_pre_hook(
        lambda part, args, kwargs: given.append(kwargs.get("attention_mask") is not None), with_kwargs=True
    )
    with torch.no_grad():
        found = module.log_probs(inputs)
        logits = module.net(**{name: value for name, value in inputs.items() if name != "labels"}).logits
    assert given == [masked, True]
    following = inputs["labels"][:, 1:]
    wanted = logits[:, :-1].log_softmax(-1).gather(-1, following.clamp(min=0)[..., None])[..., 0][following != -100]
    torch.testing.assert_close(found.log_probs, wanted, atol=1e-6, rtol=1e-6)
    given.clear()
    module.generate(batch["prompts"])
    assert all(given)


def tuned(folder: Path, data: VLMDataModule, run: Path, **options: Any) -> tuple[VLMSFT, L.Trainer]:
    options["optimizer"] = lambda params: torch.optim.AdamW(params, lr=1e-2)
    module = VLMSFT(base_model=str(folder), adapter=LoraConfig(), seed=1, max_new_tokens=4, **options)
    trainer = trainer_in(run, max_epochs=2)
    trainer.fit(module, datamodule=data)
    return module, trainer


@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "paligemma"])
def test_a_run_learns_with_adapters_only_and_leaves_its_predictions(
    family: str, request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    path = vlm_examples(SHAPE_OF[family])
    before = mean_loss(*(part["inputs"] if isinstance(part, dict) else part for part in prepared(folder, path)))
    module, trainer = tuned(folder, data_of(path), tmp_path)
    assert trainer.callback_metrics["val/loss"] < before - 1
    trainer.test(module, datamodule=data_of(path), verbose=False)
    found, examples = read_predictions(tmp_path / "predictions-test.tsv"), read_examples(path)
    assert (found.ids, found.labels) == (
        [example.id for example in examples],
        [example.completion for example in examples],
    )
    assert found.extra["relaxed_match"] == ["yes" if right else "no" for right in found.correct]
    assert found.extra.get("kind", ["k0", "k1"] * 6) == ["k0", "k1"] * 6  # the examples' own column
    learnt = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert learnt
    assert all("lora" in name and "vision" not in name for name in learnt)


def test_a_number_that_is_nearly_right_counts_in_relaxed_accuracy_only(
    paligemma_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = vlm_examples("prefix").read_text().splitlines()[:4]
    path = vlm_examples("prefix").with_name("numbers.jsonl")
    path.write_text("".join(f"{json.dumps(json.loads(line) | {'suffix': '100'})}\n" for line in lines))
    said = ["100", "104", "106", "104%"]
    monkeypatch.setattr(VLMSFT, "generate", lambda self, prompts: Answers(said, [True] * 4))
    for tolerance, near in ((0.05, 2 / 4), (0.03, 1 / 4), (0.06, 3 / 4)):
        module, trainer = VLMSFT(base_model=str(paligemma_folder), tolerance=tolerance), trainer_in(tmp_path)
        for split, evaluate in (("val", trainer.validate), ("test", trainer.test)):
            evaluate(module, datamodule=data_of(path), verbose=False)
            figures = {name: value.item() for name, value in trainer.callback_metrics.items()}
            assert (figures[f"{split}/accuracy"], figures[f"{split}/relaxed_accuracy"]) == (1 / 4, near)
        (examples,) = trainer.predict(module, datamodule=data_of(path))
        right = ["yes" if index < 4 * near else "no" for index in range(4)]
        assert (examples["prediction"], examples["columns"]["relaxed_match"]) == (said, right)


def test_features_that_are_kept_do_not_change_what_is_learnt(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = [
        tuned(idefics3_folder, data_of(vlm_examples("messages")), tmp_path, cache_vision=kept) for kept in (True, False)
    ]
    (kept, trainer), (_, plain) = runs
    assert kept.vision is not None
    assert kept.vision.computed > 0
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], plain.callback_metrics["val/loss"])


def test_full_tuning_leaves_the_vision_tower_unless_it_is_freed(idefics3_folder: Path) -> None:
    def learning(**options: Any) -> set[str]:
        module = VLMSFT(base_model=str(idefics3_folder), **options)
        module.configure_model()
        return {name.split(".")[2] for name, parameter in module.named_parameters() if parameter.requires_grad}

    assert learning() == {"text_model", "weight"}  # weight is the head's
    assert learning(freeze_vision=False) == {"text_model", "weight", "vision_model", "connector"}


def test_a_tolerance_by_which_nothing_is_right_is_refused() -> None:
    with pytest.raises(InputError, match="tolerance: must be"):
        VLMSFT(base_model="x", tolerance=-0.05)


def test_virtual_tokens_are_refused(idefics3_folder: Path) -> None:
    with pytest.raises(InputError, match="adapter: virtual tokens are supported for text models only"):
        VLMSFT(base_model=str(idefics3_folder), adapter=PromptTuningConfig(num_virtual_tokens=2)).configure_model()


def test_adapters_are_on_the_text_model_alone_unless_layers_are_named(idefics3_folder: Path) -> None:
    def adapted(**options: Any) -> set[str]:
        adapter = LoraConfig(**options)
        module = VLMSFT(base_model=str(idefics3_folder), freeze_vision=False, adapter=adapter)
        module.configure_model()
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        return {part for name in names for part in name.split(".") if part in ("text_model", "vision_model")}

    assert adapted() == {"text_model"}
    assert adapted(target_modules=["q_proj"]) == {"text_model", "vision_model"}


def test_all_examples_are_evaluated_and_nothing_is_dropped(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    module = VLMSFT(base_model=str(idefics3_folder), seed=1, max_new_tokens=2)
    data = data_of(vlm_examples("messages"), evaluation_batch_size=5, evaluate_splits=["val", "test"])
    trainer_in(tmp_path).test(module, datamodule=data, verbose=False)
    for split in ("val", "test"):
        assert len(read_predictions(tmp_path / f"predictions-{split}.tsv")) == 12


def test_a_first_loss_is_near_that_of_guessing(idefics3_folder: Path, vlm_examples: Callable[[str], Path]) -> None:
    module, batch = prepared(idefics3_folder, vlm_examples("messages"))
    vocabulary = module.net.get_output_embeddings().weight.shape[0]
    assert abs(mean_loss(module, batch["inputs"]) - math.log(vocabulary)) < 2


def test_examples_for_another_kind_of_model_are_refused(vlm_examples: Callable[[str], Path], tmp_path: Path) -> None:
    class TextModel(L.LightningModule):
        def test_step(self, batch: Any, batch_idx: int) -> None: ...

    with pytest.raises(InputError, match="for a vision-language model"):
        trainer_in(tmp_path).test(TextModel(), datamodule=data_of(vlm_examples("messages")))
