import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.contingency_tables import mcnemar

from ftkit.errors import InputError
from ftkit.results.answers import any_answers
from ftkit.results.comparison import compare, corrected
from ftkit.results.planning import minimum_detectable_difference
from ftkit.results.predictions import write_predictions


@pytest.fixture
def files(tmp_path):
    """Write prediction files for the same labels, each in its own order, and read them."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(300) < 0.8, "yes", "no")

    def make(**accuracies):
        paths = []
        for name, accuracy in accuracies.items():
            other = np.where(labels == "yes", "no", "yes")
            predictions = np.where(rng.random(300) < accuracy, labels, other)
            predictions[rng.random(300) < 0.03] = "perhaps"
            order = rng.permutation(300)
            ids = [f"ad-{k}" for k in order]
            paths.append(tmp_path / f"{name}.tsv")
            write_predictions(paths[-1], ids, labels[order].tolist(), predictions[order].tolist())
        return any_answers(paths)

    return make


def _aligned(answers):
    order = np.argsort(answers.identity)
    return answers.target[order], answers.answer[order]


def test_a_better_model_is_found_whatever_the_order(files):
    good, bad = files(good=0.95, bad=0.7)
    found = compare(good, bad)
    (target, a), (_, b) = _aligned(good), _aligned(bad)
    only_a, only_b = int(np.sum((a == target) & (b != target))), int(np.sum((a != target) & (b == target)))
    assert (found.n, found.only_model, found.only_reference) == (300, only_a, only_b)
    assert found.p == found.p_holm == pytest.approx(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
    for name, theirs in (
        ("accuracy", metrics.accuracy_score),
        ("mcc", metrics.matthews_corrcoef),
        ("f_measure", lambda y, p: metrics.f1_score(y == 1, p == 1)),
    ):
        difference = theirs(target, a) - theirs(target, b)
        assert found.differences[name] == pytest.approx(difference, abs=1e-12)
        low, high = found.intervals[name]
        assert low < difference < high
        assert low > 0
    assert found.missing == found.missing_in_model == (0, [])


def test_holm_counts_the_comparisons(files):
    a, b, c, reference = files(a=0.8, b=0.82, c=0.95, reference=0.8)
    alone = [compare(model, reference).p for model in (a, b, c)]
    together = corrected([compare(model, reference) for model in (a, b, c)])
    assert [one.p for one in together] == alone
    assert together[2].p_holm == pytest.approx(3 * alone[2])
    assert all(one.p_holm >= one.p for one in together)
    for one in together:
        disagreement = (one.only_model + one.only_reference) / 300
        assert one.detectable == minimum_detectable_difference(300, disagreement, comparisons=3)


def test_a_model_against_itself(files):
    model, same = files(model=0.8) * 2
    found = compare(model, same)
    assert (found.only_model, found.only_reference, found.p) == (0, 0, 1.0)
    assert found.reach.possible is False
    low, high = found.intervals["accuracy"]
    assert low == -high == pytest.approx(-(1 - 0.025 ** (1 / 300)))
    assert all(low < 0 < high for low, high in found.intervals.values())
    assert found.to_dict()["detectable"] is None


@pytest.mark.parametrize(("positives", "wins"), [(10, (5, 0)), (20, (0, 5)), (15, (3, 2)), (29, (1, 0))])
def test_no_interval_claims_what_the_exact_test_cannot_show(tmp_path, positives, wins):
    """Five examples that only one model gets right are never significant: every interval holds 0 and has a width."""
    labels = ["yes"] * positives + ["no"] * (30 - positives)
    reference = ["no"] * wins[0] + labels[wins[0] : 30 - wins[1]] + ["yes"] * wins[1]
    for name, predictions in (("model", labels), ("reference", reference)):
        write_predictions(tmp_path / f"{name}.tsv", map(str, range(30)), labels, predictions)
    model, other = any_answers([tmp_path / "model.tsv", tmp_path / "reference.tsv"])
    found = compare(model, other)
    assert found.intervals.keys() == found.differences.keys()
    for name, (low, high) in found.intervals.items():
        assert low < 0 < found.differences[name] < high


def test_ids_that_only_one_file_has_are_counted_and_named(tmp_path):
    write_predictions(tmp_path / "a.tsv", [f"a{k}" for k in range(7)] + ["x"], ["yes"] * 8, ["yes"] * 8)
    write_predictions(tmp_path / "b.tsv", ["x", "b0"], ["yes"] * 2, ["no"] * 2)
    a, b = any_answers([tmp_path / "a.tsv", tmp_path / "b.tsv"])
    found = compare(a, b)
    assert (found.n, found.only_model) == (1, 1)
    assert found.missing == (7, ["a0", "a1", "a2", "a3", "a4"])
    assert found.missing_in_model == (1, ["b0"])
    assert "mcc" not in found.intervals
    assert found.to_dict()["differences"]["mcc"] is None


def test_files_about_other_examples_or_labels_are_refused(tmp_path):
    for name, ids, labels in (
        ("a", ["1", "2"], ["yes", "no"]),
        ("b", ["3"], ["no"]),
        ("c", ["1", "2"], ["yes", "yes"]),
    ):
        write_predictions(tmp_path / f"{name}.tsv", ids, labels, labels)
    a, b, c = any_answers([tmp_path / f"{name}.tsv" for name in "abc"])
    with pytest.raises(InputError) as caught:
        compare(a, b)
    assert str(caught.value) == (
        f"{a.path}: id: no id in common with {b.path} (got '1'); fix: compare predictions for the same examples; "
        "runs that draw a split of their own cannot be paired"
    )
    with pytest.raises(InputError) as caught:
        compare(a, c)
    assert str(caught.value) == (
        f"{a.path}:3: label: 1 labels differ from those in {c.path} (got '2'); fix: compare predictions for the same "
        "labels"
    )
