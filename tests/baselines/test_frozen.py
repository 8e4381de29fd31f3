"""Estimators over frozen features: the features of the classifier, the regularization, and the objective reached."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from encoders import save_encoder, tiny_encoder
from torch.nn import functional as F

from ftkit import FrozenFeatureClassifier, GPT2Classifier, SpamDataModule
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/features"


@pytest.fixture
def configured(tiny_config: Path, tmp_path: Path) -> Any:
    """Makes a config of the frozen tiny model on the messages, as a row over the classifier's config."""

    def make(name: str = "frozen", **model: Any) -> list[str]:
        row = tmp_path / f"{name}.yaml"
        changed = {"class_path": "ftkit.FrozenFeatureClassifier", "init_args": model}
        row.write_text(yaml.safe_dump({"model": changed}))
        return ["--config", str(tiny_config), "--config", str(row), "--trainer.default_root_dir", str(tmp_path / name)]

    return make


def vectors(config: Path, pooling: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The pooled vectors of each split in float64, by the classifier itself and without a cache."""
    tree = yaml.safe_load(config.read_text())
    base = tree["model"]["init_args"]["base_model"]
    model = GPT2Classifier(size=None, base_model=base, pooling=pooling, trainable="last_layer", seed=1)
    data = SpamDataModule(**tree["data"]["init_args"])
    data.prepare(model.load_tokenizer(), model.context_length)
    model.configure_model()
    net: Any = model.net
    net.head = torch.nn.Identity()
    found = {}
    with torch.no_grad():
        for name, split in data.datasets.items():
            batch = net.trim(split.__getitems__(list(range(len(split)))))
            found[name] = net(batch["input_ids"], batch["length"]).double(), split.label
    return found


def by_lbfgs(x: torch.Tensor, y: torch.Tensor, c: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias that minimize c times the summed loss plus half the squared weights, by torch's L-BFGS."""
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 2000, "tolerance_grad": 1e-10, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight, bias], **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(x, y, c, weight, bias)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def objective(x: torch.Tensor, y: torch.Tensor, c: float, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    losses = F.binary_cross_entropy_with_logits(x @ weight + bias, y.double(), reduction="sum")
    return c * losses + (weight**2).sum() / 2


@pytest.mark.parametrize("pooling", ["last_real", "last", "mean_real"])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_it_is_the_optimum_that_lbfgs_in_torch_finds(
    pooling: Any, c: float, configured: Any, tiny_config: Path, tmp_path: Path, cache: Path
) -> None:
    settings = {"C": c, "tol": 1e-9, "max_iter": 10000}
    tight = {"class_path": "sklearn.linear_model.LogisticRegression", "init_args": settings}
    raw = {"class_path": "sklearn.preprocessing.FunctionTransformer"}
    assert main(["fit", *configured(pooling=pooling, features=raw, estimator=tight)]) == 0
    fitted = FrozenFeatureClassifier.load(tmp_path / "frozen").pipeline["estimator"]
    x, y = vectors(tiny_config, pooling)["train"]
    weight, bias = by_lbfgs(x, y, c)
    np.testing.assert_allclose(fitted.coef_[0], weight, atol=2e-3 * float(weight.abs().max()))
    ours = objective(x, y, c, torch.tensor(fitted.coef_[0]), torch.tensor(fitted.intercept_))
    assert float(ours) == pytest.approx(float(objective(x, y, c, weight, bias)), rel=1e-6)


def test_its_objective_is_not_above_that_of_a_head_trained_by_gradients(
    configured: Any, tiny_config: Path, tmp_path: Path, cache: Path
) -> None:
    head = ["--config", str(tiny_config), "--trainer.default_root_dir", str(tmp_path / "head")]
    assert main(["fit", *head, "--model.trainable", "last_layer", "--model.pooling", "last_real"]) == 0
    entries = set(cache.glob("*.safetensors"))
    free = {"class_path": "sklearn.linear_model.LogisticRegression", "init_args": {"C": 100.0, "max_iter": 10000}}
    raw = {"class_path": "sklearn.preprocessing.FunctionTransformer"}
    assert main(["fit", *configured(pooling="last_real", features=raw, estimator=free)]) == 0
    assert set(cache.glob("*.safetensors")) == entries != set()  # it has read the classifier's
    x, y = vectors(tiny_config, "last_real")["train"]
    trained: Any = GPT2Classifier.load(tmp_path / "head").net
    weight = (trained.head.weight[1] - trained.head.weight[0]).detach().double()
    bias = (trained.head.bias[1:] - trained.head.bias[:1]).detach().double()
    fitted = FrozenFeatureClassifier.load(tmp_path / "frozen").pipeline["estimator"]
    ours = objective(x, y, 100.0, torch.tensor(fitted.coef_[0]), torch.tensor(fitted.intercept_))
    assert float(ours) < float(objective(x, y, 100.0, weight, bias))


def test_a_run_and_its_test_agree_with_scikit_learn_on_the_features(
    configured: Any, tiny_config: Path, tmp_path: Path, cache: Path
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    row = configured()
    assert main(["fit", *row]) == 0
    assert main(["test", *row]) == 0
    splits = vectors(tiny_config, "last")  # of the classifier's config, which the row leaves as it is
    right = {}
    for c in FrozenFeatureClassifier.strengths:
        alone = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=10_000)).fit(*splits["train"])
        right[c] = alone.score(*splits["val"]), alone
    result = json.loads((tmp_path / "frozen/result.json").read_text())
    best = max(right, key=lambda c: right[c][0])  # the first of equal ones
    assert result["chosen"]["settings"] == {"estimator__C": best}
    assert result["seconds_frozen"]["fit"] > 0
    assert (result["parameters"]["trainable"], result["baseline"]) == (0, True)
    assert result["parameters"]["total"] > 10_000
    assert result["base"]["fingerprint"]
    found = read_predictions(tmp_path / "frozen/predictions-test.tsv")
    by_id = dict(zip(found.ids, found.scores, strict=True))
    expected = right[best][1].predict_proba(splits["test"][0])[:, 1]
    np.testing.assert_allclose(sorted(by_id.values()), sorted(expected), atol=1e-4)


def test_another_base_model_is_refused(
    configured: Any, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *configured()]) == 0
    assert main(["test", *configured(), "--model.base_model", "demo", "--model.size", "small"]) == 2
    assert "trained on another base" in capsys.readouterr().err


def test_an_encoder_is_pooled_as_an_encoder(configured: Any, tmp_path: Path, cache: Path) -> None:
    folder = str(save_encoder("bert", tmp_path / "bert"))
    model = FrozenFeatureClassifier(folder, seed=1)
    assert (model.pooling, model.causal_mask, model.mask_padding) == ("first", False, True)
    assert FrozenFeatureClassifier(folder, pooling="mean").pooling == "mean_real"
    with pytest.raises(InputError, match="not read at its last token"):
        _ = FrozenFeatureClassifier(folder, pooling="last_real").pooling
    model.configure_model()
    ids, length = torch.tensor([[2, 7, 8, 3, 0], [2, 9, 3, 0, 0]]), torch.tensor([4, 3])
    with torch.no_grad():
        alone = [tiny_encoder("bert")(ids[row : row + 1, : int(length[row])])[0][0, 0] for row in (0, 1)]
    np.testing.assert_allclose(model.inputs({"input_ids": ids, "length": length}), torch.stack(alone), atol=1e-5)
    assert FrozenFeatureClassifier("demo").pooling == "last_real"


def test_random_weights_of_a_size_on_the_hub_need_its_tokenizer_alone() -> None:
    model = FrozenFeatureClassifier("hub", size="small", weights="random", seed=1)
    assert (model.base_files.model, model.base_files.tokenizer.name) == (None, "openai-community/gpt2")
    assert (model.load_config().n_layer, model.context_length) == (12, 1024)
    assert model.base_options["size"] == "small"
