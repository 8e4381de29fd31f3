"""The entropy of a picture's colours."""

import numpy as np
import pytest

from ftkit.vlm.frames import color_entropy, most_varied
from handmade_gif import picture


@pytest.mark.parametrize(
    ("rows", "bits"),
    [("K", 0), ("KKKK KKKK", 0), ("KR", 1), ("KG", 1), ("KB", 1), ("KRGB", 2), ("KK KR", 0.8112781244591328)],
)
def test_entropy_worked_out_by_hand(rows: str, bits: float) -> None:
    assert color_entropy(picture(rows)) == pytest.approx(bits, abs=1e-12)  # -3/4 log2 3/4 - 1/4 log2 1/4 = 0.811


def test_colours_that_differ_by_one_level_are_two() -> None:
    for channel in range(3):
        pixels = np.full((1, 2, 3), 255, np.uint8)
        pixels[0, 0, channel] = 254
        assert color_entropy(pixels) == 1


def test_entropy_is_numpys_own_of_the_unique_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 8, (60, 70, 3), np.uint8) * 31
    counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)[1] / (60 * 70)
    assert color_entropy(pixels) == pytest.approx(-(counts * np.log2(counts)).sum(), abs=1e-12)


def test_the_same_counts_in_other_colours_are_exactly_as_varied() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.choice(256, 5_000, p=generator.dirichlet(np.ones(256)))
    found = {
        color_entropy(generator.permutation(256).astype(np.uint8)[numbers][:, None, None].repeat(3, 2))
        for _ in range(50)
    }
    assert len(found) == 1


def test_of_a_large_picture_a_grid_is_enough() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (3_000, 2_000, 1), np.uint8).repeat(3, 2)
    assert color_entropy(rows) == pytest.approx(1, abs=1e-4)


def test_the_choice_survives_that_the_array_is_reused() -> None:
    canvas = np.zeros((1, 2, 3), np.uint8)

    def frames():  # type: ignore[no-untyped-def]
        for rows in ("KK", "RG", "WW"):
            canvas[:] = picture(rows)
            yield canvas

    number, frame, looked_at = most_varied(frames())
    assert (number, looked_at) == (1, 3)
    np.testing.assert_array_equal(frame, picture("RG"))
