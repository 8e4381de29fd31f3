"""What one of two processes does in a test; apart from the tests, so that a new process imports little."""

import torch
import torch.distributed as dist

from ftkit.results.binary import BinaryEvaluator


def one_of_two(rank, address, preds, target, results):
    """Rank 1 gets one of rank 0's examples again, as a distributed sampler pads; of the second metric it gets none."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    rows = torch.tensor([0, 2, 4, 6, 8] if rank == 0 else [1, 3, 5, 7, 0])
    with_ids, without = BinaryEvaluator(), BinaryEvaluator()
    for part in rows.split(2):
        with_ids.update(preds[part], target[part], ids=part)
    if rank == 0:
        without.update(preds, target)
    cells = [evaluator.report().counts for evaluator in (with_ids, without)]
    results.put((rank, [*cells, {name: float(value) for name, value in with_ids.compute().items()}]))
    dist.barrier()
    dist.destroy_process_group()
