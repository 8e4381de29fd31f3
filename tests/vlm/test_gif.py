"""Composites of animated GIFs against pictures worked out by hand."""

import numpy as np
import pytest
from handmade_gif import Frame, gif, picture

from ftkit.vlm.decoding import DamagedImageError
from ftkit.vlm.gif import composites, parse_gif

WHITE = (255, 255, 255)
# Frames, and what a viewer shows after each of them on a white page.
CASES = {
    "a frame stays (disposal 1)": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GG", at=(1, 1), disposal=1), Frame("B", at=(3, 2))],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "RRRR RGGR RRRB"],
    ),
    "a frame stays when nothing is said (disposal 0)": (
        [Frame("RRRR RRRR RRRR"), Frame("GG", at=(1, 1)), Frame("B", at=(3, 2))],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "RRRR RGGR RRRB"],
    ),
    "a frame is cleared, only its own part (disposal 2)": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GG GG", at=(1, 1), disposal=2), Frame("B", at=(3, 0))],
        ["RRRR RRRR RRRR", "RRRR RGGR RGGR", "RRRB RWWR RWWR"],
    ),
    "the first frame is cleared": (
        [Frame("RRRR RRRR RRRR", disposal=2), Frame("GG", at=(1, 1))],
        ["RRRR RRRR RRRR", "WWWW WGGW WWWW"],
    ),
    "a frame is undone (disposal 3)": (
        [Frame("RRRR GGGG BBBB", disposal=1), Frame("YY YY", at=(1, 1), disposal=3), Frame("K", at=(0, 0))],
        ["RRRR GGGG BBBB", "RRRR GYYG BYYB", "KRRR GGGG BBBB"],
    ),
    "undone twice, then cleared": (
        [
            Frame("RRRR GGGG BBBB", disposal=1),
            Frame("YY YY", at=(0, 0), disposal=3),
            Frame("CC CC", at=(1, 1), disposal=3),
            Frame("KK", at=(0, 1), disposal=2),
            Frame("Y", at=(3, 2)),
        ],
        ["RRRR GGGG BBBB", "YYRR YYGG BBBB", "RRRR GCCG BCCB", "RRRR KKGG BBBB", "RRRR WWGG BBBY"],
    ),
    "the first frame is undone": (
        [Frame("RRRR RRRR RRRR", disposal=3), Frame("GG", at=(1, 1))],
        ["RRRR RRRR RRRR", "WWWW WGGW WWWW"],
    ),
    "4 is an old writer's 3": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GG", at=(1, 1), disposal=4), Frame("B")],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "BRRR RRRR RRRR"],
    ),
    "a frame without a word on disposal does not take over the one before": (
        [
            Frame("RRRR RRRR RRRR", disposal=2),
            Frame("GG", at=(1, 1), disposal=0),
            Frame("B", control=False),
            Frame("Y"),
        ],
        ["RRRR RRRR RRRR", "WWWW WGGW WWWW", "BWWW WGGW WWWW", "YWWW WGGW WWWW"],
    ),
    "a word on disposal holds for one frame": (
        [
            Frame("RRRR RRRR RRRR", disposal=1),
            Frame("GG", at=(1, 1), disposal=2),
            Frame("B", control=False),
            Frame("Y", at=(3, 2)),
        ],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "BRRR RWWR RRRR", "BRRR RWWR RRRY"],
    ),
    "transparent pixels show what was there": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("G..G .GG.", at=(0, 1))],
        ["RRRR RRRR RRRR", "RRRR GRRG RGGR"],
    ),
    "the first frame is transparent in part": (
        [Frame("R..R .... R..R", disposal=1), Frame(".GG.", at=(0, 1))],
        ["RWWR WWWW RWWR", "RWWR WGGW RWWR"],
    ),
    "the first frame is smaller than the canvas": (
        [Frame("RR", at=(1, 1)), Frame("G")],
        ["WWWW WRRW WWWW", "GWWW WRRW WWWW"],
    ),
    "cleared to nothing, with transparency in the next frame": (
        [Frame("RRRR RRRR RRRR", disposal=2), Frame("G..G", at=(0, 1), disposal=2), Frame("..B.")],
        ["RRRR RRRR RRRR", "WWWW GWWG WWWW", "WWBW WWWW WWWW"],
    ),
    "palettes of their own": (
        [Frame("RGRG GRGR RRRR", local="GR"), Frame("BY.B", at=(0, 2), local="YB.K", disposal=3), Frame("K")],
        ["RGRG GRGR RRRR", "RGRG GRGR BYRB", "KGRG GRGR RRRR"],
    ),
    "examples in four passes": (
        [Frame("RRRR GGGG BBBB YYYY KKKK CCCC RGBY YBGR GGRR RRRR", interlaced=True)],
        ["RRRR GGGG BBBB YYYY KKKK CCCC RGBY YBGR GGRR RRRR"],
    ),
    "a later frame reaches beyond the canvas": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GGG GGG", at=(2, 2), disposal=2), Frame("B")],
        ["RRRR RRRR RRRR", "RRRR RRRR RRGG", "BRRR RRRR RRWW"],
    ),
}


def handmade(name: str, background: int = 3) -> bytes:
    frames, shown = CASES[name]
    examples = shown[0].split()
    return gif((len(examples[0]), len(examples)), *frames, background=background)


def composited(data: bytes, background: tuple[int, int, int] = WHITE) -> list[np.ndarray]:
    return [canvas.copy() for canvas in composites(parse_gif(data, keep=100), background)]


@pytest.mark.parametrize("name", CASES)
def test_composites_are_those_worked_out_by_hand(name: str) -> None:
    for canvas, examples in zip(composited(handmade(name)), CASES[name][1], strict=True):
        np.testing.assert_array_equal(canvas, picture(examples))


def test_the_background_is_the_callers_not_the_files() -> None:
    data = handmade("the first frame is cleared", background=1)
    np.testing.assert_array_equal(composited(data, background=(9, 8, 7))[1][0, 0], (9, 8, 7))


def test_a_canvas_that_is_too_small_grows_with_the_first_frame_only() -> None:
    examples = "RRR RGR"
    for size in ((0, 0), (1, 1), (3, 1)):
        canvases = composited(gif(size, Frame(examples), Frame("BBBBB")))
        np.testing.assert_array_equal(canvases[0], picture(examples))
        np.testing.assert_array_equal(canvases[1], picture("BBB RGR"))


def test_without_any_palette_the_numbers_are_greys() -> None:
    (canvas,) = composited(gif((2, 1), Frame("KC"), palette=False))
    np.testing.assert_array_equal(canvas, [[[0, 0, 0], [6, 6, 6]]])


def test_frames_that_are_not_kept_are_counted_all_the_same() -> None:
    found = parse_gif(gif((1, 1), *[Frame("R"), Frame("G")] * 3_000), keep=10)
    assert (len(found.frames), found.count) == (10, 6_000)


def test_zeros_and_unknown_extensions_between_frames_are_passed_over() -> None:
    comment = b"!\xfe\x03abc\x02de\0"
    found = parse_gif(gif((1, 1), Frame("R"), Frame("G"), padding=bytes(100_000) + comment), keep=10)
    assert found.count == 2


@pytest.mark.parametrize("name", CASES)
def test_a_cut_is_noticed_wherever_it_is(name: str) -> None:
    data = handmade(name)
    for end in range(len(data)):
        with pytest.raises(DamagedImageError):
            composited(data[:end])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gif((1, 1)), "no picture"),
        (gif((1, 1), Frame("R"), trailer=b"x;"), "damaged behind frame 1"),
        (gif((60_000, 60_000), Frame("R")), "more than 50,000,000 pixels: 60,000 x 60,000"),
        (
            gif((1, 1), Frame("R")).replace(b"," + bytes(4) + b"\1\0\1\0", b"," + bytes(4) + b"\xff\xff\xff\xff"),
            "65,535",
        ),
        (gif((1, 1), Frame("R")).replace(b"\1\0\1\0\0\x08", b"\1\0\2\0\0\x08"), "damaged or cut off"),
    ],
)
def test_damage_has_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(DamagedImageError, match=message):
        composited(data)


def test_a_gif_of_too_many_bytes_is_not_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftkit.vlm.gif.MAX_GIF_BYTES", 50)
    with pytest.raises(DamagedImageError, match="more than 50 bytes"):
        parse_gif(gif((1, 1), Frame("R")), keep=10)
