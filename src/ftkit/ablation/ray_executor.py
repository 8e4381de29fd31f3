"""Execute the runs of a sweep on the machines of a Ray cluster, or on this one's processors.

Every machine must see the output folder, the configs and the data under the same paths. The ledger stays with the
process that started the sweep: a run counts when its result is in place, however often its worker died.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftkit.ablation.executor import Engine, Job, Outcome, run_job
from ftkit.errors import EnvironmentFault

ATTEMPTS = 4  # of a run whose worker died


def on_ray(engine: Engine, jobs: Sequence[Job], on_start: Callable[[Job], None]) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs as Ray tasks: on the cluster that ``RAY_ADDRESS`` names, or else one for this machine.

    A task takes one processor, and one GPU where the cluster has any. A run whose worker died is repeated.

    Raises:
        EnvironmentFault: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        problem, got = f"the Ray cluster cannot be reached: {error}", os.environ.get("RAY_ADDRESS")
        raise EnvironmentFault(problem, got=got, fix="check RAY_ADDRESS") from error
    signal.signal(signal.SIGTERM, on_termination)  # Ray's own handler would end the process with code 15
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_run_there)
        running = {}
        for job in jobs:
            on_start(job)
            running[task.remote(engine, job, Path.cwd())] = job
        while running:
            (ended,), _ = ray.wait(list(running))
            yield running.pop(ended), _outcome(ray, ended)
    finally:
        ray.shutdown()


def _run_there(engine: Engine, job: Job, folder: Path) -> Outcome:
    os.chdir(folder)  # data files may be named from there
    return run_job(engine, job)


def _outcome(ray: Any, ended: Any) -> Outcome:
    try:
        return ray.get(ended)
    except ray.exceptions.RayError as error:
        return Outcome("failed", f"its worker died {ATTEMPTS} times", str(error))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    try:
        import ray
    except ImportError:
        fix = "pip install 'ftkit[ray]'"
        raise EnvironmentFault("Ray is not installed", field="executor", got="ray", fix=fix) from None
    return ray
