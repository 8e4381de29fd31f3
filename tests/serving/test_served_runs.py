"""Runs, folders and adapters behind the server answer as they do in Python; and what is pushed can be served again."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from running_server import Running
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftkit import ArithmeticDataModule, CausalLMSFT, GPT2Classifier
from ftkit.commands.push import write_repository
from ftkit.commands.runs import load_run
from ftkit.commands.serving_setup import load_served
from ftkit.errors import EnvironmentFault, InputError
from ftkit.lightning_cli import FtkitCLI
from ftkit.models.base_model import load_base, load_processor, locate
from ftkit.serving.limits import Limits

TEXTS = ["win cash now! free 1", "see you at five", "ok"]
PLAIN: dict[str, Any] = {"quantization": None, "dtype": "auto", "device_map": None}


@pytest.fixture(scope="module")
def spam(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a classifier."""
    folder = tmp_path_factory.mktemp("runs") / "spam"
    for command in ("fit", "test"):
        arguments = [
            "--config",
            str(tiny_config),
            "--trainer.default_root_dir",
            str(folder),
            "--trainer.max_epochs",
            "1",
        ]
        FtkitCLI([command, *arguments])
    return folder


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a causal language model with adapters, tuned for two steps so hard that its answers change.

    In float32, for merged weights are rounded to the base's type, and a word nearly as likely as another may win then.
    """
    return tuned_on_sums(tmp_path_factory.mktemp("runs") / "sums", "--model.dtype", "float32")


def tuned_on_sums(folder: Path, *more: str) -> Path:
    arguments = ["--model", "ftkit.CausalLMSFT", "--model.base_model", "demo", "--data", "ftkit.ArithmeticDataModule"]
    arguments += ["--data.train_size", "16", "--data.val_size", "2", "--data.test_size", "4", "--data.batch_size", "8"]
    arguments += [
        "--model.optimizer",
        "torch.optim.AdamW",
        "--model.optimizer.lr",
        "0.02",
        "--trainer.accelerator",
        "cpu",
    ]
    arguments += ["--model.max_new_tokens", "8", "--model.adapter", "peft.LoraConfig"]
    arguments += ["--trainer.max_epochs", "1", "--trainer.default_root_dir", str(folder)]
    for command in ("fit", "test"):
        FtkitCLI([command, *arguments, *more, "--trainer.enable_progress_bar", "false"])
    return folder


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    running = []

    def starting(model: Any, adapter: Path | None = None, **loading: Any) -> Running:
        limits = Limits(drain_seconds=5.0)
        served = load_served(str(model), None, None, adapter, limits, 16, **{**PLAIN, **loading})
        running.append(Running(served, limits))
        return running[-1]

    yield starting
    for server in running:
        server.stop()


def test_a_classifier_answers_as_in_python(spam: Path, serving: Callable[..., Running]) -> None:
    server = serving(spam)
    reply = server.post("/v1/classify", {"model": "spam", "input": TEXTS})
    assert reply.status_code == 200
    expected = GPT2Classifier.load(spam).classify(TEXTS)
    for index, (item, result) in enumerate(zip(reply.json()["data"], expected, strict=True)):
        assert (item["index"], item["label"]) == (index, result["label"])
        assert item["probability"] == pytest.approx(result["probability"], abs=1e-6)
    assert server.post("/v1/classify", {"input": "one"}).json()["data"][0]["index"] == 0
    assert server.post("/v1/classify", {"input": ""}).status_code == 400
    assert server.post("/v1/completions", {"prompt": "a"}).status_code == 404


def test_a_pushed_classifier_is_served_like_its_run(spam: Path, tmp_path: Path) -> None:
    from ftkit.commands.runs import class_of
    from ftkit.training.export import export_trained, read_export

    export_trained(spam, tmp_path, "ftkit.GPT2Classifier")
    kind = class_of(tmp_path)
    assert kind is GPT2Classifier
    assert kind.restored(read_export(tmp_path)).classify(TEXTS) == GPT2Classifier.load(spam).classify(TEXTS)


def test_a_tuned_model_is_asked_as_in_training_and_answers_the_same(
    sums: Path, tmp_path: Path, serving: Callable[..., Running]
) -> None:
    module = CausalLMSFT.load(sums, dtype="float32")
    questions = ["1 + 1", "12 + 30", "7 - 4"]
    expected = module.answer(questions)
    base = CausalLMSFT("demo", dtype="float32", max_new_tokens=8)
    assert base.eval().answer(questions) != expected  # or the adapters could be missing

    def answers(server: Running) -> list[str]:
        said = []
        for question in questions:
            body = {"messages": [{"role": "user", "content": question}], "max_tokens": 8}
            choice = server.post("/v1/chat/completions", body).json()["choices"][0]
            said.append(choice["message"]["content"].strip() + ("" if choice["finish_reason"] == "stop" else "…"))
        return said

    assert answers(serving(sums)) == expected
    for merge in (False, True):
        pushed = tmp_path / f"merge-{merge}"
        write_repository(sums, "me/sums", pushed, "transformers" if merge else None)
        assert (pushed / "adapter_config.json").is_file() != merge
        assert (pushed / "model.safetensors").is_file() == merge
        assert answers(serving(pushed)) == expected
    assert answers(serving("demo", adapter=tmp_path / "merge-False")) == expected


def test_a_prompt_of_training_is_the_prompt_of_the_server(sums: Path, serving: Callable[..., Running]) -> None:
    data = ArithmeticDataModule(train_size=4, val_size=2, test_size=2)
    example = data.examples("test")[0]
    prompts = serving(sums).served.prompts
    assert prompts is not None
    question = str(example.prompt).removesuffix(" =")
    assert prompts.chat([{"role": "user", "content": question}]) == prompts.text(str(example.prompt))


def test_a_model_of_spaced_digits_is_served_and_pushed_with_them(
    tmp_path: Path, serving: Callable[..., Running]
) -> None:
    run = tuned_on_sums(tmp_path / "run", "--data.spaced_digits", "true")
    write_repository(run, "me/sums", tmp_path / "pushed")
    data = ArithmeticDataModule(train_size=40, spaced_digits=True)
    question, example = next(
        (problem.question, example)
        for problem, example in zip(data.problems("train"), data.examples("train"), strict=True)
        if example.prompt != f"{problem.question} ="
    )
    for folder in (run, tmp_path / "pushed"):
        prompts = serving(folder).served.prompts
        assert prompts is not None
        assert prompts.chat([{"role": "user", "content": question}]) == prompts.text(str(example.prompt))


@pytest.mark.parametrize("chat", ["null", "false"])
def test_a_model_with_a_chat_template_is_pushed_with_its_way_of_asking(
    chat: str, tmp_path: Path, serving: Callable[..., Running]
) -> None:
    shutil.copytree(locate("demo"), tmp_path / "base")
    tokenizer = load_processor(AutoTokenizer, "demo")
    tokenizer.chat_template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "base")
    run = tuned_on_sums(tmp_path / "run", "--model.base_model", str(tmp_path / "base"), "--data.chat", chat)
    write_repository(run, "me/sums", tmp_path / "pushed", "transformers")
    for folder in (run, tmp_path / "pushed"):
        prompts = serving(folder).served.prompts
        assert prompts is not None
        asked = prompts.renderer.tokenizer.decode(prompts.chat([{"role": "user", "content": "1 + 1"}]))
        assert asked == ("1 + 1 =" if chat == "false" else "<user>1 + 1 =")


@pytest.mark.parametrize("quantization", ["8bit", "nf4"])
def test_weights_of_few_bits_answer_as_transformers_makes_them(
    quantization: Any, serving: Callable[..., Running]
) -> None:
    server = serving("demo", quantization=quantization)
    said = server.post("/v1/completions", {"prompt": "URGENT you have", "max_tokens": 6}).json()["choices"][0]["text"]
    prompts = server.served.prompts
    assert prompts is not None
    ids = torch.tensor([prompts.text("URGENT you have")])
    net = load_base(AutoModelForCausalLM, "demo", quantization=quantization, dtype="float32").eval()
    written = net.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert said == prompts.renderer.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    assert server.served.thread.engine.model.get_memory_footprint() < 0.6 * 347_520 * 4  # type: ignore[attr-defined]


def test_a_run_of_few_bits_is_put_together_on_its_device(sums: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving quantized weights afterwards can undo the quantization."""

    class BuiltError(Exception):
        pass

    def built(*base: Any) -> None:
        raise BuiltError(*base[-3:])

    monkeypatch.setattr("ftkit.training.generative.load_base", built)
    with pytest.raises(BuiltError) as found:
        load_run(sums, quantization="nf4", dtype="float32", device_map="meta")
    assert found.value.args == ("nf4", "float32", torch.device("meta"))


def test_what_cannot_be_served_is_told(tmp_path: Path, spam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: Any, adapter: Path | None = None, **loading: Any) -> None:
        load_served(str(model), None, None, adapter, Limits(), 1, **{**PLAIN, **loading})

    with pytest.raises(InputError, match="no such folder"):
        load("/no/such/folder")
    with pytest.raises(InputError, match="adapter: comes with the run and cannot be given"):
        load(spam, adapter=tmp_path)
    with pytest.raises(InputError, match="quantization: does not apply to a classifier"):
        load(spam, quantization="nf4")
    with pytest.raises(InputError, match=r"contains no adapter_config\.json"):
        load("demo", adapter=tmp_path)
    with pytest.raises(InputError, match="device_map: no such device"):
        load("demo", device_map="gpu-of-mine")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="device_map: there is no GPU"):
        load("demo", device_map="cuda:0")
    (tmp_path / "checkpoints").mkdir()
    for made_by, message in (
        ("os.system", r"was made by a class that is not ftkit's .*os\.system"),
        ("ftkit.gone.Model", r"class_path: was made by another version of ftkit \(got 'ftkit\.gone\.Model'\); fix: "),
    ):
        stored = {"state_dict": {}, "hyper_parameters": {"_class_path": made_by}}
        torch.save(stored, tmp_path / "checkpoints" / "last.ckpt")
        with pytest.raises(InputError, match=message):
            load(tmp_path)


def test_device_map_auto_is_the_cpu_where_there_is_no_gpu(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    server = serving("demo", device_map="auto")
    reply = httpx.get(f"{server.url}/v1/models", trust_env=False)
    assert [model["id"] for model in reply.json()["data"]] == ["demo"]
