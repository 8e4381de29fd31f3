"""Bugs that cost people their results, planted one by one in a copy of the package: each turns a named test red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ftkit

ROOT = Path(__file__).parents[2]
Edits = list[tuple[str, str, str]]  # file, what is there, what is planted

BUGS: dict[str, tuple[Edits, str]] = {
    "mean-of-means accumulation": (
        [("training/windowed_module.py", "self._window += count", "self._window += count > 0"),
         ("training/windowed_module.py", "max(count, 1) if self.trainer.world_size == 1 else 1", "1"),
         ("training/windowed_module.py", "return total * (self", "return total / max(count, 1) * (self")],
        "tests/training/test_generative.py::test_eight_batches_of_one_learn_what_one_of_eight_learns",
    ),
    "off-by-one pooled index": (
        [("models/pooling.py", "device=hidden.device), length - 1]", "device=hidden.device), length - 2]")],
        "tests/models/test_pooling.py::test_pooled_positions",
    ),
    "pad in the loss": (
        [("examples/padding.py", "padded(labels, IGNORE_INDEX)", "padded(labels, pad_id)")],
        "tests/examples/test_renderer.py::test_the_answer_and_its_end_are_learnt_though_padding_has_the_same_id",
    ),
    "prompt in the loss": (
        [("examples/padding.py", "supervised[start:stop] = ids[start:stop]",
          "supervised[:stop] = ids[:stop]")],
        "tests/vlm/test_encoder.py::test_exactly_the_answers_and_their_ends_are_learnt[idefics3_folder]",
    ),
    "end token not learnt": (
        [("examples/padding.py", "supervised[start:stop] = ids[start:stop]",
          "supervised[start : stop - 1] = ids[start : stop - 1]")],
        "tests/vlm/test_encoder.py::test_exactly_the_answers_and_their_ends_are_learnt[paligemma_folder]",
    ),
    "image dropped": (
        [("vlm/encoder.py", "pixels = {name: made[name] for name in self.family.images.tensors if name in made}",
          "pixels: dict[str, Tensor] = {}")],
        "tests/vlm/test_encoder.py::test_prompts_and_pixels_are_those_of_the_processor",
    ),
    "image blank": (
        [("vlm/encoder.py", "images = [_opened(image, example) for image in example.images]",
          "images = [Image.new('RGB', _opened(image, example).size) for image in example.images]")],
        "tests/vlm/test_encoder.py::test_prompts_and_pixels_are_those_of_the_processor",
    ),
    "pads attended": (
        [("training/generative.py", 'if "token_type_ids" not in read:', "if True:")],
        "tests/vlm/test_vlm_sft.py::test_the_loss_is_transformers_own[paligemma]",
    ),
    "trained reference": (
        [("vlm/dpo.py", "_base_net.append(base.requires_grad_(False))", "_base_net.append(self.net)")],
        "tests/vlm/test_vlm_dpo.py::test_the_reference_stays_bit_by_bit",
    ),
    "adapter merged twice": (
        [("models/adapters.py", "    return merge(wrapped)\n",
          "    [p.data.mul_(2) for n, p in wrapped.named_parameters() if 'lora_B' in n]\n"
          "    return merge(wrapped)\n")],
        "tests/models/test_base_model.py::test_merged_is_adapted_also_with_an_adapter_on_a_tied_head",
    ),
    "decay on frozen weights": (
        [("classifier/text_classifier.py", "        loss = mean = class_loss(",
          "        [p.data.mul_(0.999) for p in self.parameters() if not p.requires_grad]\n"
          "        loss = mean = class_loss(")],
        "tests/test_doctor.py::test_a_sound_classifier_passes",
    ),
    "evaluation in train mode": (
        [("classifier/text_classifier.py", "return self._predictions(batch, self(batch))",
          "return self._predictions(batch, self.train()(batch))")],
        "tests/training/test_checkpoint.py::test_a_loaded_classifier_repeats_the_test[dropout]",
    ),
    "best by the wrong direction": (
        [("results/threshold.py", "np.nanmax(goodness)", "np.nanmin(goodness)")],
        "tests/results/test_threshold.py::test_no_threshold_is_better",
    ),
    "row reused after a config change": (
        [("ablation/runner.py", "if entry.key != key_of(identity):", "if False:")],
        "tests/ablation/test_runner.py::test_a_changed_identity_is_run_again_and_the_field_is_named",
    ),
    "label map swapped": (
        [("classifier/labels.py", "name: place for place, name in enumerate(names)}",
          "name: place for place, name in enumerate(reversed(names))}")],
        "tests/classifier/test_spam.py::test_batch_holds_the_messages_it_names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_the_place_is_still_there(bug: str) -> None:
    package = Path(ftkit.__file__).parent
    for file, present, _ in BUGS[bug][0]:
        assert (package / file).read_text().count(present) >= 1
    file, _, name = BUGS[bug][1].partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_it_turns_its_test_red(bug: str, tmp_path: Path) -> None:
    edits, test = BUGS[bug]
    copy = Path(shutil.copytree(Path(ftkit.__file__).parent, tmp_path / "ftkit"))
    for file, present, planted in edits:
        (copy / file).write_text((copy / file).read_text().replace(present, planted))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--override-ini", "addopts=", test]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert "1 failed" in ran.stdout
