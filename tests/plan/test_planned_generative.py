"""Plans of generative models: what is traced without numbers is what a real step does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig

from fake_device import Over
from ftkit.language.arithmetic import ArithmeticDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.plan.generative import plan_generative
from ftkit.plan.steps import Costs
from ftkit.plan.torch_internals import OperatorCosts
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo

OFF = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class RealStep(L.Callback):
    """Count the products and the memory of the first step with numbers, as the plan does without."""

    def __init__(self) -> None:
        self.costs: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(module, VLMDPO):
            batch["reference"] = torch.zeros(len(batch["inputs"]["labels"]))
        with OperatorCosts() as self.costs:
            with trainer.precision_plugin.forward_context():
                loss = module.training_step(batch, 0)
            loss.backward()
        module.cpu = lambda: module
        raise Over


def both(make: Callable[[], Any], data: Callable[[], Any], **options: Any) -> tuple[Costs, Any]:
    """The plan of one step, and its real costs."""
    real = RealStep()
    given: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_steps": 1, "num_sanity_val_steps": 0, **OFF}
    with pytest.raises(Over):
        L.Trainer(**given, **options, callbacks=[real]).fit(make(), data())
    return plan_generative(make(), data(), L.Trainer(**given, **options)), real.costs


def operations(work: Any) -> float:
    return sum(one.operations * times for one, times in work.items())


def compare(plan: Costs, real: Any) -> None:
    planned = plan.steps[0][1]
    assert operations(planned.work) == pytest.approx(operations(real.work), rel=0.05)
    assert planned.peak == pytest.approx(real.peak, rel=0.15)


LORA = LoraConfig(r=4, target_modules="all-linear")


@pytest.mark.parametrize(
    ("options", "trainer"),
    [({}, {}), ({"adapter": LORA}, {"precision": "bf16-mixed"}), ({"gradient_checkpointing": True}, {})],
)
def test_a_step_of_a_language_model_costs_without_numbers_what_it_costs(
    options: dict[str, Any], trainer: dict[str, Any]
) -> None:
    def data() -> Any:
        return ArithmeticDataModule(train_size=8, val_size=2, test_size=2, batch_size=8, seed=1)

    plan, real = both(lambda: CausalLMSFT(seed=1, **options), data, **trainer)
    compare(plan, real)
    assert plan.updates == 1
    if not options:
        assert (plan.frozen, plan.memory.gradients, plan.memory.optimizer) == (
            0,
            4 * plan.trainable,
            8 * plan.trainable,
        )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VLMSFT, {}),
        (VLMSFT, {"freeze_vision": False, "cache_vision": False, "adapter": None}),
        (VLMSFT, {"gradient_checkpointing": True}),
        (VLMDPO, {}),
        (VLMYesNo, {"positive": "red", "negative": "green", "max_new_tokens": 1}),
    ],
)
def test_a_step_on_images_costs_without_numbers_what_it_costs(
    kind: Any, options: dict[str, Any], idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
    path = vlm_examples("preference" if kind is VLMDPO else "messages")
    if kind is VLMYesNo:
        lines = [line for line in path.read_text().splitlines() if '"blue"' not in line]
        path = path.with_name("two-colours.jsonl")
        path.write_text("\n".join(lines))

    def data() -> Any:
        return VLMDataModule(*[str(path)] * 3, batch_size=12, seed=1)

    plan, real = both(
        lambda: kind(**{"base_model": str(idefics3_folder), "adapter": LoraConfig(r=4), "seed": 1, **options}), data
    )
    compare(plan, real)
    assert bool(plan.shared) == options.get("cache_vision", True)


def planned_pairs(model: Path, examples: Path, splits: tuple[Any, ...] = ("test",), **options: Any) -> Costs:
    """The plan of two epochs of DPO on 12 pairs in three batches, which are val and test as well."""
    data = VLMDataModule(*[str(examples)] * 3, batch_size=4, seed=1, evaluate_splits=splits)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=2, **OFF)
    return plan_generative(VLMDPO(base_model=str(model), seed=1, **options), data, trainer)


def runs(steps: Any) -> float:
    return sum(times for times, _ in steps)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [("test",), ("train", "val", "test")])
def test_images_and_reference_run_once_over_each_split_whatever_is_tested(
    splits: Any, idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
    given = idefics3_folder, vlm_examples("preference"), splits
    plan = planned_pairs(*given, adapter=LoraConfig(r=4))
    assert [runs(steps) for steps in plan.shared.values()] == [9, 9]
    # Without a cache once in each epoch over train and val, and once over each split that is tested.
    again = planned_pairs(*given, adapter=LoraConfig(r=4), cache_reference=False)
    assert [runs(steps) for steps in again.shared.values()] == [9]
    assert runs(again.steps) - runs(plan.steps) == 2 * 3 + 2 * 3 + 3 * len(splits)


def test_a_reference_of_its_own_needs_memory(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
    whole = planned_pairs(idefics3_folder, vlm_examples("preference"), freeze_vision=False)
    assert whole.frozen == 0
    assert whole.memory.weights >= 2 * 4 * whole.trainable
