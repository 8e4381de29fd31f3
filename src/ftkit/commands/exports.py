"""The forms that `ftkit push` writes a run in, each with what its model card says of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from peft import LoraConfig
from transformers import AutoModelForImageTextToText

from ftkit.classifier.export import exported_tokenizer, sequence_classifier
from ftkit.errors import InputError
from ftkit.hub import commit_of, is_gguf, is_local
from ftkit.models.base_model import is_demo
from ftkit.models.gpt2 import SIZES
from ftkit.run_folder import Form
from ftkit.serving.prompts import template_to_push
from ftkit.training.export import export_trained
from ftkit.training.generative import GenerativeModule
from ftkit.training.model_card import CardFacts, Use

_ENCODER_NOTE = (
    "The head stands for a linear layer: its activation is passed where it is linear. So use it in float32 or "
    "bfloat16, and do not train it further."
)
_DECODER_NOTE = "A text that itself ends in `{}` is read before it, as if that were padding."
_WHOLE = "the whole model for transformers"

Prepared: TypeAlias = tuple[dict[str, Any], Callable[[Path], None]]


class Export(NamedTuple):
    """Hold what the model card says of a repository, and what writes its weights and tokenizer into a folder."""

    facts: CardFacts
    write: Callable[[Path], None]


def export_of(run: Path, module: Any, repo: str, form: Form | None, license: str | None) -> Export:
    """Prepare the repository of a run in one form; nothing is written yet.

    Args:
        run: The run's folder.
        module: The model in it, loaded on the CPU.
        repo: The repository's name.
        form: Which library is to load it. None is ftkit for a classifier, peft for a generative model with an adapter,
            and transformers for one without.
        license: The hub's word for the license.

    Raises:
        InputError: The run cannot take this form.
    """
    prepare = _generative if isinstance(module, GenerativeModule) else _classifier
    facts, write = prepare(run, module, form)
    name, revision = base_name(module)
    adapter = getattr(module, "adapter", None)
    lora = isinstance(adapter, LoraConfig) or getattr(module, "trainable", None) == "lora"
    base = None if is_local(name) else name
    return Export(CardFacts(repo, base=base, revision=revision, tags=("lora",) * lora, license=license, **facts), write)


def base_name(module: Any) -> tuple[str, str | None]:
    """Return the base model's name, a hub id where it is one, and its commit or revision."""
    base = module.base
    name, revision = base.get("model") or base.get("source"), base.get("revision")
    if "size" in base and name in ("hub", "demo"):
        name = SIZES[base["size"]].hub_id if base["source"] == "hub" else f"demo-{base['size']}"
    return name, (commit_of(name, revision) or revision) if "/" in name else revision


def _classifier(run: Path, module: Any, form: Form | None) -> Prepared:
    """Prepare a classifier: in ftkit's own form, or in that of another library if it computes the same."""
    if form == "transformers" or form == "peft":
        facts, write = _sequence_classifier(module, form)
    else:
        facts, write = _own_form(run, module)
    contents = f"{facts['contents']}. The classes are {', '.join(module.class_names)}"
    return {**facts, "contents": contents, "task": "text-classification", "library": form or "ftkit"}, write


def _own_form(run: Path, module: Any) -> Prepared:
    kind = type(module)

    def write(folder: Path) -> None:
        export_trained(run, folder, f"{kind.__module__}.{kind.__name__}")
        module.load_tokenizer().save_pretrained(folder)

    contents = "the parameters that were trained (`trained.safetensors`), without the base model's"
    return {"contents": contents, "use": Use(kind=kind.__name__)}, write


def _sequence_classifier(module: Any, form: Literal["transformers", "peft"]) -> Prepared:
    net, tokenizer = sequence_classifier(module, form), exported_tokenizer(module)
    use = Use(
        auto_class="AutoModelForSequenceClassification",
        encoder=module.encoder,
        max_length=tokenizer.model_max_length,
        labels=list(module.class_names),
        note=_ENCODER_NOTE if module.encoder else _DECODER_NOTE.format(tokenizer.pad_token),
    )
    if form == "peft":
        name, revision = base_name(module)
        net.active_peft_config.base_model_name_or_path, net.active_peft_config.revision = name, revision
        own = {"num_labels": len(module.class_names), "pad_token_id": tokenizer.pad_token_id, "dtype": "float32"}
        use = replace(use, base=_in_python(name, revision, **own))

    def write(folder: Path) -> None:
        net.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return {"contents": f"{_adapter(module)}, and the head" if form == "peft" else _WHOLE, "use": use}, write


def _generative(run: Path, module: Any, form: Form | None) -> Prepared:
    """Prepare a language or vision-language model: its adapter alone, or the whole model."""
    form = form or ("transformers" if module.adapter is None else "peft")
    _refuse_form(module, form)
    if hasattr(module, "prompt_style"):  # or the repository would not know how to ask
        asking = (module.chat, module.prompt_style, module.spaced_digits)
        module.tokenizer.chat_template = template_to_push(module.tokenizer, *asking)
    use = Use(
        auto_class=module.auto_class.__name__,
        max_new_tokens=module.max_new_tokens,
        chat=bool(module.processor.chat_template),
        virtual=module.virtual_tokens,
    )
    if form == "peft":
        own = {} if module.dtype_name == "auto" else {"dtype": module.dtype_name}
        use = replace(use, base=_in_python(*base_name(module), **own))
    images = module.auto_class is AutoModelForImageTextToText
    facts = {"task": "image-text-to-text" if images else "text-generation", "library": form, "use": use}
    facts |= {"contents": _adapter(module) if form == "peft" else _WHOLE, "metric": module.accuracy_name}
    return facts, lambda folder: module.export(folder, merge=form == "transformers")


def _refuse_form(module: Any, form: str) -> None:
    if form == "ftkit":
        problem, fix = "only a classifier has a form of ftkit's own", "use peft or transformers"
        raise InputError(problem, field="format", got=form, fix=fix)
    if form == "peft" and module.adapter is None:
        raise InputError("the run has no adapter", field="format", got=form, fix="use --format transformers")
    if form == "transformers" and module.virtual_tokens:
        problem, got = "virtual tokens cannot be merged into weights", type(module.adapter).__name__
        raise InputError(problem, field="adapter", got=got, fix="use --format peft")


def _adapter(module: Any) -> str:
    method = type(module.adapter).__name__.removesuffix("Config")
    return f"an adapter ({method}) for peft, without the base model's weights"


def _in_python(name: str, revision: str | None, **options: Any) -> str:
    """Return the arguments with which ``from_pretrained`` loads a base model, as Python text.

    Example:
        >>> _in_python("org/model", "4f1c", num_labels=2)
        '"org/model", revision="4f1c", num_labels=2'
    """
    path = Path(name)
    place = json.dumps("." if is_gguf(name) else path.name if is_local(name) else name)
    if is_demo(name):
        place = f"locate({place})"
    given = {"gguf_file": path.name} if is_gguf(name) else {"revision": revision} if revision else {}
    return ", ".join([place, *(f"{key}={json.dumps(value)}" for key, value in {**given, **options}.items())])
