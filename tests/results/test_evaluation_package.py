import subprocess
import sys


def test_reading_predictions_does_not_load_what_statistics_need() -> None:
    code = "import sys, ftkit.results.predictions; print([n for n in ('scipy', 'torch') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
