"""Throughput of `ftkit serve` against a plain server that answers one request at a time, in the same run.

The plain server is what one writes first: an HTTP handler that calls transformers' `generate` under a lock. Both load
the same model in a process of their own with the same number of threads, get the same greedy requests from as many
clients at once, in turn, several times; the script refuses to report times for answers that differ::

    python benchmarks/bench_serve.py                           # the demo model of size xl
    python benchmarks/bench_serve.py --random 12 768 12        # random weights: layers, width, heads (GPT-2 small)
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from contest import write_record

SERVERS = ("ftkit", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-xl")
    parser.add_argument("--random", type=int, nargs=3, metavar=("LAYERS", "WIDTH", "HEADS"))
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--serve-plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_plain:
        serve_plain(options.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_random(Path(folder), *options.random) if options.random else options.model
        addresses, processes = zip(*(start(name, model, options.threads) for name in SERVERS), strict=True)
        try:
            record = compare(dict(zip(SERVERS, addresses, strict=True)), options)
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    record["model"] = f"random GPT-2 {options.random}" if options.random else options.model
    record |= {"requests": options.requests, "tokens": options.tokens, "threads": options.threads}
    for name in SERVERS:
        print(f"{name:>8}: {record[name]['tokens_per_second']:,.0f} tokens/s, {record[name]['seconds']:.2f} s")
    print(f"{'ratio':>8}: {record['throughput_ratio']:.2f} (ftkit / plain)")
    name = f"{datetime.date.today()}-serve-{'random' if options.random else options.model}.json"
    write_record(options.results / name, record)


def compare(addresses: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Ask both servers in turn; median seconds, tokens per second and the ratio."""
    seconds: dict[str, list[float]] = {name: [] for name in SERVERS}
    answers: dict[str, list[Any]] = {}
    for address in addresses.values():  # the first requests pay for what is set up once
        ask_all(address, 2, options.tokens)
    for _ in range(options.repeats):
        for name, address in addresses.items():
            started = time.perf_counter()
            answers[name] = ask_all(address, options.requests, options.tokens)
            seconds[name].append(time.perf_counter() - started)
    if answers["ftkit"] != answers["plain"]:
        sys.exit("the answers differ, so their times cannot be compared")
    generated = sum(tokens for _, tokens in answers["ftkit"])
    record: dict[str, Any] = {}
    for name in SERVERS:
        median = statistics.median(seconds[name])
        record[name] = {"seconds": median, "all_seconds": seconds[name], "tokens_per_second": generated / median}
    return {**record, "throughput_ratio": record["plain"]["seconds"] / record["ftkit"]["seconds"]}


def ask_all(address: str, count: int, tokens: int) -> list[tuple[str, int]]:
    """Text and number of tokens of ``count`` requests sent at once."""
    with httpx.Client(trust_env=False, timeout=600) as client, ThreadPoolExecutor(count) as pool:

        def ask(number: int) -> tuple[str, int]:
            prompt = f"message {number}: you have " + "won " * (number % 7)
            reply = client.post(f"{address}/v1/completions", json={"prompt": prompt, "max_tokens": tokens})
            reply.raise_for_status()
            body = reply.json()
            return body["choices"][0]["text"], body["usage"]["completion_tokens"]

        return list(pool.map(ask, range(count)))


def start(name: str, model: str, threads: int) -> tuple[str, subprocess.Popen[str]]:
    """Start a server in a process of its own; its address is in the first line that it prints."""
    command = [sys.executable, "-m", "ftkit", "serve", model, "--port", "0"]
    if name == "plain":
        command = [sys.executable, __file__, "--serve-plain", "--model", model]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    address = process.stdout.readline().split(" on ")[1].split()[0]
    while True:
        try:
            httpx.get(f"{address}/health", trust_env=False)
            return address, process
        except httpx.ConnectError:
            time.sleep(0.1)


def serve_plain(model: str) -> None:
    """Answer one request at a time."""
    import torch

    from ftkit.serving.loading import load_generator

    net, tokenizer = load_generator(model)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            inputs = tokenizer(body["prompt"], return_tensors="pt").to(net.device)
            with lock, torch.inference_mode():
                output = net.generate(**inputs, do_sample=False, max_new_tokens=body["max_tokens"], pad_token_id=0)
            new = output[0, inputs["input_ids"].shape[1] :]
            choices = [{"text": tokenizer.decode(new, skip_special_tokens=True)}]
            self._reply({"choices": choices, "usage": {"completion_tokens": len(new)}})

        def _reply(self, content: Any) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"plain server on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def make_random(folder: Path, layers: int, width: int, heads: int) -> str:
    """A GPT-2 with random weights and the demo's tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from ftkit.models.base_model import load_processor

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=2048,
        n_positions=256,
        bos_token_id=2047,
        eos_token_id=2047,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    load_processor(AutoTokenizer, "demo").save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
