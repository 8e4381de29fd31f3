from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from real_messages import SMS_FILE, gpt2_tokenizer, needs_messages
from transformers import GPT2Tokenizer

from ftkit.classifier import download
from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import messages_of
from ftkit.classifier.samplers import published_order
from ftkit.classifier.spam import SpamDataModule
from ftkit.errors import InputError
from ftkit.training.samplers import seeded_order

PAD = 256


@pytest.fixture
def sms(tmp_path) -> Path:
    """Twenty ham and twenty spam messages of 1 to 20 bytes."""
    lines = [f"{label}\t{letter * size}" for size in range(1, 21) for label, letter in (("ham", "h"), ("spam", "s"))]
    path = tmp_path / "sms.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def prepared(tokenizer, *args, context_length=64, reads_padding=True, sees_padding=True, **options) -> SpamDataModule:
    data = SpamDataModule(*args, **options)
    data.prepare(tokenizer, context_length, reads_padding, sees_padding)
    return data


def refusal(tokenizer, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        prepared(tokenizer, *args, **options)
    return str(caught.value)


def all_ids(loader) -> list[str]:
    return [name for batch in loader for name in batch["id"]]


# The published figures


@needs_messages
def test_published_lengths_of_the_real_messages():
    report = prepared(gpt2_tokenizer(), SMS_FILE, context_length=1024).report
    assert report["sizes"] == {"train": 1045, "val": 149, "test": 300}
    assert report["max_length"] == report["longest"]["train"] == 120
    assert max(report["longest"]["val"], report["longest"]["test"]) == 97
    total = sum(report["mean_length"][name] * report["sizes"][name] for name in report["sizes"])
    assert total / 1494 == pytest.approx(30.6, abs=0.05)
    assert report["truncated"] == report["empty"] == {"train": 0, "val": 0, "test": 0}
    assert report["sha256"] == download.MEMBER_SHA256


@needs_messages
def test_all_real_messages_are_read_literally():
    data = prepared(gpt2_tokenizer(), SMS_FILE, split="all", context_length=1024)
    assert sum(data.report["sizes"].values()) == 5574
    assert sum(data.report["positive"].values()) == 747


# Batches


def test_batch_holds_the_messages_it_names(byte_tokenizer, sms):
    data = prepared(byte_tokenizer, sms, batch_size=4)
    source = messages_of(read_messages(sms))
    texts = dict(zip(source.ids, zip(source.labels, source.texts, strict=True), strict=True))
    loaders = [data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()]
    for loader in loaders:
        for batch in loader:
            assert batch["input_ids"].shape == (len(batch["id"]), data.report["max_length"])
            assert [batch[key].dtype for key in ("input_ids", "length", "label")] == [torch.int64] * 3
            for row, length, label, name in zip(
                *(batch[k] for k in ("input_ids", "length", "label", "id")), strict=True
            ):
                assert ("ham", "spam")[label] == texts[name][0]
                assert byte_tokenizer.decode(row[:length]) == texts[name][1][: data.report["max_length"]]
                assert (row[length:] == PAD).all()
    assert [len(batch["id"]) for batch in data.train_dataloader()] == [4] * 7  # 28 messages


def test_splits_share_no_message_and_evaluation_drops_none(byte_tokenizer, sms):
    data = prepared(byte_tokenizer, sms, batch_size=3, evaluate_splits=["val", "train", "test"])
    val, train, test = map(all_ids, data.test_dataloader())
    assert (len(train), len(val), len(test)) == (28, 4, 8)
    assert len({*train, *val, *test}) == 40
    assert val == all_ids(data.val_dataloader()) == data.datasets["val"].ids
    assert test == all_ids(data.predict_dataloader())
    loader = data.train_dataloader()
    assert len(all_ids(loader)) == 27
    assert loader.sampler.batches == len(loader) == 9
    data = prepared(byte_tokenizer, sms, batch_size=3, drop_last=False)
    loader = data.train_dataloader()
    assert sorted(all_ids(loader)) == sorted(train)
    assert loader.sampler.batches == len(loader) == 10


def test_worker_processes_give_the_same_batches(byte_tokenizer, sms):
    alone, helped = (prepared(byte_tokenizer, sms, num_workers=workers, seed=1) for workers in (0, 1))
    for one, other in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert one["id"] == other["id"]
        assert torch.equal(one["input_ids"], other["input_ids"])


# Padding and cutting


def test_longest_is_that_of_train_and_longer_messages_are_cut_and_counted(byte_tokenizer, tmp_path):
    rows = [f"{label}\t{'x' * 5}" for label in ("ham", "spam") for _ in range(20)]
    path = tmp_path / "sms.tsv"
    path.write_text("\n".join(rows))
    test_ids = prepared(byte_tokenizer, path).datasets["test"].ids
    line = int(test_ids[0][1:]) - 1
    rows[line] += "y" * 4
    path.write_text("\n".join(rows))
    data = prepared(byte_tokenizer, path)
    assert data.report["max_length"] == 5
    assert data.report["longest"] == {"train": 5, "val": 5, "test": 9}
    assert data.report["truncated"] == {"train": 0, "val": 0, "test": 1}
    assert next(iter(data.predict_dataloader()))["length"].max() == 5


@pytest.mark.parametrize(("padding", "width", "truncated"), [("context", 20, 0), (19, 19, 2), (20, 20, 0), (1, 1, 38)])
def test_fixed_lengths_to_the_limit_and_one_off(byte_tokenizer, sms, padding, width, truncated):
    data = prepared(byte_tokenizer, sms, padding=padding, context_length=20)
    assert next(iter(data.train_dataloader()))["input_ids"].shape == (8, width)
    assert sum(data.report["truncated"].values()) == truncated


def test_longest_never_exceeds_the_context(byte_tokenizer, sms):
    data = prepared(byte_tokenizer, sms, context_length=7)
    assert data.report["max_length"] == 7
    assert sum(data.report["truncated"].values()) == 2 * 13


def test_no_padding(byte_tokenizer, sms):
    data = prepared(byte_tokenizer, sms, padding="none", batch_size=1, context_length=15)
    for batch in data.train_dataloader():
        assert batch["input_ids"].shape == (1, int(batch["length"]))
        assert PAD not in batch["input_ids"]
    assert sum(data.report["truncated"].values()) == 2 * 5
    assert data.encoding.single
    data = prepared(byte_tokenizer, sms, padding="none", reads_padding=False, sees_padding=False)
    for batch in data.predict_dataloader():
        assert batch["input_ids"].shape[1] == batch["length"].max()
    assert not data.encoding.single


def test_messages_without_padding_are_evaluated_together_by_length(byte_tokenizer, sms):
    data = prepared(byte_tokenizer, sms, padding="none", sees_padding=False, batch_size=1, split="all")
    batches = list(data.predict_dataloader())
    assert [len(batch["id"]) for batch in data.train_dataloader()] == [1] * len(data.datasets["train"])
    assert max(len(batch["id"]) for batch in batches) == 8
    lengths = [length for batch in batches for length in batch["length"].tolist()]
    assert lengths == sorted(lengths)
    assert sorted(all_ids(batches)) == sorted(data.datasets["test"].ids)
    alone = prepared(byte_tokenizer, sms, padding="none", sees_padding=True, batch_size=1)
    assert {len(batch["id"]) for batch in alone.predict_dataloader()} == {1}
    assert all_ids(alone.predict_dataloader()) == alone.datasets["test"].ids


def test_messages_whose_padding_nothing_reads_are_evaluated_by_length(byte_tokenizer, sms):
    """The model leaves out the columns that are padding in a whole batch."""
    for reads_padding in (False, True):
        data = prepared(byte_tokenizer, sms, reads_padding=reads_padding, batch_size=2, split="all")
        assert data.encoding.pad_to_max
        lengths = [length for batch in data.predict_dataloader() for length in batch["length"].tolist()]
        assert sorted(lengths) == sorted(data.datasets["test"].length.tolist())
        assert (lengths == sorted(lengths)) is not reads_padding


def test_empty_messages_have_one_token_and_are_counted(byte_tokenizer, sms):
    sms.write_text(sms.read_text() + "ham\t\nspam\t  \n")
    with pytest.warns(UserWarning, match="2 empty messages"):
        data = prepared(byte_tokenizer, sms, batch_size=4)
    assert sum(data.report["empty"].values()) == 2
    lengths = {
        name: int(length)
        for split in data.datasets.values()
        for name, length in zip(split.ids, split.length, strict=True)
    }
    assert lengths["r00041"] == 1
    assert lengths["r00042"] == 2
    assert min(lengths.values()) == 1


def test_text_that_ends_in_the_padding_token_keeps_its_length(byte_tokenizer, tmp_path):
    path = tmp_path / "sms.tsv"
    path.write_text("".join(f"{label}\tabc<|endoftext|>\n" for label in ("ham", "spam") * 20))
    data = prepared(byte_tokenizer, path, padding=6)
    batch = next(iter(data.train_dataloader()))
    assert batch["length"].tolist() == [4] * 8
    assert (batch["input_ids"][:, 3:] == PAD).all()


# What is refused


def test_refused_combinations(byte_tokenizer, sms):
    assert "padding: 1100 tokens in a context of 1024" in refusal(
        byte_tokenizer, sms, padding=1100, context_length=1024
    )
    message = refusal(byte_tokenizer, sms, padding="none")
    assert "no padding with batch size 8" in message
    assert "batch_size 1 with accumulate_grad_batches 8, or pooling last_real" in message
    assert "batch_size: 0 batches: 28 train messages" in refusal(byte_tokenizer, sms, batch_size=29)
    short = prepared(byte_tokenizer, sms, batch_size=29, drop_last=False)
    assert [len(batch["id"]) for batch in short.train_dataloader()] == [28]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": 0}, "padding: must be at least 1"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"num_workers": -1}, "num_workers: must be at least 0"),
        ({"fractions": (0.6, 0.2)}, "split: published means"),
        ({"split_seed": 1}, "split: published means"),
        ({"evaluate_splits": []}, "evaluate_splits: name one or more"),
        ({"evaluate_splits": ["test", "test"]}, "evaluate_splits: name one or more"),
        ({"evaluate_splits": ["dev"]}, "evaluate_splits: unknown split .*use train, val, test"),
        ({"labels": ("ham", "Ham ")}, "labels: must be two different"),
        ({"labels": ("no", "yes")}, "labels: the demo messages are labeled ham and spam"),
    ],
)
def test_refused_arguments(options, message):
    with pytest.raises(InputError, match=message):
        SpamDataModule(**options)


def test_missing_file_names_the_sources(byte_tokenizer):
    message = "source: there is no such file (got 'dmeo'); fix: use demo, uci, or the path of a file"
    assert message in refusal(byte_tokenizer, "dmeo")
    with pytest.raises(InputError, match="there is no such file"):
        _ = SpamDataModule("dmeo").data_sha256


# Sources and their identity


def test_demo_is_named_as_made_up(byte_tokenizer):
    data = prepared(byte_tokenizer)
    assert data.report["source"] == "made-up demo messages"
    assert data.report["sizes"] == {"train": 1045, "val": 149, "test": 300}
    assert data.report["sha256"] == SpamDataModule().data_sha256


def test_hash_of_a_file_is_known_before_it_is_encoded(byte_tokenizer, sms):
    before = SpamDataModule(sms).data_sha256
    assert prepared(byte_tokenizer, sms).report["sha256"] == before
    sms.write_text(sms.read_text() + "ham\tone more\n")
    assert SpamDataModule(sms).data_sha256 != before


def test_uci_is_downloaded_when_asked_for_and_only_then(byte_tokenizer, sms, monkeypatch):
    calls = []
    monkeypatch.setattr(download, "fetch_sms_spam", lambda: calls.append(1) or sms)
    for source in ("demo", str(sms)):
        data = SpamDataModule(source)
        data.prepare_data()
        data.prepare(byte_tokenizer, 64)
    assert calls == []
    data = SpamDataModule("uci")
    assert data.data_sha256 == download.MEMBER_SHA256
    assert calls == []
    data.prepare_data()
    assert calls == [1]
    data.prepare(byte_tokenizer, 64)
    assert "UCI" in data.report["source"]


def test_other_labels_and_splits(byte_tokenizer, tmp_path):
    path = tmp_path / "mail.csv"
    path.write_text("label,text\n" + "".join(f"{label},{i}\n" for i in range(30) for label in ("NO", "yes", "no")))
    data = prepared(
        byte_tokenizer, path, split="all", fractions=(0.5, 0.2), labels=("no", "yes"), normalize_labels=True
    )
    assert data.report["sizes"] == {"train": 45, "val": 18, "test": 27}
    assert data.report["positive"] == {"train": 15, "val": 6, "test": 9}
    data = prepared(byte_tokenizer, path, split="balanced", split_seed=4, labels=("no", "yes"), normalize_labels=True)
    assert sum(data.report["sizes"].values()) == 60


# Under a trainer


class Model(L.LightningModule):
    """Remembers which messages it saw."""

    context_length = 64
    reads_padding = sees_padding = True

    def __init__(self, tokenizer: GPT2Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.layer = torch.nn.Linear(1, 1)
        self.seen: dict[int, list[str]] = {}
        self.tested: dict[int, list[str]] = {}
        self.predicted: list[str] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch["id"])
        return self.layer(batch["length"][:, None].float()).mean()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        pass

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.tested.setdefault(dataloader_idx, []).extend(batch["id"])

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.predicted += batch["id"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Path, epochs: int, **options) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("order", ["seeded", "published"])
def test_trainer_visits_each_epoch_in_its_own_order_and_resumes_it(byte_tokenizer, sms, tmp_path, order):
    L.seed_everything(123)
    model = Model(byte_tokenizer)
    data = SpamDataModule(sms, order=order, evaluate_splits=["train", "test"])
    run = trainer(tmp_path, 3)
    run.fit(model, data)
    ids = data.datasets["train"].ids
    for epoch in range(3):
        expected = seeded_order(28, 123, epoch) if order == "seeded" else published_order(28, 3, 123, epoch)
        assert model.seen[epoch] == [ids[index] for index in expected[:24]]

    first = trainer(tmp_path, 1)
    first.fit(Model(byte_tokenizer), SpamDataModule(sms, order=order))
    first.save_checkpoint(tmp_path / "one.ckpt")
    resumed = Model(byte_tokenizer)
    trainer(tmp_path, 3).fit(resumed, SpamDataModule(sms, order=order), ckpt_path=tmp_path / "one.ckpt")
    assert resumed.seen == {epoch: model.seen[epoch] for epoch in (1, 2)}

    run.test(model, data, verbose=False)
    assert model.tested == {0: ids, 1: data.datasets["test"].ids}
    run.predict(model, data, return_predictions=False)
    assert model.predicted == data.datasets["test"].ids


def test_own_seed_beats_the_global_one(byte_tokenizer, sms):
    torch.manual_seed(1)
    first = all_ids(prepared(byte_tokenizer, sms, seed=5).train_dataloader())
    torch.manual_seed(2)
    assert all_ids(prepared(byte_tokenizer, sms, seed=5).train_dataloader()) == first
    second = all_ids(prepared(byte_tokenizer, sms).train_dataloader())
    torch.manual_seed(1)
    assert all_ids(prepared(byte_tokenizer, sms).train_dataloader()) != second


def test_constructor_is_a_config_schema():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SpamDataModule, "data")
    arguments = ["--data=SpamDataModule", "--data.padding=64", "--data.evaluate_splits=[val,test]"]
    config = parser.parse_args([*arguments, "--data.fractions=[0.6,0.2]", "--data.split=balanced"])
    data = parser.instantiate(config).data
    assert (data.padding, data.evaluate_splits, data.fractions) == (64, ("val", "test"), (0.6, 0.2))
    assert parser.parse_string(parser.dump(config)) == config
    for wrong in ("--data.padding=shortest", "--data.evaluate_splits=[dev]", "--data.order=random"):
        with pytest.raises(Exception, match=wrong.split(".")[1].split("=")[0]):
            parser.parse_args(["--data=SpamDataModule", wrong])
