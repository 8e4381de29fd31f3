"""FSDP2: each process holds a part of every weight, gradient and optimizer state; ``--trainer.strategy fsdp2``."""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import lightning as L
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, StrategyRegistry
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from ftkit.errors import InputError
from ftkit.models.transformers_internals import is_block, mark_sharded
from ftkit.training.lightning_internals import attached_trainer, join_all_processes


class FullySharded(ModelParallelStrategy):
    """Lightning's FSDP2 strategy over all processes, with checkpoints that any other strategy reads too.

    A checkpoint is one file with whole weights, put together and written by the first process, checked like any other
    when it is read. Its optimizer states are numbered as torch numbers them, so a run can go on with another number of
    processes, or without sharding.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Take all processes for one group."""
        join_all_processes(self)
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Return True: Lightning restores the optimizer through :meth:`load_optimizer_state_dict`."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint on every process; nothing is put into the model before the model has looked at it."""
        return self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole weights into the shards."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer on the first process; the others get nothing."""
        assert self.model is not None
        optimizer = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, optimizer, options=options)
        return _renamed(state, {name: number for number, name in enumerate(self._names(optimizer))}) if state else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole optimizer states into the shards."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, strict=False)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = _renamed(state, dict(enumerate(self._names(optimizer))))
            set_optimizer_state_dict(self.model, optimizer, named, options=options)

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Return the names of an optimizer's parameters, in its order."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


StrategyRegistry.register("fsdp2", FullySharded, description="Weights in parts, one a process (fully_shard)")


def shard(module: L.LightningModule, net: nn.Module) -> None:
    """Shard every weight over the processes, block by block and then the rest, if the strategy is ``fsdp2``.

    Args:
        module: The LightningModule, in ``configure_model``.
        net: Its network, with its adapters and its trainable parameters chosen.

    Raises:
        InputError: The strategy is Lightning's own, whose checkpoints are folders that nothing checks; the weights are
            quantized; or the model is trained on preferences.
    """
    strategy = None if (trainer := attached_trainer(module)) is None else trainer.strategy
    if not isinstance(strategy, ModelParallelStrategy):
        return
    if not isinstance(strategy, FullySharded):
        raise InputError("is not supported", field="trainer.strategy", got=type(strategy).__name__, fix="use fsdp2")
    if (quantization := getattr(module, "quantization", None)) is not None:
        raise InputError("quantized weights cannot be sharded", field="quantization", got=quantization, fix="use ddp")
    if getattr(module, "preference", False):  # it runs parts of the network that are no forward pass of the whole
        raise InputError("training on preferences needs whole weights", field="trainer.strategy", fix="use ddp")
    for parameter in net.parameters():
        parameter.data = parameter.data.contiguous()  # PyTorch cannot shard a view of a transposed weight
    mesh = strategy.device_mesh["data_parallel"]
    for block in reversed(list(net.modules())):
        if is_block(block):
            fully_shard(block, mesh=mesh)
    whole: Any = fully_shard(net, mesh=mesh)
    mark_sharded(whole)
    whole.gathered = MethodType(lambda _, function, *args: function(*args), whole)
    register_fsdp_forward_method(whole, "gathered")


def holds_whole_network(trainer: L.Trainer) -> bool:
    """Return whether each process holds every weight, so that a part of the network can be run by itself."""
    return isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)


def gathered(net: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that runs parts of a network; meanwhile a sharded one's weights outside its blocks are whole."""
    return function(*args) if not isinstance(net, FSDPModule) else net.gathered(function, *args)  # type: ignore[attr-defined]


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an optimizer's state with other keys for the parameters."""
    groups = [{**group, "params": [names[key] for key in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[key]: value for key, value in state["state"].items()}, "param_groups": groups}
