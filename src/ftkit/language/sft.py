"""Supervised fine-tuning of any causal language model."""

from typing import Any

from transformers import AutoModelForCausalLM

from ftkit.examples.padding import prompt_batch
from ftkit.examples.prompt_style import asked
from ftkit.examples.reader import Example
from ftkit.examples.renderer import Renderer
from ftkit.models.evaluation_mode import evaluating
from ftkit.training.generative import GenerativeModule


class CausalLMSFT(GenerativeModule):
    """A causal language model of transformers (GPT-2, SmolLM2 and the like) that is tuned on answers to prompts.

    Args:
        base_model: Hub id, folder or GGUF file, or ``demo`` for the small GPT-2 that ftkit carries, see
            :func:`ftkit.models.base_model.locate`.
        **options: See :class:`ftkit.training.generative.GenerativeModule`.
    """

    auto_class = AutoModelForCausalLM

    def __init__(self, base_model: str = "demo", **options: Any) -> None:
        super().__init__(base_model=base_model, **options)
        self.prompt_style: str | None = None
        self.spaced_digits = False
        self.chat: bool | None = None

    def setup(self, stage: str) -> None:
        """Take over from the data module how a question becomes a prompt, for :meth:`answer` and for checkpoints."""
        datamodule = getattr(self.trainer, "datamodule", None)
        self.prompt_style = getattr(datamodule, "prompt_style", self.prompt_style)
        self.spaced_digits = getattr(datamodule, "spaced_digits", self.spaced_digits)
        self.chat = getattr(datamodule, "chat", self.chat)

    def answer(self, questions: list[str], batch_size: int = 8) -> list[str]:
        """Answer questions greedily, in the prompts of training.

        Args:
            questions: What stands for ``{question}`` in the prompt style, such as ``1 + 1``; whole prompts where
                training had none.
            batch_size: Questions answered at a time.
        """
        self.configure_model()
        render = Renderer(self.processor, self.chat)
        prompts = [asked(question, self.prompt_style, self.spaced_digits) for question in questions]
        examples = [Example("", prompt, " ") for prompt in prompts]
        encoded, affixes = (
            [render.encode(example).prompt for example in examples],
            [render.affixes(example) for example in examples],
        )
        answers: list[str] = []
        with evaluating([self]):
            for start in range(0, len(encoded), batch_size):
                batch = prompt_batch(encoded[start : start + batch_size], self.tokenizer.pad_token_id)
                answers += self.generate({name: value.to(self.device) for name, value in batch.items()}).texts
        return self.bare(answers, affixes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, the base's identity and how prompts were written."""
        super().on_save_checkpoint(checkpoint)
        names = ("prompt_style", "spaced_digits", "chat")
        checkpoint["prompt"] = {name: getattr(self, name) for name in names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base; take over how prompts were written."""
        super().on_load_checkpoint(checkpoint)
        for name, value in checkpoint.get("prompt", {}).items():
            setattr(self, name, value)
