"""Generate for many requests at once: a running batch that requests join and leave at any token."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ftkit.models.base_model import plain_model
from ftkit.models.generation import end_tokens
from ftkit.models.transformers_internals import cache_name, keeps_every_position
from ftkit.serving.detokenizer import Detokenizer
from ftkit.serving.jobs import Finish, Generation, Piece, TokenScore
from ftkit.serving.replies import ApiError
from ftkit.serving.sampling import choose
from ftkit.serving.scores import MAX_LOGITS, token_scores


@dataclass
class _Sequence:
    job: Generation
    detokenizer: Detokenizer
    generator: torch.Generator
    token: int = 0
    tokens: int = 0
    text: str = ""  # what was not delivered yet
    scores: list[TokenScore] = field(default_factory=list)  # of the tokens since

    @property
    def scores_prompt(self) -> bool:
        """Return whether the scores of the prompt's tokens are asked for."""
        return self.job.echo is not None and self.job.logprobs is not None


class BatchGenerator:
    """Run a causal language model over a batch of at most ``batch_size`` answers, one token each a step.

    Prompts are padded on the left, masked and numbered from their first real token, so that an answer does not depend
    on its neighbours. A request that arrives while others run is computed on its own first and then joins them; one
    that ends leaves at once. The model, plain or wrapped by peft, is on its device.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self.device = model.get_input_embeddings().weight.device
        self.end_tokens = frozenset(end_tokens(model, tokenizer))
        known = inspect.signature(plain_model(model).forward).parameters
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._takes_positions = "position_ids" in known
        self._cache_name = cache_name(known)
        # The answers being generated, those that are joining among them; other threads read it at any time.
        self.jobs: list[Generation] = []
        self._running: list[_Sequence] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)  # (B, T)

    @property
    def room(self) -> int:
        """Return the number of answers that may join now."""
        if self._running and not keeps_every_position(self._cache):
            return 0
        return self.batch_size - len(self._running)

    @torch.inference_mode()
    def admit(self, jobs: Sequence[Generation]) -> None:
        """Compute the prompts and first tokens of new answers, then add them to the batch."""
        self.jobs = [*self.jobs, *jobs]
        running, cache, mask = self._running, self._cache, self._mask
        self._running = [self._started(job) for job in jobs]
        self._compute_prompts()
        self._running = running + self._running
        if self._cache is None:  # each answer ended with its first token
            self._cache, self._mask = cache, mask
        elif running:
            self._mask = torch.cat([_left(mask, self._mask.shape[1]), _left(self._mask, mask.shape[1])])
            self._cache = _joined(cache, self._cache)

    def _compute_prompts(self) -> None:
        prompts = [torch.tensor(sequence.job.prompt) for sequence in self._running]
        width = max(map(len, prompts))
        input_ids = torch.stack([F.pad(ids, (width - len(ids), 0)) for ids in prompts])  # (B, T)
        mask = torch.stack([F.pad(torch.ones_like(ids), (width - len(ids), 0)) for ids in prompts])
        self._cache = None
        part = width
        if scored := any(sequence.scores_prompt for sequence in self._running):
            vocabulary = self.model.get_output_embeddings().weight.shape[0]
            part = min(width, max(1, MAX_LOGITS // (len(prompts) * vocabulary)))
        for start in range(0, width, part):
            self._mask = mask[:, : start + part]
            logits = self._forward(input_ids[:, start : start + part], every_token=scored)
            if scored:
                self._score_prompts(logits, input_ids, start)
        self._choose(logits[:, -1])

    def _score_prompts(self, logits: Tensor, input_ids: Tensor, start: int) -> None:
        """Score the tokens of ``input_ids`` (B, T) that ``logits`` (B, part, V) from column ``start`` on are about."""
        width = input_ids.shape[1]
        for index, sequence in enumerate(self._running):
            if not sequence.scores_prompt:
                continue
            first = width - len(sequence.job.prompt)  # behind the padding
            if start <= first < start + logits.shape[1]:
                sequence.scores.append(TokenScore(int(input_ids[index, first])))
            begin, end = max(start, first), min(start + logits.shape[1], width - 1)
            if begin < end:
                tokens = input_ids[index, begin + 1 : end + 1].to(logits.device)
                top = sequence.job.logprobs or 0
                sequence.scores += token_scores(logits[index, begin - start : end - start], tokens, top)

    @torch.inference_mode()
    def step(self) -> None:
        """Generate the next token of every answer; those that end or are cancelled leave the batch."""
        self._leave([sequence for sequence in self._running if sequence.job.cancelled])
        if self._running:
            self._mask = F.pad(self._mask, (0, 1), value=1)
            self._choose(self._forward(torch.tensor([[sequence.token] for sequence in self._running]))[:, -1])

    def _started(self, job: Generation) -> _Sequence:
        generator = torch.Generator()
        if job.sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(job.sampling.seed)
        affixes = job.affixes.generated(self.tokenizer, self.end_tokens)
        detokenizer = Detokenizer(self.tokenizer, job.sampling.stop, affixes)
        return _Sequence(job, detokenizer, generator, text=job.echo or "")

    def _forward(self, input_ids: Tensor, every_token: bool = False) -> Tensor:
        """Run the model over ``input_ids`` (B, T new tokens) of the sequences.

        Returns:
            Logits (B, T, V); of the last token alone, (B, 1, V), where that is enough and the model can do so.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": self._mask}
        if self._takes_positions:
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        extra = {} if every_token else self._extra
        output = self.model(**inputs, **extra, **{self._cache_name: self._cache}, use_cache=True)
        self._cache = output[self._cache_name]
        return output.logits

    def _choose(self, logits: Tensor) -> None:
        """Take the next token of each sequence by its ``logits`` (B, V)."""
        sequences = self._running
        chosen = choose(
            logits,
            [sequence.job.sampling for sequence in sequences],
            [sequence.generator for sequence in sequences],
        )
        for sequence, row, token in zip(sequences, logits, chosen, strict=True):
            if sequence.job.logprobs is not None and sequence.job.sampling.max_tokens and token >= 0:
                sequence.scores += token_scores(
                    row[None], torch.tensor([token], device=row.device), sequence.job.logprobs
                )
        self._leave(
            [sequence for sequence, token in zip(sequences, chosen, strict=True) if self._take(sequence, token)]
        )

    def _take(self, sequence: _Sequence, token: int) -> bool:
        """Add a token to an answer and deliver its text; return whether that was the last one."""
        new = sequence.scores if not sequence.tokens else ()  # of later tokens the greatest logit is looked at
        if token < 0 or not all(math.isfinite(score.logprob or 0) for score in new):
            sequence.job.deliver(ApiError(500, "the model's logits are not finite"))
            return True
        if not sequence.job.sampling.max_tokens:
            sequence.job.deliver(Piece(sequence.text, 0, "length", sequence.scores))
            return True
        sequence.token, sequence.tokens = token, sequence.tokens + 1
        finish: Finish | None = "length" if sequence.tokens == sequence.job.sampling.max_tokens else None
        if token in self.end_tokens:
            finish = "stop"
        else:
            sequence.text += sequence.detokenizer.push(token)
        if finish:
            sequence.text += sequence.detokenizer.finish()
        if sequence.detokenizer.stopped:
            finish = "stop"
        if finish or (sequence.job.stream and sequence.text):
            sequence.job.deliver(Piece(sequence.text, sequence.tokens, finish, sequence.scores))
            sequence.text, sequence.scores = "", []
        return finish is not None

    def _leave(self, leaving: list[_Sequence]) -> None:
        if not leaving:
            return
        gone, left = set(map(id, leaving)), {sequence.job for sequence in leaving}
        self.jobs = [job for job in self.jobs if job not in left]
        kept = [index for index, sequence in enumerate(self._running) if id(sequence) not in gone]
        self._running = [self._running[index] for index in kept]
        self._mask = self._mask[kept]
        if not kept:
            self._cache = None
            return
        self._cache.batch_select_indices(torch.tensor(kept, device=self.device))
        unused = int(self._mask.argmax(-1).min())  # columns that only those who left had
        if unused and keeps_every_position(self._cache):
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]


def _joined(first: Any, second: Any) -> Any:
    """Return ``first`` with the sequences of ``second`` below its own; the shorter one is padded on the left."""
    for one, other in zip(first.layers, second.layers, strict=True):
        for name in ("keys", "values"):  # (B, heads, T, head size)
            above, below = getattr(one, name), getattr(other, name)
            width = max(above.shape[2], below.shape[2])
            parts = [F.pad(part, (0, 0, width - part.shape[2], 0)) for part in (above, below)]
            setattr(one, name, torch.cat(parts))
    return first


def _left(mask: Tensor, width: int) -> Tensor:
    """Pad ``mask`` (B, T) with zeros on the left to ``width``, if it is narrower."""
    return F.pad(mask, (max(0, width - mask.shape[1]), 0))
