"""A decoder or encoder of any family as embeddings, a list of blocks and a final norm."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from ftkit.errors import InputError, first_line
from ftkit.models import one_position
from ftkit.models import transformers_internals as internals
from ftkit.models.adapters import add_adapter
from ftkit.models.attention import quick_attention
from ftkit.models.base_model import plain_model
from ftkit.models.virtual_tokens import has_virtual_tokens, virtual_tokens, with_virtual_tokens

Weights = Literal["pretrained", "random", "random_transformers"]
Arguments = Sequence[dict[str, Any]]  # of each block

_PROBE = ((1, 2, 3), (1, 2, 0))  # two texts that differ in their last token
_ROUNDING = 1e-5  # of equal numbers in one batch, as a share of the largest
_TOLERANCE = 1e-4  # of the largest hidden state
_SHAPES = 64  # number of batch shapes whose arguments are cached
_FAILURES = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A decoder or encoder without its language-model head, in pieces that can be run apart.

    What a piece is called with is what the model's own forward pass calls it with. When the backbone is made, the
    pieces are run on a few tokens and compared with the whole model, and so is the last block at one position: what
    does not come to the same is not used.

    Args:
        model: A transformers model without a head, such as ``AutoModel`` loads.
        causal: Whether a position sees only itself and those before it. If not, a decoder gets a mask of four
            dimensions. An encoder is never causal.

    Attributes:
        encoder: Whether the model is an encoder, whose positions see all others.
        hidden_size: Width of the hidden states.
        splits: Whether the pieces can be run apart; if not, only :meth:`forward` works.
        one_position: Whether the last block can be run for one position of each sequence.
        runs_blocks: Methods that may run blocks without calling them,
            see :class:`ftkit.training.compiled.CompiledTraining`.

    Raises:
        InputError: The model takes no mask of four dimensions although ``causal`` is false, or its positions see others
            than those of a decoder, or of an encoder, do.
    """

    runs_blocks: ClassVar[tuple[str, ...]] = ("run_last_block",)

    def __init__(self, model: PreTrainedModel, causal: bool = True) -> None:
        super().__init__()
        self.model: Any = model
        self.config = model.config
        self.encoder = internals.is_encoder(model.config)
        self.causal = causal and not self.encoder
        self.hidden_size: int = model.config.get_text_config().hidden_size
        self._parts = internals.block_parts(model)
        self._known: dict[Any, Arguments] = {}  # where nothing masks padding they depend on the batch's shape only
        self._probe()

    def add_adapter(self, adapter: PeftConfig) -> None:
        """Freeze the model and put a trainable adapter on it, see :func:`ftkit.models.adapters.add_adapter`.

        The pieces are compared again, with other values in the adapter than its first ones, which often change nothing.
        Behind virtual tokens the model runs as a whole.

        Raises:
            InputError: peft or the model refuses.
        """
        got = type(adapter).__name__
        if virtual_tokens(adapter) and not self._makes_mask:
            problem, fix = "virtual tokens need a causal mask", "use causal_mask: true"
            raise InputError(problem, field="adapter", got=got, fix=fix)
        self.model = add_adapter(self.model, adapter, "FEATURE_EXTRACTION")
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        first = [parameter.detach().clone() for parameter in trained]
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter).to(parameter))
            try:
                self._probe()
                if virtual_tokens(adapter):
                    texts = torch.tensor(_PROBE, device=self.plain.device)
                    self(texts, torch.ones_like(texts))
            except _FAILURES as error:
                problem = f"{self._family} does not run with it: {first_line(error)}"
                raise InputError(problem, field="adapter", got=got) from error
            for parameter, value in zip(trained, first, strict=True):
                parameter.copy_(value)

    @property
    def plain(self) -> Any:
        """Return the transformers model itself, without a wrapper around it; its adapters stay active."""
        return plain_model(self.model)

    @property
    def blocks(self) -> nn.ModuleList:
        """Return the transformer blocks, first to last; none if they were not found."""
        found = nn.ModuleList() if self._parts is None else self.plain.get_submodule(self._parts.blocks)
        return cast(nn.ModuleList, found)

    @property
    def norm(self) -> nn.Module:
        """Return the norm behind the last block; the identity where there is none."""
        if self._parts is None or self._parts.norm is None:
            return nn.Identity()
        return self.plain.get_submodule(self._parts.norm)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return hidden states (B, T, D) before the first block, for ``input_ids`` (B, T) int64."""
        assert self._parts is not None
        return internals.embed(self.plain, self._parts, input_ids)

    def block_arguments(self, hidden: Tensor, real: Tensor | None) -> Arguments:
        """Return the keyword arguments of each block.

        Args:
            hidden: A batch of hidden states (B, T, D) of any depth.
            real: 1 for real tokens and 0 for padding, (B, T) int64; None lets padding be attended to.
        """
        if not self.causal or real is not None:
            return self._block_arguments(hidden, self._mask(hidden, real))
        kind = (hidden.shape[:2], hidden.dtype, hidden.device, torch.is_inference_mode_enabled())
        key = (*kind, internals.attention_implementation(self.config))
        found = self._known.pop(key, None) or self._block_arguments(hidden, None)
        self._known[key] = found  # the last one used is the last one dropped
        if len(self._known) > _SHAPES:
            del self._known[next(iter(self._known))]
        return found

    def run_blocks(self, hidden: Tensor, arguments: Arguments, start: int = 0, stop: int | None = None) -> Tensor:
        """Run blocks ``start`` to ``stop`` (exclusive) on ``hidden`` (B, T, D); the final norm is not applied."""
        for block, given in zip(self.blocks[start:stop], arguments[start:stop], strict=True):
            with quick_attention(block, hidden):
                hidden = internals.run_block(block, hidden, given)
        return hidden

    def run_last_block(self, hidden: Tensor, arguments: Arguments, position: Tensor) -> Tensor:
        """Run the last block for one position a sequence: nothing reads its output anywhere else.

        Args:
            hidden: Hidden states before the block (B, T, D).
            arguments: What :meth:`block_arguments` returned.
            position: The position of each sequence, (B,) int64.

        Returns:
            Hidden states behind the block at ``position`` (B, D), before the final norm.
        """
        block, last = self.blocks[-1], len(self.blocks) - 1
        if self.one_position and one_position.runs_at_one_position(self.plain, block):
            return one_position.run_block_at(block, hidden, arguments[-1], position)
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.run_blocks(hidden, arguments, last)[rows, position]

    def forward(self, input_ids: Tensor, real: Tensor | None = None) -> Tensor:
        """Return hidden states (B, T, D) behind the final norm: the model's own forward pass."""
        inputs = {"input_ids": input_ids, "attention_mask": self._mask(input_ids, real)}
        if has_virtual_tokens(self.model):
            inputs = with_virtual_tokens(self.model, inputs)
        return self.plain(**inputs, use_cache=False)[0][:, -input_ids.shape[1] :]

    @torch.no_grad()
    def _block_arguments(self, hidden: Tensor, mask: Tensor | None) -> Arguments:
        assert self._parts is not None
        return internals.block_arguments(self.plain, self._parts, hidden, mask)

    def _mask(self, batch: Tensor, real: Tensor | None) -> Tensor | None:
        """Return the attention mask that the model takes for a batch (B, T) or (B, T, D)."""
        if self._makes_mask:
            return real
        seen = torch.ones(1, batch.shape[1], device=batch.device) if real is None else real
        try:
            return internals.attention_mask_4d(self.plain, seen.bool())
        except ValueError as error:
            raise self._always_causal(str(error)) from error

    @torch.no_grad()
    def _probe(self) -> None:
        """Find out what the model can do on two texts that differ in their last token.

        A fake model has no numbers to compare: it is taken to do what its parts are made for.
        """
        training, input_ids = self.model.training, torch.tensor(_PROBE, device=self.plain.device)  # (2, T)
        if input_ids.untyped_storage().device.type == "meta":
            self.splits = self.one_position = self._parts is not None and not has_virtual_tokens(self.model)
            return
        self.eval()
        self.splits = self.one_position = False
        wanted = self._run_whole(input_ids)
        why = self._take_apart(input_ids, wanted)
        self.train(training)
        if why:
            _log.warning(
                "%s cannot be split into blocks (%s): it runs as a whole, so frozen blocks are recomputed in every "
                "epoch and the last block at every position",
                self._family,
                why,
            )

    def _run_whole(self, input_ids: Tensor) -> Tensor:
        """Run the model and see that tokens attend to those behind them just where they should."""
        try:
            states = self(input_ids)
        except _FAILURES as error:
            if self._makes_mask:
                raise
            raise self._always_causal(first_line(error)) from error
        one, other = states[0, 0], states[1, 0]  # of a batch, which may be rounded apart
        sees_ahead = bool((one - other).abs().max() > _ROUNDING * one.abs().max())
        if self.encoder and not sees_ahead:
            raise InputError("is not an encoder: its tokens ignore later ones", field="base_model", got=self._family)
        if self.causal and sees_ahead:
            raise InputError("is not a decoder: its tokens attend to later ones", field="base_model", got=self._family)
        if not self.causal and not sees_ahead:
            raise self._always_causal("it ignores one")
        return states

    def _take_apart(self, input_ids: Tensor, wanted: Tensor) -> str:
        """Run the pieces and compare; return why they cannot be used, or nothing."""
        if self._parts is None:
            return "no single list of blocks with a norm behind it"
        if has_virtual_tokens(self.model):
            return "virtual tokens stand before each text"
        try:
            hidden = self.embed(input_ids)
            with torch.enable_grad():
                arguments = internals.block_arguments(self.plain, self._parts, hidden, self._mask(hidden, None))
            if any(
                isinstance(value, Tensor) and value.requires_grad for given in arguments for value in given.values()
            ):
                return "its blocks share trainable parameters"
            before = self.run_blocks(hidden, arguments, stop=-1)
            behind = self.run_blocks(before, arguments, len(self.blocks) - 1)
        except _FAILURES as error:
            return first_line(error)
        self.splits = _same(self.norm(behind), wanted)
        self.one_position = self.splits and self._runs_one_position(before, arguments, behind)
        return "" if self.splits else "its blocks called one by one give another result"

    def _runs_one_position(self, before: Tensor, arguments: Arguments, behind: Tensor) -> bool:
        position = torch.arange(len(before), device=before.device)
        try:
            found = one_position.run_block_at(self.blocks[-1], before, arguments[-1], position)
        except _FAILURES:
            return False  # another kind of block
        return _same(found, behind[position, position])

    def _always_causal(self, why: str) -> InputError:
        return InputError(
            f"{self._family} accepts no 4-D attention mask, which causal_mask: false needs: {why}",
            field="causal_mask",
            got=False,
            fix="use causal_mask: true",
        )

    @property
    def _makes_mask(self) -> bool:
        """Return whether the model itself makes its blocks' mask of what is padding."""
        return self.causal or self.encoder

    @property
    def _family(self) -> str:
        return type(self.plain).__name__


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _TOLERANCE * other.abs().max())
