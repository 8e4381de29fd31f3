import subprocess
import sys

import pytest

import ftkit.results


def test_reading_predictions_does_not_load_what_statistics_need() -> None:
    code = "import sys, ftkit.results.predictions; print([n for n in ('scipy', 'torch') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_is_there_and_no_other() -> None:
    assert all(callable(getattr(ftkit.results, name)) for name in ftkit.results.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        ftkit.results.evaluat  # noqa: B018
