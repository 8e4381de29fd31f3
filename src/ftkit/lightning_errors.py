"""Turn signals and library errors of a Lightning run into ftkit's exit codes and messages."""

import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ftkit.errors import EnvironmentFault, ExitCode, FtkitError, InputError


@contextmanager
def exit_on_termination(alone: bool = False) -> Iterator[None]:
    """Give a termination its exit code: Lightning stops at a safe point and exits as if all were done.

    Args:
        alone: This is the only process, so it can end wherever it is; a training listens itself, see
            :class:`ftkit.training.safe_stop.SafeStop`.

    Raises:
        SystemExit: The process was told to end by SIGTERM.
    """
    listens = alone and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if listens else None
    try:
        yield
    except SIGTERMException as stop:
        raise SystemExit(ExitCode.TERMINATED) from stop
    finally:
        if listens:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise SystemExit(ExitCode.TERMINATED)


@contextmanager
def explain_state_mismatch(checkpoint: str | None) -> Iterator[None]:
    """Say what does not fit when a module without checks of its own loads a checkpoint of another model.

    Raises:
        InputError: Names or shapes differ.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        details = [line.strip().rstrip(". ") for line in str(error).splitlines()[1:]]
        listing = "; ".join(details[:5]) + ("; …" if len(details) > 5 else "")
        fix = "use the options that the checkpoint was made with"
        raise InputError(f"the checkpoint does not fit the model: {listing}", file=checkpoint, fix=fix) from error


@contextmanager
def explain_refusals() -> Iterator[None]:
    """Say what Lightning refuses once it knows the module and the data, such as an interval beyond the last batch.

    Raises:
        FtkitError: Its own refusal, see :func:`trainer_error`; a module's or data module's error passes as it is.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError, AttributeError, OSError) as error:
        if isinstance(error, FtkitError):
            raise
        where = _raised_by_lightning(error)
        if where and isinstance(error, OSError):
            raise EnvironmentFault(f"cannot be used: {error.strerror}", file=error.filename) from error
        if where.startswith(("lightning.pytorch.callbacks.", "lightning.pytorch.tuner.")):
            said = " ".join(str(error).split())
            raise InputError(said, field=f"trainer.callbacks: {where.rpartition('.')[2]}") from error
        if where and isinstance(error, (MisconfigurationException, ValueError)):
            raise trainer_error(error) from error
        raise


def _raised_by_lightning(error: BaseException) -> str:
    """Return the module of Lightning, called by ftkit and not by a user's module, that raised; empty if none did."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, AttributeError):  # of a network, which torch looks up
        modules = [module for module in modules if not module.startswith("torch.")]
    if isinstance(error, OSError):  # of a logger's folder, by way of what writes files
        writers = {*sys.stdlib_module_names, "fsspec", "tensorboard", "torch"}
        modules = [module for module in modules if module.partition(".")[0] not in writers]
    callers = [module for module in modules if module.partition(".")[0] not in ("lightning", "torch", "contextlib")]
    return modules[-1] if modules[-1].startswith("lightning.") and callers[-1].startswith("ftkit.") else ""


def trainer_error(error: Exception) -> FtkitError:
    """Return ftkit's error for a refusal of Lightning's trainer: the machine lacks something, or an option is wrong."""
    if isinstance(error, FtkitError):
        return error
    said = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return EnvironmentFault("a package is not installed", field="trainer", fix=_installation("", said))
    if "No supported" in said or "accelerator is not available" in said:
        return EnvironmentFault(said, field="trainer.accelerator", fix="for a CPU: --trainer.accelerator cpu")
    if "bf16" in said.lower():
        return EnvironmentFault(said, field="trainer.precision", fix="use --trainer.precision 32-true")
    return InputError(said, field="trainer")


def constructor_error(error: Exception, class_type: type, option: str) -> Exception:
    """Return ftkit's error for an error in the constructor of a class that the user chose.

    Returns:
        The error itself if it is ftkit's own refusal, or a fault in a class of ftkit's.
    """
    if isinstance(error, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error))):
        return InputError("no such option", field=f"{option}.{unknown[1]}")
    if isinstance(error, FtkitError) or class_type.__module__.partition(".")[0] == "ftkit":
        return error
    name, said = class_type.__name__, " ".join(str(error).split())
    if isinstance(error, ImportError):
        problem = f"{name} needs a package that is not installed"
        return EnvironmentFault(problem, field=option, fix=_installation(name, said))
    if not isinstance(error, (MisconfigurationException, ValueError)):
        said = f"{type(error).__name__}: {said}"
    path = name if class_type.__module__.startswith(("lightning.", "torch.")) else f"{class_type.__module__}.{name}"
    fix = f"correct its init_args (`--{option}.help {path}` lists them, --debug shows the traceback)"
    return InputError(f"{name}: {said}", field=option, fix=fix)


def option_of(config: Any, class_type: type) -> str:
    """Return the option of a configuration that names a class, in dots; empty if none does.

    Example:
        >>> from fractions import Fraction
        >>> option_of({"trainer": {"callbacks": [{"class_path": "fractions.Fraction"}]}}, Fraction)
        'trainer.callbacks'
    """
    entries = vars(config).items() if isinstance(config, Namespace) else config.items()
    for key, value in entries:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, (Namespace, dict)):
                continue
            if str(part.get("class_path", "")).rpartition(".")[2] == class_type.__name__:
                return key
            if inner := option_of(part, class_type):
                return f"{key}.{inner.removeprefix('init_args.')}"
    return ""


def _installation(class_name: str, said: str) -> str:
    """Return how to install what is missing, as the message of a library has it where ftkit has no extra for it."""
    if class_name == "TensorBoardLogger":
        return "pip install 'ftkit[tensorboard]'"
    named = re.search(r"pip install (?:-U )?'?(?P<package>[\w-]+)|No module named '(?P<module>\w+)", said)
    return f"pip install {named['package'] or named['module']}" if named else f"install it: {said}"
