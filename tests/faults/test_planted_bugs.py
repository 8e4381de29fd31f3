"""Bugs that cost people their results, planted one by one in a copy of the package: each turns a named test red."""

import os
import re
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
        [("vlm/encoder.py", "images = [image_of(image, example) for image in example.images]",
          "images = [Image.new('RGB', image_of(image, example).size) for image in example.images]")],
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
        [("classifier/text_classifier.py", "logits, label = self(batch), batch",
          "logits, label = self.train()(batch), batch")],
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
    "server: prompts are tokenized before their length is looked at": (
        [("serving/endpoints.py", "        _check_length(served, prompt, ", "        (served, prompt, ")],
        "tests/serving/test_limits_before_work.py"
        "::test_a_prompt_longer_than_any_context_is_refused_before_it_is_tokenized",
    ),
    "server: a prompt that is tokenized has no place in the queue": (
        [("serving/thread.py", "if len(self._waiting) + len(jobs) > self.max_waiting:",
          "if sum(job.ready for job in self._waiting) + len(jobs) > self.max_waiting:")],
        "tests/serving/test_limits_before_work.py::test_a_prompt_that_is_being_tokenized_has_a_place_in_the_queue",
    ),
    "server: prompts of clients that left are tokenized": (
        [("serving/pending.py", "            working.cancel()\n", "")],
        "tests/serving/test_limits_before_work.py::test_the_prompts_of_clients_that_left_are_not_tokenized",
    ),
    "server: bodies are counted one by one": (
        [("serving/security.py", "sum(self._held.values()) > self.limits", "len(body) > self.limits")],
        "tests/serving/test_limits_before_work.py::test_the_bodies_of_all_requests_together_are_bounded",
    ),
    "server: false is taken for 0": (
        [("serving/schemas.py", "return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)",
          "return bool(given == value)")],
        "tests/serving/test_neutral_fields.py"
        "::test_a_neutral_value_changes_nothing_and_any_other_is_refused_by_name[parallel_tool_calls]",
    ),
    "server: all choices have the seed of the first": (
        [("serving/schemas.py", "(self.seed + choice) % 2**64", "self.seed % 2**64")],
        "tests/serving/test_neutral_fields.py::test_a_seed_has_64_bits",
    ),
    "server: scores of a prompt are off by one": (
        [("serving/generator.py", "tokens = input_ids[index, begin + 1 : end + 1]",
          "tokens = input_ids[index, begin:end]")],
        "tests/serving/test_scores.py::test_the_scores_of_a_batch_are_those_of_a_plain_forward_pass",
    ),
    "server: scores of a part of a prompt are lost": (
        [("serving/generator.py", "min(start + logits.shape[1], width - 1)",
          "min(start + logits.shape[1] - 1, width - 1)")],
        "tests/serving/test_scores.py::test_the_scores_of_a_batch_are_those_of_a_plain_forward_pass",
    ),
    "server: padding counts in the scores": (
        [("serving/generator.py", "first = width - len(sequence.job.prompt)", "first = 0")],
        "tests/serving/test_scores.py::test_the_scores_of_a_batch_are_those_of_a_plain_forward_pass",
    ),
    "server: the threshold decides the other way": (
        [("serving/classifier.py", "if score >= threshold.value", "if score < threshold.value")],
        "tests/serving/test_classify_images.py::test_the_threshold_decides_whatever_the_label",
    ),
    "server: streams are cut without an error": (
        [("serving/server.py", "self.drain_seconds, self.thread.stop)", "self.drain_seconds, print)")],
        "tests/serving/test_lifecycle.py::test_what_is_not_answered_when_the_time_to_end_is_up_ends_with_an_error",
    ),
    "server: any host is allowed behind a proxy": (
        [("serving/security.py", "if self.hosts is not None and not any_host and _split", "if False and _split")],
        "tests/serving/test_security.py::test_behind_a_proxy_its_name_and_its_path_are_ours",
    ),
    "reader: an impossible date is a traceback": (
        [("config_files.py", "except (ValueError, RecursionError) as error:  # such",
          "except RecursionError as error:  # such")],
        "tests/faults/test_own_files.py::test_hostile_files_are_read_or_refused_by_name",
    ),
    "ledger: links are followed": (
        [("ablation/ledger.py", 'open(self.path, "ab", opener=unlinked)', 'open(self.path, "ab")')],
        "tests/faults/test_own_files.py::test_a_link_in_an_output_folder_is_never_followed_for_writing",
    ),
    "checkpoint: any shape of options is taken": (
        [("training/stored_options.py", "    _check_types(checkpoint, _OF_LIGHTNING, file)\n", "")],
        "tests/faults/test_own_files.py::test_a_checkpoint_of_any_shape_is_refused_by_name",
    ),
    "checkpoint: options are not checked against the constructor": (
        [("training/stored_options.py", "if name in known}, defaults", "if False}, defaults")],
        "tests/faults/test_stored_options.py::test_file_and_field_are_named",
    ),
    "checkpoint: what it names is imported": (
        [("training/stored_options.py", "refuse_imports(given[name], name)", "print(name)")],
        "tests/faults/test_stored_options.py::test_nothing_is_imported_because_a_checkpoint_names_it",
    ),
    "statistics: McNemar's test has one side": (
        [("results/statistics.py", "0.5).pvalue)", '0.5, alternative="greater").pvalue)')],
        "tests/results/test_statistics.py::test_mcnemar_is_statsmodels",
    ),
    "statistics: corrected p-values fall again": (
        [("results/statistics.py", "np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))",
          "p[order] * (len(p) - np.arange(len(p)))")],
        "tests/results/test_statistics.py::test_holm_is_statsmodels",
    ),
    "verdict: what is far worse is equivalent": (
        [("results/verdict.py", "all(-margin < one[0] and one[1] < margin", "all(one[1] < margin")],
        "tests/results/test_judge.py::test_equivalent_is_what_lies_within_the_margin_on_both_sides",
    ),
    "guards: what is no number is the best": (
        [("training/guards.py", "if trainer.strategy.reduce_boolean_decision(finite):", "if True:")],
        "tests/training/test_guards.py::test_what_is_not_a_number_is_never_the_best",
    ),
    "guards: losses that were not read are lost by a checkpoint": (
        [("training/guards.py", "        self._read()\n        return asdict(", "        return asdict(")],
        "tests/training/test_guards.py::test_losses_that_were_not_read_yet_survive_a_checkpoint",
    ),
    "sampling: each epoch has the order of the first": (
        [("training/samplers.py", "seeded_order(self.n, self.seed, self.epoch)", "seeded_order(self.n, self.seed, 0)")],
        "tests/classifier/test_epoch_sampler.py::test_sampler_depends_on_seed_and_epoch_alone",
    ),
    "resume: from the checkpoint of fewest steps": (
        [("training/resume.py", "sorted(ranks, key=ranks.__getitem__, reverse=True)",
          "sorted(ranks, key=ranks.__getitem__)")],
        "tests/faults/test_clock.py::test_training_goes_on_from_the_most_steps",
    ),
    "cache: other texts get the outputs of the first": (
        [("training/frozen_prefix.py", '"texts": digest_of(texts),', '"texts": "",')],
        "tests/classifier/test_frozen_prefix.py::test_a_change_never_hits_a_stale_entry",
    ),
    "search: the best seed decides": (
        [("ablation/tuning.py", "return fmean(known) if", "return max(known) if")],
        "tests/ablation/test_search.py::test_the_choice_is_by_the_mean_over_the_seeds_and_the_first_of_equal_ones",
    ),
    "audit: case makes a text another": (
        [("examples/duplicates.py", '" ".join(text.lower().split())', '" ".join(text.split())')],
        "tests/examples/test_duplicates.py::test_normalized_texts",
    ),
    "ledger: a result that was changed is done": (
        [("ablation/ledger.py", "and sha256_of(result) == entry.result", "and bool(sha256_of(result))")],
        "tests/ablation/test_ledger.py::test_a_cell_is_done_only_with_the_result_that_was_recorded",
    ),
    "dpo: the rejected answer is preferred": (
        [("vlm/preference.py", "return self.beta * (self.chosen - self.rejected)",
          "return self.beta * (self.rejected - self.chosen)")],
        "tests/vlm/test_preference.py::test_by_hand",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_the_place_is_still_there(bug: str) -> None:
    package = Path(ftkit.__file__).parent
    for file, present, _ in BUGS[bug][0]:
        assert (package / file).read_text().count(present) >= 1
    file, _, name = BUGS[bug][1].partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_the_table_of_faults_lists_each() -> None:
    table = (ROOT / "tests/FAULTS.md").read_text().split("## Planted bugs")[1]
    rows = re.findall(r"^\| (.+) \| `(.+)` \|$", table, re.MULTILINE)
    assert dict(rows) == {bug: test.partition("[")[0] for bug, (_, test) in BUGS.items()}
    assert f"each of these {len(BUGS)} " in table


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
