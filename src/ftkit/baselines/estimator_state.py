"""Keep fitted scikit-learn estimators in checkpoints, and read them back without running code."""

import io
import sys
from importlib import import_module
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ftkit.errors import InputError

_CLASSES = (BaseEstimator, np.generic, np.dtype, np.ndarray, scipy.sparse.sparray, scipy.sparse.spmatrix)
_BUILDERS = ("numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "builtins.bytes")
_LIBRARIES = ("ftkit", "numpy", "scipy", "sklearn")
_NOT_FITTED = ("utils", "datasets", "externals", "tests")  # parts of scikit-learn whose classes may do more
_DTYPES = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]


def packed(estimator: BaseEstimator) -> Tensor:
    """Return a fitted estimator as bytes, uint8 (N,), for a checkpoint.

    Raises:
        InputError: It holds objects that :func:`unpacked` would refuse, such as functions.
    """
    buffer = io.BytesIO()
    torch.save(estimator, buffer)
    _allowed(buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpacked(data: Tensor) -> Any:
    """Return the estimator that :func:`packed` made bytes of; nothing but estimators and arrays is built.

    Raises:
        InputError: The bytes hold something else, or are damaged.
    """
    buffer = io.BytesIO(data.cpu().numpy().tobytes())
    try:
        with torch.serialization.safe_globals(_allowed(buffer)):
            buffer.seek(0)
            return torch.load(buffer, weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader say
        said = str(error).strip().rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]
        raise InputError(f"the estimator cannot be read: {said}", fix="fit again") from None


def _allowed(buffer: io.BytesIO) -> list[Any]:
    """Return what the bytes name besides plain values and tensors, if all of it may be built.

    These are estimators and their parts, whose constructors only keep their arguments, and arrays; no functions.
    """
    buffer.seek(0)
    found: list[Any] = list(_DTYPES)  # numpy makes them of a dtype
    for path in torch.serialization.get_unsafe_globals_in_checkpoint(buffer):
        module, _, name = path.rpartition(".")
        library, *parts = module.split(".")
        if library in _LIBRARIES:
            import_module(module)
        known = getattr(sys.modules.get(module), name, None)
        of_an_estimator = library == "sklearn" and not {*parts} & {*_NOT_FITTED}
        if path not in _BUILDERS and not (isinstance(known, type) and (of_an_estimator or issubclass(known, _CLASSES))):
            fix = "use an estimator that holds other estimators and arrays only"
            raise InputError("cannot be kept in a checkpoint that runs no code", field="estimator", got=path, fix=fix)
        found.append(known)
    return found
