"""Zero- and few-shot answers of a causal language model, scored by the log-probability of the class words."""

import copy
import warnings
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel

from ftkit.baselines.module import Baseline
from ftkit.errors import InputError, at_least
from ftkit.models.base_files import BaseFiles
from ftkit.models.base_model import base_files_of, hidden_states_and_head, load_base, load_processor
from ftkit.models.loading import context_length
from ftkit.models.transformers_internals import cache_name, forward_parameters, keeps_every_position
from ftkit.training.evaluation_metrics import Metrics

_AT_ONCE = 8  # texts


class PromptClassifier(Baseline):
    """A causal language model that is asked, and not trained: the class whose word is the most probable is the answer.

    A word's score is the sum of its tokens' log-probabilities behind the prompt; the probabilities of the classes are
    the softmax of the scores. Nothing is fitted; of a few shots, the examples are drawn from train. What every prompt
    begins with, such as the shots, runs through the model once.

    Args:
        base_model: See :class:`ftkit.TextClassifier`; it needs a language model head.
        revision: Hub revision to pin.
        prompt: What is asked, with ``{text}`` once. It ends where the word begins.
        words: The word of each class, in the order of the classes, with the blank before it; null takes the class
            names, each behind a blank.
        shots: Training examples of each class that stand before the question, in the form of the prompt and the word.
        seed: Of the choice and the order of the shots; null takes the one that ``seed_everything`` set.
        metrics: See :class:`ftkit.BaselineClassifier`.

    Raises:
        InputError: ``prompt`` has no ``{text}``, or an argument makes no sense.
    """

    def __init__(
        self,
        base_model: str,
        revision: str | None = None,
        prompt: str = "Message: {text}\nLabel:",
        words: Sequence[str] | None = None,
        shots: int = 0,
        seed: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(seed, metrics)
        if prompt.count("{text}") != 1:
            raise InputError("must have {text} once", field="prompt", got=prompt)
        at_least(0, shots=shots)
        self.base_model, self.revision, self.prompt, self.shots = base_model, revision, prompt, shots
        self.given = None if words is None else list(words)
        self.net: PreTrainedModel | None = None
        self.before = ""  # the shots
        self._read: tuple[Any, DynamicCache | None] = None, None  # what was read last, and its keys and values

    @property
    def base_options(self) -> dict[str, Any]:
        """Return the options that identify the base model."""
        return {"source": self.base_model, "revision": self.revision}

    @property
    def base_files(self) -> BaseFiles:
        """Return where model and tokenizer are loaded from."""
        return base_files_of(self.base_model, self.revision)

    @cached_property
    def tokenizer(self) -> Any:
        """Load the tokenizer, once."""
        return load_processor(AutoTokenizer, self.base_model, self.revision)

    @cached_property
    def start(self) -> list[int]:
        """Return the special tokens that the tokenizer puts before a text, such as Llama's ``<s>``."""
        found = self.tokenizer("a", return_special_tokens_mask=True)
        return found["input_ids"][: found["special_tokens_mask"].index(0)]

    def configure_model(self) -> None:
        """Load the model, frozen, once."""
        if self.net is None:
            self.net = load_base(AutoModelForCausalLM, self.base_model, self.revision, dtype="float32")
            self.net.requires_grad_(False).eval()
            self.keep_fingerprint()

    @property
    def words(self) -> list[str]:
        """Return the word of each class.

        Raises:
            InputError: There are not as many as classes.
        """
        words = [f" {name}" for name in self.class_names] if self.given is None else self.given
        if len(words) != len(self.class_names) or len(set(words)) < len(words):
            problem = f"needs {len(self.class_names)} different words: of {', '.join(self.class_names)}"
            raise InputError(problem, field="words", got=words)
        return words

    def fit(self, train: Any, val: Any) -> None:
        """Draw the shots from train."""
        words = self.words
        shots: list[tuple[int, str]] = []
        generator = torch.Generator().manual_seed(self.seed % 2**63)
        for place in torch.randperm(len(train), generator=generator).tolist():
            label = int(train.label[place])
            if sum(one == label for one, _ in shots) < self.shots:
                shots.append((label, f"{self._asked(train.texts[place])}{words[label]}\n\n"))
        self.before = "".join(text for _, text in shots)

    @torch.no_grad()
    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the most probable classes, int64 (B,), and the probabilities of all, float64 (B, C)."""
        texts = batch["text"]
        places = range(0, len(texts), _AT_ONCE)
        scores = torch.cat([self.scores(texts[place : place + _AT_ONCE]) for place in places])
        return scores.argmax(-1), scores.softmax(-1)

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Return the log-probability of each class's word behind each prompt, float64 (B, C)."""
        words = [self._tokens(word) for word in self.words]
        room = context_length(self.net.config) - max(map(len, words)) - len(self.start)  # type: ignore[union-attr]
        prompts = [self._tokens(self.before + self._asked(text)) for text in texts]
        if max(map(len, prompts)) > room:
            warnings.warn(f"prompts of more than {room} tokens lose their beginning, shots first", stacklevel=2)
        prompts = [[*self.start, *prompt[-room:]] for prompt in prompts]
        stems = dict.fromkeys(tuple(word[:-1]) for word in words)  # of words of one token: the prompt alone
        found = {stem: self._log_probabilities(prompts, stem) for stem in stems}  # (B, stem + 1, V)
        summed = [
            sum(found[tuple(word[:-1])][:, place, token] for place, token in enumerate(word)) for word in words
        ]  # fmt: skip
        return torch.stack(summed, dim=1)  # type: ignore[arg-type]

    def _log_probabilities(self, prompts: list[list[int]], stem: tuple[int, ...]) -> Tensor:
        """Return the log-probabilities of what follows each prompt and each token of a stem, float64 (B, S + 1, V)."""
        shared, known = self._shared(prompts)
        sequences = [torch.tensor([*prompt[shared:], *stem]) for prompt in prompts]
        ids = pad_sequence(sequences, batch_first=True).to(self.device)
        real = pad_sequence([torch.ones(shared + len(one)) for one in sequences], batch_first=True).to(ids)
        hidden_states, head = hidden_states_and_head(self.net)  # type: ignore[arg-type]
        states = hidden_states(input_ids=ids, attention_mask=real, **known)  # (B, T, D)
        rows = torch.arange(len(prompts), device=self.device)[:, None]
        ends = torch.tensor([range(len(one) - 1 - len(stem), len(one)) for one in sequences])
        return head(states[rows, ends.to(self.device)]).double().log_softmax(-1)

    def _shared(self, prompts: list[list[int]]) -> tuple[int, dict[str, Any]]:
        """Return how many tokens at the start of all prompts need not be read again, and what the model takes for them.

        These are tokens of the shots and of what the question begins with; at least one token of a prompt remains.
        Families that do not keep keys and values of every position read all.
        """
        begin = [*self.start, *self._tokens(self.before + self.prompt.partition("{text}")[0])]
        columns = zip(begin[:-1], *(prompt[:-1] for prompt in prompts), strict=False)  # the last may join what follows
        tokens = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        body = self.net.base_model  # type: ignore[union-attr]
        parameters = forward_parameters(body.__class__)
        name = cache_name(parameters)
        cache = DynamicCache(config=body.config)
        if not tokens or name not in parameters or not keeps_every_position(cache):
            return 0, {}
        key = tokens, self.device, torch.is_autocast_enabled(self.device.type)
        if self._read[0] != key:
            body(input_ids=torch.tensor([tokens], device=self.device), use_cache=True, **{name: cache})
            self._read = key, cache
        known: Any = copy.deepcopy(self._read[1])
        known.batch_repeat_interleave(len(prompts))
        return len(tokens), {name: known}

    def state(self) -> dict[str, Any]:
        """Return the shots."""
        return {"before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the shots."""
        self.before = state["before"]

    def _asked(self, text: str) -> str:
        return self.prompt.replace("{text}", text)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
