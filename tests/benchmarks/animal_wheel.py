"""A wheel with made-up pictures in the layout of animal-mnist."""

import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np

from animal_questions import ANIMALS, INSIDE


def animal_wheel(folder: Path, of_each: int = 30) -> Path:
    """Pictures of noise, one of which is there twice."""
    labels = np.repeat(np.arange(len(ANIMALS)), of_each)
    pictures = np.random.default_rng(1).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    pictures[of_each] = pictures[0]
    with zipfile.ZipFile(folder / "animals.whl", "w") as file:
        for name, values in (("data", pictures), ("label", labels)):
            file.writestr(INSIDE.format(name), gzip.compress(pickle.dumps(values)))
    return folder / "animals.whl"
