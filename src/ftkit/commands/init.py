"""``ftkit init``: a folder of configs to begin with."""

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from shlex import quote

from ftkit.errors import InputError
from ftkit.storage import new_folder


def init(folder: Path, from_: str = "classifier") -> str:
    """Write an ablation to start from: commented configs and data that run offline on tiny models, on a CPU.

    Args:
        folder: A new folder, or an empty one.
        from_: What is compared. classifier: which part of a classifier is trained. ch06: the published table's 19
            variants, and baselines. sft, vlm: full fine-tuning and LoRA of a language or a vision-language model.
            moderation: the ratio of yes to no among the examples that such a model is trained on. configs: no single
            ablation, but all configs that the documentation uses; name the folder configs, as it does.

    Raises:
        InputError: The folder has files in it or is none, or there is no such template.
        EnvironmentFault: It cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("is not an empty folder", file=folder, field="folder", fix="name a new one")
    shipped = files("ftkit") / "configs"
    starts = {"configs": shipped, **{start.name: start for start in (shipped / "init").iterdir()}}
    if from_ not in starts:
        raise InputError("no such template", field="from", got=from_, fix=f"use one of {', '.join(sorted(starts))}")
    with as_file(starts[from_]) as source, new_folder(folder) as new:
        ignore = shutil.ignore_patterns("init")
        shutil.copytree(source, new, ignore=ignore, dirs_exist_ok=True, copy_function=shutil.copyfile)
        if (base := new / "base.yaml").exists():
            text = base.read_text(encoding="utf-8").replace("{folder}", json.dumps(str(folder))[1:-1])
            base.write_text(text, encoding="utf-8")
    if from_ == "configs":
        ch06 = quote(str(folder / "ch06"))
        return f"wrote {folder}\nnext: ftkit ablation run {ch06} --overlay {ch06}/demo.yaml --rows 1-3\n"
    rows = len([*folder.glob("rows/*.yaml")])
    return f"wrote {folder}: base.yaml and {rows} rows\nnext: ftkit ablation run {quote(str(folder))}\n"
