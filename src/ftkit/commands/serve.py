"""``ftkit serve``: a tuned model behind HTTP."""

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ftkit.errors import EnvironmentFault, InputError, at_least
from ftkit.run_folder import need_newest_run

KEY_VARIABLE = "FTKIT_API_KEY"


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    revision: str | None = None,
    adapter: Path | None = None,
    quantization: Literal["8bit", "nf4"] | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device_map: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 1024,
    queue: int = 256,
    timeout: float = 120.0,
    threshold: Path | None = None,
    allowed_hosts: list[str] | None = None,
    root_path: str = "",
) -> None:
    """Answer over HTTP in OpenAI's protocol until Ctrl-C or SIGTERM.

    A generative model has /v1/completions and /v1/chat/completions, a classifier /v1/classify; both have /v1/models
    and /health. Answers are greedy unless a request sets a temperature. Other machines may ask only with the key in
    the environment variable FTKIT_API_KEY.

    Args:
        model: A run folder, a folder in transformers format (or an adapter's), a GGUF file, a hub id, or demo; by
            default the newest run in runs/.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        name: The name that clients use; the model's own if not given.
        revision: Hub revision.
        adapter: A folder with a peft adapter to put on the model.
        quantization: Load the weights in 8 or 4 bits; not for a GGUF file, which is dequantized anyway.
        dtype: Precision of the other weights; auto is the checkpoint's own, but float32 on a CPU.
        device_map: auto spreads a model over all GPUs, and puts a run on the first; or one device, such as cpu.
        batch_size: Largest number of answers generated, or texts classified, at a time.
        max_new_tokens: Largest number of tokens that a request may ask for.
        queue: Largest number of waiting answers. Beyond it requests get 503 with Retry-After; a request larger than
            the queue gets 400.
        timeout: Seconds for one answer, including waiting.
        threshold: A file of `ftkit evaluate --save_threshold`, by which a classifier of two classes decides.
        allowed_hosts: A host name by which clients reach the server, such as a proxy's, without its port; repeat it for
            several.
        root_path: The path below which a proxy offers the server, such as /llm.
    """
    at_least(1, batch_size=batch_size, max_new_tokens=max_new_tokens, queue=queue)
    if not 0 <= port <= 65535:
        raise InputError("must be from 0 to 65535", field="port", got=port)
    if not timeout > 0:
        raise InputError("must be positive", field="timeout", got=timeout)
    if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
        raise InputError("must begin with / and not end with it", field="root_path", got=root_path)
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise EnvironmentFault("fastapi and uvicorn are not installed", fix="pip install 'ftkit[serve]'")
    from ftkit.serving.address import hosts_of, listen

    key = os.environ.get(KEY_VARIABLE) or None
    hosts = hosts_of(host, allowed_hosts or ())
    model = str(need_newest_run()) if model is None else model
    listening = listen(host, port, key)  # before anything that takes long
    print(f"loading {model}", file=sys.stderr, flush=True)  # it may take a while
    from ftkit.commands.serving_setup import load_served
    from ftkit.serving.limits import IMAGE_BODY_BYTES, Limits
    from ftkit.serving.server import make_server, run

    limits = Limits(max_new_tokens=max_new_tokens, seconds=timeout, waiting=queue)
    loading = {"quantization": quantization, "dtype": dtype, "device_map": device_map}
    served = load_served(model, name, revision, adapter, limits, batch_size, threshold, **loading)
    if served.reads_images:
        limits = replace(limits, body_bytes=IMAGE_BODY_BYTES)
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {served.name} on http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends)", flush=True)
    run(make_server(served, limits, hosts, key, root_path), listening)
