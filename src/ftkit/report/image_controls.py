"""Say whether a model looks at its images."""

from ftkit.report.words import p_text
from ftkit.results.image_controls import Control, ImageControls
from ftkit.results.statistics import Interval


def control_lines(found: ImageControls) -> list[str]:
    """Return the figures of both controls and the conclusion, a sentence a line."""
    own = f"image controls, {found.n:,} test examples with images: own images {_share(found.accuracy, found.interval)}"
    return [own, *(_control(name, one, found.n) for name, one in found.controls.items()), _conclusion(found)]


def _control(name: str, one: Control, n: int) -> str:
    gain = f"own images {one.judgement.effect * 100:+.2f} points, {p_text(one.judgement.p)}"
    return f"  {name} images {_share(one.accuracy, one.interval)}; {gain}; {one.changed:,} of {n:,} answers change"


def _conclusion(found: ImageControls) -> str:
    most = found.controls["swapped"].changed_interval[1]
    because = {
        "looks at the image": "it is significantly more often right with an example's own image than with another's",
        "does not look at the image": f"with another's image at most {most:.1%} of its answers change (97.5% bound)",
        "is not shown to look at the image": "an example's own image does not make it significantly more often right",
    }
    return f"the model {found.conclusion}: {because[found.conclusion]}"


def _share(accuracy: float, interval: Interval) -> str:
    return f"{accuracy:.2%} ({interval[0]:.2%} to {interval[1]:.2%})"
