"""Every described family, through its real processor: the numbers are those of transformers, example by example."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaNextConfig

from ftkit.errors import InputError
from ftkit.examples.reader import Example, read_examples
from ftkit.models import vision_families
from ftkit.models.vision_families import FAMILIES, vision_parameters
from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.vlm import images as opening
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.model import VLMModule
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo
from vlm_family_folders import build_llava, build_llava_onevision, build_qwen
from vlm_folders import build_gemma3, build_idefics3, build_paligemma

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "idefics3": build_idefics3,
    "smolvlm": partial(build_idefics3, smolvlm=True),
    "paligemma": build_paligemma,
    "gemma3": build_gemma3,
    "llava": build_llava,
    "llava_onevision": build_llava_onevision,
    "qwen2_5_vl": build_qwen,
    "qwen3_vl": partial(build_qwen, family="Qwen3VL"),
}
CACHED = [name for name, family in FAMILIES.items() if not family.not_cached]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("families")
    return lambda family: (root / family) if (root / family).is_dir() else BUILDERS[family](root / family)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def module(kind: Any, folder: Path, **options: Any) -> Any:
    lora = LoraConfig(r=4, target_modules=r".*(language_model|text_model)\.layers.*(q_proj|v_proj)")
    return kind(base_model=str(folder), adapter=lora, seed=1, max_new_tokens=3, **options)


def data_of(path: Path, **options: Any) -> VLMDataModule:
    return VLMDataModule(*[str(path)] * 3, **{"batch_size": 4, "seed": 1, **options})


def shape_of(family: str) -> str:
    return "prefix" if family == "paligemma" else "messages"


def path_of_pairs(family: str, vlm_examples: Any) -> Path:
    path: Path = vlm_examples("preference")
    if family != "paligemma":
        return path
    lines = [f'{{"prompt": "Q{n}", "chosen": "red", "rejected": "blue", "images": ["{n}.png"]}}\n' for n in range(4)]
    pairs = path.with_name("pairs.jsonl")  # there is no chat template: a prompt is a text
    pairs.write_text("".join(lines), encoding="utf-8")
    return pairs


def rows(processor: Any, examples: list[Example], answers: list[str]) -> list[tuple[dict[str, Tensor], int]]:
    """What the processor makes of each whole conversation by itself, and where its answer starts."""
    found = []
    for example, answer in zip(examples, answers, strict=True):
        images = [Image.open(path).convert("RGB") for path in example.images]
        if isinstance(example.prompt, str):  # PaliGemma's
            made = processor(text=[example.prompt], images=[images], suffix=[answer], return_tensors="pt")
            del made["labels"]
            found.append((dict(made), int((made["token_type_ids"] == 0).sum())))
            continue
        told = [*example.prompt, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        options: dict[str, Any] = {"images": [images], "return_tensors": "pt", "add_special_tokens": False}
        ask = processor.apply_chat_template(example.prompt, add_generation_prompt=True)
        start = processor(text=[ask], **options)["input_ids"].shape[1]
        found.append((dict(processor(text=[processor.apply_chat_template(told)], **options)), start))
    return found


@torch.no_grad()
def own_log_probs(model: Any, processor: Any, examples: list[Example], answers: list[str]) -> list[Tensor]:
    """The log-probabilities of each answer's tokens by transformers' forward pass of that example alone."""
    found = []
    for inputs, start in rows(processor, examples, answers):
        log_probs = model(**inputs).logits.float().log_softmax(-1)[0]
        target = inputs["input_ids"][0, start:]
        found.append(log_probs[start - 1 : -1].gather(1, target[:, None])[:, 0])
    return found


def first_batch(family: str, net: VLMModule, path: Path) -> dict[str, Any]:
    data = data_of(path)
    data.prepare(net.processor, net.preference)
    return next(iter(data.val_dataloader()))


@pytest.mark.parametrize("family", BUILDERS)
def test_sft_loss_is_that_of_transformers_by_example(family: str, folder: Any, vlm_examples: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder(family)).eval()
    examples = read_examples(vlm_examples(shape_of(family)))[:4]
    wanted = own_log_probs(
        model, AutoProcessor.from_pretrained(folder(family)), examples, [e.completion for e in examples]
    )
    net = module(VLMSFT, folder(family))
    net.configure_model()
    batch = first_batch(family, net.eval(), vlm_examples(shape_of(family)))
    with torch.no_grad():
        found = net.log_probs(batch["inputs"]).log_probs
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-5, rtol=0)
    pixels = batch["inputs"]["pixel_values"]
    blind = {**batch["inputs"], "pixel_values": torch.where(pixels == 0, 0, 0.1)}  # tiles of zeros are padding
    with torch.no_grad():
        assert (net.log_probs(blind).log_probs - found).abs().max() > 1e-3


def test_a_family_is_described_in_a_few_lines(
    tmp_path: Path, vlm_examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2-VL, as in the how-to."""
    page = Path(__file__).parents[2] / "docs" / "howto" / "vision-families.md"
    monkeypatch.setattr(vision_families, "FAMILIES", dict(FAMILIES))
    exec(page.read_text(encoding="utf-8").split("qwen2_vl.py -->\n```python\n")[1].split("```")[0], {})
    assert "qwen2_vl" in vision_families.FAMILIES
    folder = build_qwen(tmp_path, "Qwen2VL")
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    examples = read_examples(vlm_examples("messages"))[:4]
    wanted = own_log_probs(model, AutoProcessor.from_pretrained(folder), examples, [e.completion for e in examples])
    net = module(VLMSFT, folder)
    net.configure_model()
    batch = first_batch("qwen2_vl", net.eval(), vlm_examples("messages"))
    with torch.no_grad():
        found = net.log_probs(batch["inputs"]).log_probs
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", BUILDERS)
def test_dpo_log_probabilities_are_those_of_transformers_by_example(
    family: str, folder: Any, vlm_examples: Any, tmp_path: Path
) -> None:
    path = path_of_pairs(family, vlm_examples)
    examples = read_examples(path)[:4]
    model = AutoModelForImageTextToText.from_pretrained(folder(family)).eval()
    processor = AutoProcessor.from_pretrained(folder(family))
    wanted = [
        own_log_probs(model, processor, examples, [getattr(e, side) for e in examples])
        for side in ("completion", "rejected")
    ]
    net = module(VLMDPO, folder(family))
    net.configure_model()
    batch = first_batch(family, net.eval(), path)
    with torch.no_grad():
        _, metrics = net.compare(batch)
    for name, answers in zip(("chosen", "rejected"), wanted, strict=True):
        sums = torch.stack([answer.sum() for answer in answers])
        torch.testing.assert_close(metrics[f"logps/{name}"], sums, atol=1e-5, rtol=0)


SIZES = ((16, 16), (1024, 1024), (300, 40), (40, 300), (33, 50), (7, 200), (97, 31), (401, 399))
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "idefics3": [{"size": {"longest_edge": 128}}, {"size": {"longest_edge": 100}}, {"do_image_splitting": False}],
    "smolvlm": [{"size": {"longest_edge": 160}}, {"size": {"longest_edge": 101}}],
    "gemma3": [{"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}],
    "qwen2_5_vl": [{"size": {"shortest_edge": 1024, "longest_edge": 90000}}],
    "qwen3_vl": [{"size": {"shortest_edge": 4096, "longest_edge": 40000}}],
}


@pytest.mark.parametrize(
    ("family", "options"), [(name, one) for name in BUILDERS for one in [{}, *OPTIONS.get(name, [])]]
)
def test_tokens_of_pictures_are_counted_by_their_sizes(
    family: str, options: dict[str, Any], folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of odd shapes, alone and several of an example: as many tokens as the processor makes of them."""
    paths = [tmp_path / f"{number}.png" for number in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        Image.new("RGB", size, (1, 2, 3)).save(path)
    processor = AutoProcessor.from_pretrained(folder(family))
    encoder = ChatEncoder(processor, image_options=options)
    token = encoder.renderer.image_token
    shown = [[path] for path in paths] + [paths[3:5]]
    with monkeypatch.context() as patched:
        patched.setattr(opening, "decode_image", lambda *args: pytest.fail("a picture was opened"))
        counted = [encoder.image_tokens(Example("a", "", "", images=tuple(images))) for images in shown]
    for images, count in zip(shown, counted, strict=True):
        pixels = [Image.open(path) for path in images]
        made = encoder._processed(token * len(images), pixels)["input_ids"].shape[1]
        around = 2 * (len(images) - 1) * (family == "paligemma")  # it puts two tokens around a prompt
        assert count == made + around
    fixed = {"paligemma": True, "llava": True, "gemma3": not options, "idefics3": "do_image_splitting" in options}
    assert (len(set(counted[:-1])) == 1) == fixed.get(family, False)


def run(kind: Any, folder: Path, path: Path, where: Path, **options: Any) -> tuple[Any, dict[str, float]]:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        default_root_dir=where, accelerator="cpu", devices=1, logger=False, max_epochs=1, callbacks=[RunRecorder()],
        **quiet,
    )  # fmt: skip
    net = module(kind, folder, optimizer=partial(torch.optim.AdamW, lr=1e-2), **options)
    trainer.fit(net, datamodule=data_of(path))
    trainer.test(net, datamodule=data_of(path), verbose=False)
    return net, {name: value.item() for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("family", CACHED)
@pytest.mark.parametrize("kind", [pytest.param(VLMSFT, marks=pytest.mark.slow), VLMDPO])
def test_a_cached_tower_changes_nothing(kind: Any, family: str, folder: Any, vlm_examples: Any, tmp_path: Path) -> None:
    path = vlm_examples(shape_of(family)) if kind is VLMSFT else path_of_pairs(family, vlm_examples)
    _, with_cache = run(kind, folder(family), path, tmp_path / "kept")
    assert list((tmp_path / "cache" / "features").glob("*.sqlite"))
    again, read = run(kind, folder(family), path, tmp_path / "again")
    assert again.vision.computed == 0
    _, without = run(kind, folder(family), path, tmp_path / "plain", cache_vision=False, gradient_checkpointing=True)
    for found in (with_cache, read):
        assert found == pytest.approx(without, rel=1e-6, abs=1e-5)
    said = [read_predictions(tmp_path / name / "predictions-test.tsv").predictions for name in ("kept", "plain")]
    assert said[0] == said[1]


def test_features_that_depend_on_other_images_are_not_cached(folder: Any, vlm_examples: Any, tmp_path: Path) -> None:
    path = vlm_examples("messages")
    net, _ = run(VLMSFT, folder("llava_onevision"), path, tmp_path)
    assert net.vision is None
    with pytest.raises(InputError, match="cache_vision: image features of llava_onevision cannot be cached"):
        module(VLMSFT, folder("llava_onevision"), cache_vision=True).configure_model()
    _, pairs = run(VLMDPO, folder("llava_onevision"), vlm_examples("preference"), tmp_path / "pairs")
    assert pairs["test/rewards/accuracies"] >= 0


@pytest.mark.parametrize("family", BUILDERS)
def test_yes_or_no_in_a_batch_is_yes_or_no_alone(family: str, folder: Any, vlm_examples: Any, tmp_path: Path) -> None:
    path = vlm_examples("messages").with_name("yesno.jsonl")
    names = ("prefix", "suffix") if family == "paligemma" else ("question", "answer")
    texts = (dict(zip(names, ("Red?", "no" if n % 3 else "yes"), strict=True)) for n in range(12))
    asked = [{**text, "image": f"{n % 6}.png"} for n, text in enumerate(texts)]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in asked), encoding="utf-8")
    scores = []
    for number, size in enumerate((1, 5)):
        net = module(VLMYesNo, folder(family))
        options = {"accelerator": "cpu", "logger": False, "callbacks": [RunRecorder()]}
        trainer = L.Trainer(default_root_dir=tmp_path / str(number), **options)
        trainer.test(net, datamodule=data_of(path, evaluation_batch_size=size), verbose=False)
        scores.append(read_predictions(tmp_path / str(number) / "predictions-test.tsv").scores)
    assert len(set(scores[0])) >= 3  # as many as there are colours
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.parametrize("quantization", ["8bit", "nf4"])
@pytest.mark.parametrize("family", BUILDERS)
def test_a_quantized_base_learns(
    family: str, quantization: str, folder: Any, vlm_examples: Any, tmp_path: Path
) -> None:
    path = vlm_examples(shape_of(family))
    net = module(VLMSFT, folder(family), quantization=quantization, dtype="float32")
    net.configure_model()
    layers = {type(layer).__name__ for layer in net.net.get_base_model().get_decoder().modules()}
    assert layers & {"Linear8bitLt", "Linear4bit"}
    batch = first_batch(family, net.eval(), path)
    before = net.log_probs(batch["inputs"]).log_probs.mean()
    _, after = run(VLMSFT, folder(family), path, tmp_path, quantization=quantization, dtype="float32")
    assert after["test/loss"] < -before.item() - 0.1


@pytest.mark.parametrize("kind", [VLMSFT, VLMDPO])
@pytest.mark.parametrize("family", BUILDERS)
def test_checkpointing_runs_layers_again_with_the_same_gradients(
    family: str, kind: Any, folder: Any, vlm_examples: Any
) -> None:
    path = vlm_examples(shape_of(family)) if kind is VLMSFT else path_of_pairs(family, vlm_examples)
    found, runs = [], []
    for checkpointed in (False, True):
        net = module(kind, folder(family), gradient_checkpointing=checkpointed)
        net.configure_model()
        batch, counted = first_batch(family, net.train(), path), []
        net.net.get_base_model().get_decoder().layers[0].mlp.register_forward_pre_hook(
            lambda *_, n=counted: n.append(1)
        )
        loss = net.compare(batch)[0].losses if kind is VLMDPO else net.log_probs(batch["inputs"]).log_probs
        counted.clear()  # of DPO, the reference's
        loss.sum().backward()
        runs.append(len(counted))
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert runs == [0, 1]
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", BUILDERS)
def test_full_tuning_leaves_tower_and_connector(family: str, folder: Any) -> None:
    for frozen in (True, False):
        net = VLMSFT(base_model=str(folder(family)), freeze_vision=frozen)
        net.configure_model()
        assert {parameter.requires_grad for parameter in vision_parameters(net.net)} == {not frozen}
        assert net.net.get_input_embeddings().weight.requires_grad


def test_a_family_that_is_not_described_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    LlavaNextConfig().save_pretrained(tmp_path)  # there are no weights
    with pytest.raises(
        InputError, match=r"base_model: .*not described; those are gemma3, .*got 'llava_next'"
    ) as caught:
        VLMSFT(base_model=str(tmp_path)).configure_model()
    assert "add it to ftkit.models.vision_families.FAMILIES" in str(caught.value)


def test_the_page_says_what_is_tested() -> None:
    """Each cell of the table of families is what the test that stands in its row runs with."""
    page = Path(__file__).parents[2] / "docs" / "howto" / "vision-families.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    table = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in lines
        if line.endswith("| test |") or "`test_" in line
    ]
    (_, *families, _), *found = [row for row in table if len(row) > 2]
    assert set(families) == set(BUILDERS) == set(FAMILIES)
    assert len(found) == 7
    for what, *cells, test in found:
        (mark,) = [m for m in globals()[test].pytestmark if m.name == "parametrize" and "family" in m.args[0]]
        ran = {one if isinstance(one, str) else one[0] for one in mark.args[1]}
        assert {name for name, cell in zip(families, cells, strict=True) if cell == "yes"} == ran, what
