"""Clients and evaluation harnesses of others against the server; each is skipped where its package is not installed."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml  # type: ignore[import-untyped]

QUESTIONS = [
    {"question": "1+1=", "choices": ["2", "3", "11"], "answer": 0},
    {"question": "sky is", "choices": [" blue", " green and red"], "answer": 0},
    {"question": "a", "choices": ["b", "c"], "answer": 1},
]


def test_langchain(server: Any) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    options = {"base_url": f"{server.url}/v1", "api_key": "unused", "model": "tiny", "temperature": 0, "max_retries": 0}
    text = langchain_openai.OpenAI(**options, max_tokens=8).invoke("12+7=")
    assert text == server.client.completions.create(model="tiny", prompt="12+7=", max_tokens=8).choices[0].text
    chat = langchain_openai.ChatOpenAI(**options, max_tokens=8)
    messages = [{"role": "user", "content": "1+1"}]
    answer = server.client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
    assert chat.invoke("1+1").content == answer.choices[0].message.content
    assert "".join(str(chunk.content) for chunk in chat.stream("1+1")) == answer.choices[0].message.content


def test_llm(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = pytest.importorskip("llm")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    models = [
        {"model_id": "chat", "model_name": "tiny", "api_base": f"{server.url}/v1"},
        {"model_id": "text", "model_name": "tiny", "api_base": f"{server.url}/v1", "completion": True},
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    expected = server.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "1+1"}], max_tokens=8
    )
    for stream in (False, True):
        answer = llm.get_model("chat").prompt("1+1", max_tokens=8, key="unused", stream=stream)
        assert answer.text() == expected.choices[0].message.content
    answer = llm.get_model("text").prompt("1+1", max_tokens=8, key="unused")
    assert answer.text() == server.client.completions.create(model="tiny", prompt="1+1", max_tokens=8).choices[0].text


NODE = """
const OpenAI = require("openai");
const client = new OpenAI({baseURL: process.argv[1] + "/v1", apiKey: "unused", maxRetries: 0});
const messages = [{role: "user", content: "1+1"}];
(async () => {
  const text = await client.completions.create({model: "tiny", prompt: "12+7=", max_tokens: 8});
  const chat = await client.chat.completions.create({model: "tiny", messages, max_tokens: 8});
  let pieces = "";
  const stream = await client.chat.completions.create({model: "tiny", messages, max_tokens: 8, stream: true});
  for await (const chunk of stream)
    pieces += chunk.choices[0]?.delta?.content ?? "";
  const refused = await client.completions.create({model: "tiny", prompt: ""}).catch(error => error.status);
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  console.log(JSON.stringify([text.choices[0].text, chat.choices[0].message.content, pieces, refused, models]));
})();
"""


def test_the_client_of_node(server: Any) -> None:
    """Found where Node.js looks for packages, NODE_PATH among these (`npm install openai`)."""
    if (
        shutil.which("node") is None
        or subprocess.run(["node", "-e", 'require("openai")'], capture_output=True).returncode
    ):
        pytest.skip("Node.js with the package openai is not installed")
    ended = subprocess.run(["node", "-e", NODE, server.url], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    chat = server.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "1+1"}], max_tokens=8
    )
    text = server.client.completions.create(model="tiny", prompt="12+7=", max_tokens=8).choices[0].text
    content = chat.choices[0].message.content
    assert json.loads(ended.stdout) == [text, content, content, 400, ["tiny"]]


def task(folder: Path, name: str, examples: list[dict[str, Any]], **options: Any) -> None:
    """Write a task of lm-eval with its data."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(example) + "\n" for example in examples))
    about = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        **options,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(about))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with tasks of multiple choice, likelihood, rolling perplexity and generation."""
    choose = {"doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", "doc_to_choice": "{{choices}}"}
    task(tmp_path, "choice", QUESTIONS, output_type="multiple_choice", **choose)
    texts = [
        {"text": "the quick brown fox", "last": " jumps over"},
        {"text": "zz " * 25, "last": " top"},
    ]  # cut from the left
    task(tmp_path, "likelihood", texts, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="{{last}}")
    long = [{"text": "a text that is longer than what the context of this model holds, which is sixty-four tokens"}]
    rolling = {"doc_to_text": "", "doc_to_target": "{{text}}", "metric_list": [{"metric": "bits_per_byte"}]}
    task(tmp_path, "rolling", long, output_type="loglikelihood_rolling", **rolling)
    generate = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    answers = {"doc_to_text": "{{question}}", "doc_to_target": "{{choices[answer]}}", "generation_kwargs": generate}
    metrics = {"metric_list": [{"metric": "exact_match"}]}
    task(tmp_path, "generation", QUESTIONS, output_type="generate_until", **answers, **metrics)
    return tmp_path


def evaluated(tasks: Path, names: list[str], model: str, **options: Any) -> dict[str, list[Any]]:
    """What a model answered to each example of each task."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(model, tasks=names, task_manager=manager, bootstrap_iters=0, log_samples=True, **options)
    samples = {name: sorted(rows, key=lambda row: row["doc_id"]) for name, rows in found["samples"].items()}
    return {name: [row["filtered_resps"] for row in rows] for name, rows in samples.items()}


def flat(values: Any) -> list[Any]:
    """Log-probabilities in nested lists of answers, and whether each was the most likely one, as text."""
    if isinstance(values, list | tuple):
        return [one for value in values for one in flat(value)]
    return [str(values) if isinstance(values, bool) else float(values)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_lm_eval_measures_the_likelihoods_that_it_computes_itself(
    server: Any, gpt2_folder: Path, tasks: Path, batch_size: int
) -> None:
    pytest.importorskip("lm_eval")
    names = ["choice", "likelihood", "rolling"]
    url = f"{server.url}/v1/completions"
    served = {"model": "tiny", "base_url": url, "tokenizer_backend": "huggingface", "tokenizer": str(gpt2_folder)}
    ours = evaluated(tasks, names, "local-completions", model_args={**served, "max_length": 64}, batch_size=batch_size)
    # The harness itself, over the same weights; it gives a window one token more than its client of a server does.
    local = {"pretrained": str(gpt2_folder), "max_length": 62, "dtype": "float32", "device": "cpu"}
    theirs = evaluated(tasks, names, "hf", model_args=local)
    for name in names:
        assert len(ours[name]) >= 1
        assert flat(ours[name]) == [
            value if isinstance(value, str) else pytest.approx(value, abs=1e-4) for value in flat(theirs[name])
        ]


def test_lm_eval_generates_through_both_endpoints(server: Any, gpt2_folder: Path, tasks: Path) -> None:
    pytest.importorskip("lm_eval")
    asked = {"model": "tiny", "max_tokens": 8, "stop": ["\n\n"]}
    served = {"model": "tiny", "tokenizer_backend": "huggingface", "tokenizer": str(gpt2_folder), "max_length": 64}
    url = f"{server.url}/v1/completions"
    texts = evaluated(tasks, ["generation"], "local-completions", model_args={**served, "base_url": url})
    for example, answer in zip(QUESTIONS, texts["generation"], strict=True):
        expected = server.client.completions.create(prompt=example["question"], **asked)
        assert answer == [expected.choices[0].text]
    served = {"model": "tiny", "base_url": f"{server.url}/v1/chat/completions"}
    chats = evaluated(tasks, ["generation"], "local-chat-completions", model_args=served, apply_chat_template=True)
    for example, answer in zip(QUESTIONS, chats["generation"], strict=True):
        messages = [{"role": "user", "content": example["question"]}]
        expected = server.client.chat.completions.create(messages=messages, **asked)
        assert answer == [expected.choices[0].message.content]


@pytest.mark.slow
def test_two_thousand_requests_leave_no_memory_behind(server: Any) -> None:
    client, process = server.client, psutil.Process()

    def ask(number: int) -> None:
        options: dict[str, Any] = {"echo": True, "logprobs": 5} if number % 3 == 0 else {}
        client.completions.create(model="tiny", prompt=f"{number} " + "x" * (number % 40), max_tokens=4, **options)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(500)))
        before = process.memory_info().rss
        list(pool.map(ask, range(2000)))
    assert process.memory_info().rss - before < 20_000_000
