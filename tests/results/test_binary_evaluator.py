import pickle
import sys

import lightning
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from ddp_worker import one_of_two
from sklearn import metrics
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.functional import classification

from ftkit.errors import InputError
from ftkit.results.assessment import assess
from ftkit.results.binary import BinaryEvaluator


def _batch(n=200, seed=0):
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < 0.7).astype(int)
    score = np.round(np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1), 2)  # with ties
    return torch.tensor(score), torch.tensor(target)


def test_batches_in_any_order_and_size_give_the_same():
    preds, target = _batch()
    whole = BinaryEvaluator()
    whole.update(preds, target)
    expected = whole.compute()
    for size, order in ((1, torch.arange(200)), (7, torch.randperm(200)), (64, torch.arange(199, -1, -1))):
        parts = BinaryEvaluator()
        for rows in order.split(size):
            parts.update(preds[rows], target[rows])
        assert {k: float(v) for k, v in parts.compute().items()} == pytest.approx(
            {k: float(v) for k, v in expected.items()}
        )


def test_torchmetrics_agrees():
    preds, target = _batch()
    preds = torch.where(preds == 0.5, 0.51, preds)  # at the threshold itself torchmetrics says no
    evaluator = BinaryEvaluator()
    found = {name: float(value) for name, value in evaluator(preds, target).items()}
    tp, fp, tn, fn, _ = classification.binary_stat_scores(preds, target).tolist()
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (tp, fp, tn, fn)
    for name, metric in (
        ("accuracy", classification.binary_accuracy),
        ("precision", classification.binary_precision),
        ("recall", classification.binary_recall),
        ("f_measure", classification.binary_f1_score),
        ("specificity", classification.binary_specificity),
        ("npv", classification.binary_negative_predictive_value),
        ("mcc", classification.binary_matthews_corrcoef),
        ("auroc", classification.binary_auroc),
        ("average_precision", classification.binary_average_precision),
    ):
        assert found[name] == pytest.approx(float(metric(preds, target)), abs=1e-6), name
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(target, preds), abs=1e-6)


def test_a_probability_at_the_threshold_is_positive():
    evaluator = BinaryEvaluator(threshold=0.25)
    evaluator.update(torch.tensor([0.25, 0.2499]), torch.tensor([1, 0]))
    assert str(evaluator.report().counts) == "Tp=1 Tn=1 Fp=0 Fn=0"


def test_the_report_has_reasons_where_the_figures_are_nan():
    evaluator = BinaryEvaluator(positive="spam", negative="ham")
    evaluator.update(["ham", "ham", "??"], ["ham", "ham", "ham"])
    figures = evaluator.compute()
    assert torch.isnan(figures["recall"])
    assert "auroc" not in figures
    report = evaluator.report("val")
    assert report.figures["recall"].reason == "no positives"
    assert (report.name, report.counts.unparsed_negative, report.figures["accuracy"].value) == ("val", 1, 2 / 3)


def test_all_negative_data_has_no_auroc():
    evaluator = BinaryEvaluator()
    evaluator.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 0]))
    figures = evaluator.compute()
    assert all(torch.isnan(figures[name]) for name in ("auroc", "average_precision", "mcc"))


def test_prefix_clone_reset_and_pickle():
    evaluator = BinaryEvaluator(prefix="val/")
    evaluator.update(*_batch(20))
    copy = evaluator.clone("test/")
    assert set(copy.compute()) == {name.replace("val/", "test/") for name in evaluator.compute()}
    evaluator.reset()
    assert evaluator.report().counts.n == 0
    assert copy.report().counts.n == 20
    assert evaluator.clone().prefix == "val/"
    again = pickle.loads(pickle.dumps(copy))
    assert again.report().counts == copy.report().counts
    collection = MetricCollection({"binary": copy})
    assert "test/accuracy" in {name.removeprefix("binary_") for name in collection.compute()}


def test_repeated_ids_count_once():
    evaluator = BinaryEvaluator()
    evaluator.update(torch.tensor([0.9, 0.2, 0.9]), torch.tensor([1, 1, 1]), ids=torch.tensor([5, 6, 5]))
    evaluator.update(torch.tensor([0.2]), torch.tensor([1]), ids=torch.tensor([6]))
    assert str(evaluator.report().counts) == "Tp=1 Tn=0 Fp=0 Fn=1"
    evaluator.update(torch.tensor([0.2]), torch.tensor([0]), ids=torch.tensor([6]))
    with pytest.raises(InputError, match="two examples with the same id have different labels"):
        evaluator.report()


def test_ids_may_be_names():
    evaluator = BinaryEvaluator()
    evaluator.update(["yes", "yes", "no"], ["yes", "yes", "no"], ids=["a", "a", "b"])
    assert evaluator.report().counts.n == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.tensor([0.2, float("nan")]), torch.tensor([1, 0])),
            r"preds: not a probability in \[0, 1\] \(got nan\)",
        ),
        (
            (torch.tensor([0.2, 1.5]), torch.tensor([1, 0])),
            r"\(got 1.5\); fix: apply softmax or sigmoid to logits first",
        ),
        ((torch.tensor([0.2]), torch.tensor([1, 0])), "preds: 2 labels but 1 preds"),
        ((torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor([1])), "ids: 2 labels but 1 ids"),
        ((torch.tensor([1]), torch.tensor([2])), r"must be 1, 0 or -1, or class names \(got \[2\]\)"),
        ((["yes"], ["maybe"]), "a label is neither class"),
    ],
)
def test_bad_batches_are_refused(arguments, message):
    evaluator = BinaryEvaluator()
    with pytest.raises(InputError, match=message):
        evaluator.update(*arguments)
    assert evaluator.report().counts.n == 0


def test_scores_and_ids_come_always_or_never():
    evaluator = BinaryEvaluator()
    for what, batch in (
        ("scores", (torch.tensor([1]), torch.tensor([1]))),
        ("ids", (torch.tensor([0.5]), torch.tensor([1]), torch.tensor([1]))),
    ):
        evaluator.reset()
        evaluator.update(torch.tensor([0.5]), torch.tensor([1]))
        evaluator.update(*batch)
        with pytest.raises(InputError, match=f"some batches came with {what} and some without"):
            evaluator.report()


def test_own_answers_beside_probabilities():
    evaluator = BinaryEvaluator()
    evaluator.update(torch.tensor([0.9, 0.8]), torch.tensor([1, 0]), answers=["no", "I cannot say"])
    assert str(evaluator.report().counts) == "Tp=0 Tn=0 Fp=0 Fn=1 unparsed=1"
    assert evaluator.report().figures["auroc"].value == 1.0


class _Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.evaluator = BinaryEvaluator(prefix="val/")

    def validation_step(self, batch, _):
        preds, target, ids = batch
        self.evaluator.update(preds, target, ids)

    def on_validation_epoch_end(self):
        self.log_dict({k: v for k, v in self.evaluator.compute().items() if not torch.isnan(v)})
        self.evaluator.reset()


def test_inside_a_lightning_module(tmp_path):
    preds, target = _batch(30)
    loader = DataLoader(TensorDataset(preds, target, torch.arange(30)), batch_size=8)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    (logged,) = trainer.validate(_Module(), loader, verbose=False)
    report = assess(target.numpy(), (preds >= 0.5).int().numpy(), "yes", "no", score=preds.numpy(), kind="probability")
    assert logged["val/tp"] == report.counts.tp
    assert logged["val/auroc"] == pytest.approx(report.figures["auroc"].value, abs=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over a file store")
def test_two_processes_count_each_example_once(tmp_path):
    context = mp.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=one_of_two, args=(rank, f"file://{tmp_path}/store", *_batch(9), results))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    single = BinaryEvaluator()
    single.update(*_batch(9))
    for rank in (0, 1):
        assert found[rank][0] == found[rank][1] == single.report().counts
        assert found[rank][2] == pytest.approx({k: float(v) for k, v in single.compute().items()})
