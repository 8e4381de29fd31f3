"""What clients that send the longest bodies and leave cost `ftkit serve`: memory, and delay of ordinary requests.

One client asks ordinary requests one after another: first alone, then while others send bodies of nearly a megabyte,
with one prompt each, and close the connection without waiting for the answer. Memory is the resident memory of the
server before, at its highest, and after the others have gone::

    python benchmarks/bench_serve_limits.py                      # the demo model of size xl
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench_serve import start
from contest import write_record

BODY_BYTES = 990_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-xl")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of each client between its bodies")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    address, process = start("ftkit", options.model, 1)
    try:
        record = measure(address, process.pid, options)
    finally:
        process.terminate()
        process.wait()
    for name, value in record.items():
        print(f"{name:>28}: {value}")
    write_record(options.results / f"{datetime.date.today()}-serve-limits.json", record)


def measure(address: str, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ask alone, then beside the clients that leave; seconds and MB."""
    ask_for(address, 2.0)  # the first requests pay for what is set up once
    before = memory(pid, "VmRSS")
    alone = ask_for(address, options.seconds / 2)
    stop, sent = multiprocessing.Event(), multiprocessing.Value("i", 0)
    flood = multiprocessing.Process(target=send_and_leave, args=(address, options.clients, options.pause, stop, sent))
    flood.start()
    beside = ask_for(address, options.seconds)
    stop.set()
    flood.join()
    time.sleep(5)
    after = memory(pid, "VmRSS")
    health = httpx.get(f"{address}/health", trust_env=False).json()
    return {
        "model": options.model,
        "clients": options.clients,
        "pause_s": options.pause,
        "body_bytes": BODY_BYTES,
        "bodies_sent": sent.value,
        "ordinary_alone": described(alone),
        "ordinary_beside": described(beside),
        "memory_mb": {"before": before, "highest": memory(pid, "VmHWM"), "after": after},
        "health_after": {name: health[name] for name in ("status", "running", "waiting")},
    }


def ask_for(address: str, seconds: float) -> list[float]:
    """Ask ordinary requests one after another for so long; the seconds of each."""
    taken, end = [], time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=120) as client:
        while time.monotonic() < end:
            started = time.perf_counter()
            reply = client.post(f"{address}/v1/completions", json={"prompt": "you have won", "max_tokens": 8})
            reply.raise_for_status()
            taken.append(time.perf_counter() - started)
    return taken


def described(seconds: list[float]) -> dict[str, float]:
    """Requests, median, 95th percentile and longest, in milliseconds."""
    ordered = sorted(seconds)
    values = {"median": statistics.median(ordered), "p95": ordered[int(0.95 * len(ordered))], "longest": ordered[-1]}
    return {"requests": len(ordered)} | {f"{name}_ms": round(value * 1000, 1) for name, value in values.items()}


def memory(pid: int, field: str) -> int:
    """Resident memory of a process in MB: now (VmRSS) or at its highest (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{field}:"))


def send_and_leave(address: str, clients: int, pause: float, stop: Any, sent: Any) -> None:
    """Send the longest bodies from many connections and close each without waiting for an answer."""
    body = json.dumps({"prompt": "won a prize, " * (BODY_BYTES // 13), "max_tokens": 8}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    request = f"{head}{len(body)}\r\n\r\n".encode() + body
    place = (urlsplit(address).hostname, urlsplit(address).port)

    def client() -> None:
        while not stop.is_set():
            try:
                with socket.create_connection(place, timeout=30) as connection:
                    connection.sendall(request)
                    time.sleep(0.05)
                with sent.get_lock():
                    sent.value += 1
            except OSError:
                pass  # the server may refuse while it has enough to do
            stop.wait(pause)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
