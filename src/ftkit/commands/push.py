"""Upload a run to the hub (``ftkit push``); a dry run writes the repository's folder and stops there."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftkit.errors import EnvironmentFault, InputError
from ftkit.library_output import say_imports
from ftkit.run_folder import CONFIG_FILE, RESULT_FILE, Form, need_newest_run, read_result

_LOCAL_PATH = re.compile(r"(?<![\w.:/])~?/(?:[\w.@+-]+/)+([\w.@+-]+)")
_READABLE = ("*.json", "*.yaml", "*.md")


def push(
    run: Path,
    repo: str,
    dry_run: Path | None = None,
    format: Form | None = None,
    private: bool = False,
    license: str | None = None,
) -> str:
    """Upload a run to the hub: weights in safetensors, tokenizer, configuration and model card.

    The access token comes from the environment variable HF_TOKEN or from `hf auth login`, never from an option.

    Args:
        run: The run's folder; the newest run in runs/ if left out.
        repo: The repository, as USER/NAME; it is created if it does not exist.
        dry_run: Write the repository into this folder instead of uploading it.
        format: The library that loads the repository. transformers: the whole model, adapters merged; a classifier
            for AutoModelForSequenceClassification, where that gives the same logits. peft: the adapter alone, a
            classifier's with its head. ftkit: what a classifier trained, for `ftkit serve` and Python. By default a
            classifier's is ftkit, an adapter's peft, and any other transformers.
        private: Create the repository as private.
        license: The hub's identifier of the result's license, such as apache-2.0.

    Raises:
        InputError: The run is not complete, or the name or the folder cannot be used.
        EnvironmentFault: There is no token, no network or no permission.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError("is not a repository name", field="repo", got=repo, fix="use USER/NAME") from error
    run = need_newest_run() if run is None else run
    if dry_run is not None:
        if dry_run.exists() and not (dry_run.is_dir() and not any(dry_run.iterdir())):
            raise InputError("is not an empty folder", file=dry_run, field="dry_run", fix="name a new one")
        files = write_repository(run, repo, dry_run, format, license)
        return f"wrote {dry_run}: {', '.join(files)}; nothing was uploaded\n"
    _need_token()
    with TemporaryDirectory() as temporary:
        files = write_repository(run, repo, Path(temporary), format, license)
        url = upload(Path(temporary), repo, private)
    return f"uploaded {', '.join(files)} to {url}\n"


def write_repository(
    run: Path, repo: str, folder: Path, form: Form | None = None, license: str | None = None
) -> list[str]:
    """Write the files of a run's repository, without absolute paths of this machine, and return their names.

    Raises:
        InputError: The run is not complete, or cannot take this form.
        EnvironmentFault: The disk is full, or the folder cannot be written.
    """
    result = _result(run)
    say_imports()
    from ftkit.commands.exports import export_of
    from ftkit.commands.runs import class_of
    from ftkit.storage import new_folder
    from ftkit.training.model_card import model_card

    kind = class_of(run)
    config = _config(run)
    export = export_of(run, kind.load(run), repo, form, license)
    card = model_card(export.facts, result, config is not None)
    with new_folder(folder) as new:  # only now: what is wrong with a run leaves no half of a repository
        export.write(new)
        if config is not None:
            (new / CONFIG_FILE).write_text(config, encoding="utf-8")
        (new / "README.md").write_text(card, encoding="utf-8")
        for pattern in _READABLE:
            for path in new.glob(pattern):
                if path.name != "tokenizer.json":
                    path.write_text(without_local_paths(path.read_text(encoding="utf-8")), encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def upload(folder: Path, repo: str, private: bool, endpoint: str | None = None) -> str:
    """Create the repository if need be and upload a folder as one commit; return its address.

    Raises:
        EnvironmentFault: There is no network, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint)
    try:
        address = str(api.create_repo(repo, private=private, exist_ok=True))
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message="Upload a run of ftkit")
    except OfflineModeIsEnabled as error:
        raise EnvironmentFault("HF_HUB_OFFLINE is set", fix="unset it, or use --dry_run FOLDER") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = "use a token that may write there" if status in (401, 403) else "try again later"
        raise EnvironmentFault(f"the hub refuses {repo} with status {status}", fix=fix) from error
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # which of the two depends on huggingface_hub's version
            raise
        problem = f"the hub cannot be reached: {type(error).__name__}"
        raise EnvironmentFault(problem, fix="use --dry_run FOLDER") from error
    return address


def without_local_paths(text: str) -> str:
    """Cut absolute paths of this machine to their last part.

    Example:
        >>> without_local_paths("source: /home/me/data/sms.tsv, see https://example.org/a/b and configs/a.yaml")
        'source: sms.tsv, see https://example.org/a/b and configs/a.yaml'
    """
    return _LOCAL_PATH.sub(r"\1", text)


def _need_token() -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        fix = "set HF_TOKEN or run `hf auth login`; or use --dry_run FOLDER"
        raise EnvironmentFault("there is no access token for the hub", fix=fix)


def _result(run: Path) -> dict[str, Any]:
    file = run / RESULT_FILE
    train = "train with `ftkit fit`, then `ftkit test`"
    try:
        result = read_result(file)
    except FileNotFoundError as error:
        raise InputError("the run has no result", file=file, fix=train) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file, fix="name a run's folder") from error
    if status := result.get("status"):
        fix = "end the training with `ftkit fit --resume`, then `ftkit test`"
        raise InputError("the training did not end by itself", file=file, field="status", got=status, fix=fix)
    if not isinstance(result.get("versions"), dict):
        raise InputError("says nothing of a training", file=file, field="versions", fix=train)
    return result


def _config(run: Path) -> str | None:
    """Return the run's configuration; None if it was not made by one."""
    file = run / CONFIG_FILE
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", file=file, fix="restore it, or move it away") from error
