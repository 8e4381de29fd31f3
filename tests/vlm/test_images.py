"""Pictures from anywhere: every mode, every orientation, damaged and hostile files, and paths that lead astray."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from ftkit.errors import EnvironmentFault, InputError
from ftkit.examples.image_files import image_path
from ftkit.vlm.frames import most_varied
from ftkit.vlm.images import at_size, decode_image, parse_color
from handmade_gif import Frame, gif, picture
from mutations import mutations
from opened_image import open_image

WHITE = (255, 255, 255)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def decoded(data: bytes, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    image = decode_image(data, background, "x").image
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A complete PNG file of some bytes that claims to be of this size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


FORMATS = {
    "jpeg": encoded(noise(), "JPEG", quality=95),
    "png": encoded(noise(), "PNG"),
    "gif": encoded(noise(), "GIF", save_all=True, append_images=[noise(seed=1), noise(seed=2)]),
    "webp": encoded(noise(), "WEBP", lossless=True),
    "bmp": encoded(noise(), "BMP"),
    "apng": encoded(noise(), "PNG", save_all=True, append_images=[noise(seed=1)]),
    "tiff": encoded(noise(), "TIFF"),
    "tiff lzw": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": encoded(noise(), "TIFF", compression="tiff_adobe_deflate"),
    "big tiff": encoded(noise(), "TIFF", big_tiff=True),
    "avif": encoded(noise(), "AVIF"),
    "animated avif": encoded(noise(), "AVIF", save_all=True, append_images=[noise(seed=1)]),
    "animated webp": encoded(noise(), "WEBP", save_all=True, append_images=[noise(seed=1)], lossless=True),
}


class TestModes:
    @pytest.mark.parametrize("form", ["png", "bmp", "webp", "tiff", "tiff lzw", "tiff deflate", "big tiff"])
    def test_lossless_formats_give_the_very_pixels(self, form: str) -> None:
        np.testing.assert_array_equal(decoded(FORMATS[form]), np.asarray(noise()))

    def test_jpeg_gives_what_pillow_gives(self) -> None:
        expected = np.asarray(Image.open(io.BytesIO(FORMATS["jpeg"])))
        np.testing.assert_array_equal(decoded(FORMATS["jpeg"]), expected)

    def test_avif_gives_what_pillow_gives(self) -> None:
        np.testing.assert_array_equal(decoded(FORMATS["avif"]), np.asarray(Image.open(io.BytesIO(FORMATS["avif"]))))
        spread = encoded(noise(64, 64), "AVIF").replace(b"ftypavif", b"ftypmif1", 1)  # the brand stands further behind
        assert decode_image(spread, WHITE, "x").format == "AVIF"

    def test_where_pillow_reads_no_avif_it_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ftkit.vlm.images.features.check", lambda name: None)
        with pytest.raises(InputError, match="x: AVIF: this Pillow does not read AVIF: pip install --upgrade pillow"):
            decode_image(FORMATS["avif"], WHITE, "x")
        decoded(FORMATS["tiff"])

    @pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
    def test_alpha_is_laid_on_the_background(self, form: str) -> None:
        pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)  # 51 is a fifth
        data = encoded(Image.fromarray(pixels), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
        np.testing.assert_array_equal(decoded(data), [[[200, 100, 0], WHITE, [244, 224, 204]]])
        np.testing.assert_array_equal(decoded(data, (0, 0, 50)), [[[200, 100, 0], [0, 0, 50], [40, 20, 40]]])

    def test_grey_with_alpha(self) -> None:
        data = encoded(Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA"), "PNG")
        np.testing.assert_array_equal(decoded(data, (1, 2, 3)), [[[10, 10, 10], [1, 2, 3]]])

    def test_a_palette_with_and_without_transparency(self) -> None:
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        plain = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
        np.testing.assert_array_equal(decoded(encoded(image, "PNG")), plain)
        np.testing.assert_array_equal(decoded(encoded(image, "BMP")), plain)
        one_colour = decoded(encoded(image, "PNG", transparency=1), (7, 7, 7))
        np.testing.assert_array_equal(one_colour, [[[255, 0, 0], [7, 7, 7], [0, 0, 255]]])
        each = decoded(encoded(image, "PNG", transparency=bytes([255, 0, 0])), (7, 7, 7))
        np.testing.assert_array_equal(each, [[[255, 0, 0], [7, 7, 7], [7, 7, 7]]])

    def test_a_colour_that_stands_for_transparent(self) -> None:
        image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
        data = encoded(image, "PNG", transparency=(4, 5, 6))
        np.testing.assert_array_equal(decoded(data, (9, 9, 9)), [[[1, 2, 3], [9, 9, 9]]])

    def test_16_bit_greys_keep_their_upper_bits(self) -> None:
        values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
        data = encoded(Image.fromarray(values), "PNG")
        np.testing.assert_array_equal(decoded(data)[..., 0], [[0, 0, 1, 128, 255]])
        assert (decoded(data) == decoded(data)[..., :1]).all()

    def test_a_16_bit_grey_that_stands_for_transparent(self) -> None:
        values = np.array([[0, 513, 40000]], np.uint16)
        data = encoded(Image.fromarray(values), "PNG")
        data = data.replace(data[33:], chunk(b"tRNS", struct.pack(">H", 513)) + data[33:])
        np.testing.assert_array_equal(decoded(data, (9, 9, 9))[..., 0], [[0, 9, 156]])

    def test_black_and_white(self) -> None:
        image = Image.fromarray(np.array([[True, False]]))
        assert image.mode == "1"
        for form in ("PNG", "BMP"):
            np.testing.assert_array_equal(decoded(encoded(image, form)), [[WHITE, (0, 0, 0)]])

    def test_cmyk(self) -> None:
        inks = np.zeros((16, 16, 4), np.uint8)
        inks[..., 0] = 255  # cyan only: no red
        data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        np.testing.assert_allclose(decoded(data)[8, 8], [0, 255, 255], atol=3)

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10_000), (10_000, 1)])
    def test_extreme_shapes_survive(self, width: int, height: int) -> None:
        data = encoded(Image.new("RGB", (width, height), (10, 20, 30)), "PNG")
        image = decode_image(data, WHITE, "x").image
        assert image.size == (width, height)
        assert (np.asarray(at_size(image, 224)) == (10, 20, 30)).all()

    def test_at_size_stretches(self) -> None:
        halves = Image.fromarray(picture("RRGG"))
        assert at_size(halves, 100).size == (100, 100)
        assert at_size(halves, 100).getpixel((5, 50)) == (255, 0, 0)
        assert at_size(halves, 100).getpixel((95, 50)) == (0, 255, 0)


class TestOrientation:
    UPRIGHT = "RRGG RRGG BBYY BBYY KKCC KKCC"  # 4 wide, 6 high

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
    def test_exif_rotation_is_applied(self, orientation: int, form: str) -> None:
        upright = picture(self.UPRIGHT)
        # How a camera stores an upright picture, by the definition of each value in the EXIF standard.
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright, 1),
            7: np.rot90(upright, 2).transpose(1, 0, 2),
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, lossless=True)
        np.testing.assert_array_equal(decoded(data), upright)

    @pytest.mark.parametrize("orientation", [0, 9, 65_535])
    def test_a_value_without_meaning_rotates_nothing(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        np.testing.assert_array_equal(decoded(encoded(noise(), "PNG", exif=exif)), np.asarray(noise()))

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_damaged_exif_costs_no_picture(self) -> None:
        data = encoded(noise(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\xff")
        np.testing.assert_array_equal(decoded(data), np.asarray(noise()))


# Frames, and what a viewer shows after each of them on a white page.
COMPOSITES = {
    "a frame stays (disposal 1)": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GG", at=(1, 1), disposal=1), Frame("B", at=(3, 2))],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "RRRR RGGR RRRB"],
    ),
    "a frame stays when nothing is said (disposal 0)": (
        [Frame("RRRR RRRR RRRR"), Frame("GG", at=(1, 1)), Frame("B", at=(3, 2))],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "RRRR RGGR RRRB"],
    ),
    "a frame is undone (disposal 3)": (
        [Frame("RRRR GGGG BBBB", disposal=1), Frame("YY YY", at=(1, 1), disposal=3), Frame("K", at=(0, 0))],
        ["RRRR GGGG BBBB", "RRRR GYYG BYYB", "KRRR GGGG BBBB"],
    ),
    "4 is an old writer's 3": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("GG", at=(1, 1), disposal=4), Frame("B")],
        ["RRRR RRRR RRRR", "RRRR RGGR RRRR", "BRRR RRRR RRRR"],
    ),
    "transparent pixels show what was there": (
        [Frame("RRRR RRRR RRRR", disposal=1), Frame("G..G .GG.", at=(0, 1))],
        ["RRRR RRRR RRRR", "RRRR GRRG RGGR"],
    ),
    "the first frame is transparent in part": (
        [Frame("R..R .... R..R", disposal=1), Frame(".GG.", at=(0, 1))],
        ["RWWR WWWW RWWR", "RWWR WGGW RWWR"],
    ),
    "palettes of their own": (
        [Frame("RGRG GRGR RRRR", local="GR"), Frame("BY.B", at=(0, 2), local="YB.K", disposal=3), Frame("K")],
        ["RGRG GRGR RRRR", "RGRG GRGR BYRB", "KGRG GRGR RRRR"],
    ),
    "examples in four passes": (
        [Frame("RRRR GGGG BBBB YYYY KKKK CCCC RGBY YBGR GGRR RRRR", interlaced=True)],
        ["RRRR GGGG BBBB YYYY KKKK CCCC RGBY YBGR GGRR RRRR"],
    ),
}


class TestAnimation:
    BLANK, PARTLY, BUSY = Frame("WWWW WWWW"), Frame("RG", at=(1, 0)), Frame("BY CK", at=(2, 0))

    def test_the_most_varied_composite_is_taken(self) -> None:
        opened = decode_image(gif((4, 2), self.BLANK, self.PARTLY, self.BUSY), WHITE, "x")
        np.testing.assert_array_equal(np.asarray(opened.image), picture("WRBY WWCK"))
        assert (opened.format, opened.frame, opened.frames, opened.note) == ("GIF", 2, 3, "")

    @pytest.mark.parametrize("name", COMPOSITES)
    def test_it_is_one_of_those_worked_out_by_hand(self, name: str) -> None:
        frames, shown = COMPOSITES[name]
        rows = shown[0].split()
        opened = decode_image(gif((len(rows[0]), len(rows)), *frames, background=3), WHITE, "x")
        number, expected, _ = most_varied(map(picture, shown))
        assert opened.frame == number
        np.testing.assert_array_equal(np.asarray(opened.image), expected)

    def test_what_follows_does_not_change_it(self) -> None:
        frames = Frame("WWWW", disposal=1), Frame("RGBY", disposal=1), Frame("KK", disposal=1), Frame("KKKK")
        opened = decode_image(gif((4, 1), *frames), WHITE, "x")
        np.testing.assert_array_equal(np.asarray(opened.image), picture("RGBY"))

    def test_of_equals_the_first_is_taken(self) -> None:
        frames = Frame("RRGG", disposal=2), Frame("GBGB", disposal=2), Frame("YYCC")
        assert decode_image(gif((4, 1), *frames), WHITE, "x").frame == 0

    def test_it_is_the_composite_that_counts_not_the_patch(self) -> None:
        # The second frame's patch is of one colour; together with what lies below it is the most varied.
        opened = decode_image(gif((4, 1), Frame("RGRG", disposal=1), Frame("B")), WHITE, "x")
        assert opened.frame == 1

    def test_one_frame(self) -> None:
        opened = decode_image(gif((2, 1), Frame("RG")), WHITE, "x")
        assert (opened.frame, opened.frames) == (0, 1)

    def test_an_avif_of_several_frames_is_its_most_varied(self) -> None:
        blank = Image.new("RGB", (32, 24), "white")
        opened = decode_image(encoded(blank, "AVIF", save_all=True, append_images=[noise(), blank]), WHITE, "x")
        assert (opened.format, opened.frame, opened.frames) == ("AVIF", 1, 3)

    @pytest.mark.parametrize("form", ["PNG", "WEBP"])
    def test_other_animated_formats_are_treated_alike(self, form: str) -> None:
        blank = Image.new("RGB", (32, 24), "white")
        data = encoded(blank, form, save_all=True, append_images=[noise(), blank], lossless=True)
        opened = decode_image(data, WHITE, "x")
        assert (opened.frame, opened.frames) == (1, 3)
        np.testing.assert_array_equal(np.asarray(opened.image), np.asarray(noise()))

    def test_only_so_many_frames_are_looked_at(self) -> None:
        frames = [Frame("RR"), Frame("RG")] * 4_999 + [Frame("RR"), Frame("BY CK")]
        opened = decode_image(gif((2, 2), *frames), WHITE, "x")
        assert opened.frame == 1
        assert opened.frames == 10_000
        assert opened.note == "only the first 1,000 of 10,000 frames were looked at"

    @pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
    def test_of_large_animations_fewer_frames_are_looked_at(self, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ftkit.vlm.images.FRAME_PIXELS", 2 * 24 * 32)
        data = encoded(Image.new("RGB", (32, 24)), form, save_all=True, append_images=[noise(seed=n) for n in range(4)])
        opened = decode_image(data, WHITE, "x")
        assert (opened.frame, opened.frames) == (1, 5)
        assert opened.note == "only the first 2 of 5 frames were looked at"

    @pytest.mark.parametrize(("pixels", "looked_at"), [(18, 3), (17, 2), (1, 1)])
    def test_frames_larger_than_the_canvas_are_not_unpacked_without_end(
        self, pixels: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A canvas of 2 pixels, then frames of 8 pixels of which 2 are seen."""
        monkeypatch.setattr("ftkit.vlm.images.FRAME_PIXELS", pixels)
        frames = Frame("RR"), Frame("RRRR RRRR"), Frame("RRRR RRRR"), Frame("RGBY RGBY")
        opened = decode_image(gif((2, 1), *frames), WHITE, "x")
        assert (opened.frame, opened.frames) == (0, 4)  # the last would be the most varied
        assert opened.note == f"only the first {looked_at} of 4 frames were looked at"

    def test_of_a_tiff_of_several_pages_the_first_is_taken_and_said(self) -> None:
        data = encoded(Image.new("RGB", (32, 24)), "TIFF", save_all=True, append_images=[noise(), noise(seed=1)])
        opened = decode_image(data, WHITE, "x")
        assert (opened.frame, opened.frames, opened.note) == (0, 1, "the first of several pages")
        assert not np.asarray(opened.image).any()
        assert decode_image(FORMATS["tiff"], WHITE, "x").note == ""

    def test_a_jpeg_of_several_pictures_is_its_first(self) -> None:
        data = encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
        opened = decode_image(data, WHITE, "x")
        assert (opened.format, opened.frame, opened.frames) == ("JPEG", 0, 1)
        np.testing.assert_array_equal(np.asarray(opened.image), np.asarray(Image.open(io.BytesIO(data))))


class TestDamage:
    @pytest.mark.parametrize("form", FORMATS)
    def test_every_cut_is_an_error(self, form: str) -> None:
        data = FORMATS[form]
        assert decoded(data).shape == (24, 32, 3)
        for end in {*range(1, len(data), 97), len(data) - 20, len(data) - 3}:
            with pytest.raises(InputError, match=r"^cut\.bin"):
                decode_image(data[:end], WHITE, "cut.bin")

    @pytest.mark.parametrize("name", COMPOSITES)
    def test_a_cut_of_an_animation_is_noticed_wherever_it_is(self, name: str) -> None:
        frames, shown = COMPOSITES[name]
        rows = shown[0].split()
        data = gif((len(rows[0]), len(rows)), *frames)
        for end in range(6, len(data)):
            with pytest.raises(InputError, match=r"^cut\.bin"):
                decode_image(data[:end], WHITE, "cut.bin")

    def test_a_gif_of_too_many_bytes_is_not_walked_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ftkit.vlm.images._MAX_GIF_BYTES", 50)
        with pytest.raises(InputError, match="more than 50 bytes"):
            decode_image(gif((1, 1), Frame("R")), WHITE, "x")

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    @pytest.mark.parametrize("form", FORMATS)
    def test_mutated_files_open_or_are_named(self, form: str) -> None:
        messages = []
        for what, data in mutations(FORMATS[form], 100):
            try:
                assert decode_image(data, WHITE, "mutated.bin").image.mode == "RGB", what
            except InputError as error:
                messages.append(str(error))
        assert len(messages) >= 25  # at the least those that were cut
        assert all(message.startswith("mutated.bin: ") for message in messages)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "the file is empty"),
            (b"hello, world", "not a JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF file"),
            (b"II*\0" + bytes(100), "TIFF: the picture is damaged or cut off"),
            (encoded(noise(), "PPM"), "not a JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF file"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC images, .*; fix: convert it to JPEG"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC images, .*; fix: convert it to JPEG"),
            (encoded(Image.new("F", (4, 4)), "TIFF"), "TIFF: .*its values are fractions"),
            (FORMATS["jpeg"][:500], "JPEG: the picture is damaged or cut off"),
            (b"\xff\xd8\xff", "JPEG: the picture is damaged or cut off"),
        ],
    )
    def test_files_that_are_no_pictures_are_named_with_a_reason(
        self, tmp_path: Path, data: bytes, message: str
    ) -> None:
        path = tmp_path / "photo.jpg"
        path.write_bytes(data)
        with pytest.raises(InputError, match=message) as caught:
            open_image(path)
        assert str(caught.value).startswith(f"{path}: ")

    def test_the_bytes_say_the_format_not_the_name(self) -> None:
        assert decode_image(FORMATS["png"], WHITE, "photo.jpg").format == "PNG"

    def test_pillows_leniency_stays_off(self) -> None:
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(FORMATS["jpeg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(FORMATS["bmp"])
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    data = bytearray(FORMATS["animated webp"])
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


BOMBS = {
    "png": png_header(100_000, 100_000),
    "png between the limits of Pillow": png_header(10_000, 12_000),
    "png just over": png_header(7_072, 7_072),
    "jpeg": jpeg_of(60_000, 60_000),
    "bmp": bmp_of(100_000, 100_000),
    "webp": webp_of(16_383, 16_383),
    "gif canvas": gif((65_000, 65_000), Frame("R")),
    "gif frame": gif((1, 1), Frame("R"), Frame("RR")).replace(
        b"\2\0\1\0\0\x08", struct.pack("<HH", 8_000, 8_000) + b"\0\x08"
    ),
}


class TestBombs:
    @pytest.mark.parametrize("name", BOMBS)
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_the_header_is_enough_to_refuse(self, name: str) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InputError, match="more than 50,000,000 pixels"):
            decode_image(BOMBS[name], WHITE, "bomb")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 20_000, f"{grown} kB"

    def test_a_picture_below_the_limit_is_not_refused_for_its_size(self) -> None:
        with pytest.raises(InputError, match="damaged or cut off"):  # the pixels are missing
            decode_image(png_header(1_000, 1_000), WHITE, "x")

    def test_a_text_that_unpacks_to_gigabytes_is_refused(self) -> None:
        text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))
        with pytest.raises(InputError, match="damaged"):
            decode_image(FORMATS["png"][:33] + text + FORMATS["png"][33:], WHITE, "x")

    def test_a_huge_file_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.bmp"
        with path.open("wb") as file:
            file.write(b"BM")
            file.truncate(2**40)  # a hole; it takes no room
        with pytest.raises(InputError, match=r"huge\.bmp: the file is larger than 268,435,456 bytes"):
            open_image(path)


class TestPaths:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "secret.png").write_bytes(FORMATS["png"])
        root = tmp_path / "data"
        (root / "sub").mkdir(parents=True)
        (root / "sub" / "a.png").write_bytes(FORMATS["png"])
        return root

    @pytest.mark.parametrize("path", ["sub/a.png", "sub/../sub/a.png", "./sub//a.png"])
    def test_inside(self, root: Path, path: str) -> None:
        assert open_image(path, root).size == (32, 24)
        assert open_image(root / path, root).size == (32, 24)

    def test_a_link_that_stays_inside(self, root: Path) -> None:
        (root / "link.png").symlink_to("sub/a.png")
        assert image_path("link.png", root) == root / "sub" / "a.png"

    def test_the_root_itself_may_be_a_link(self, root: Path) -> None:
        (root.parent / "alias").symlink_to("data")
        assert open_image("sub/a.png", root.parent / "alias").size == (32, 24)

    @pytest.mark.parametrize(
        "path", ["../secret.png", "sub/../../secret.png", "link.png", "up/secret.png", "../gone.png"]
    )
    def test_outside(self, root: Path, path: str) -> None:
        (root / "link.png").symlink_to("../secret.png")
        (root / "up").symlink_to("..")
        with pytest.raises(InputError, match="outside the data folder"):
            open_image(path, root)
        with pytest.raises(InputError, match="outside the data folder"):
            open_image(root / path, root)

    def test_a_sibling_whose_name_begins_alike_is_outside(self, root: Path) -> None:
        (root.parent / "data2").mkdir()
        (root.parent / "data2" / "a.png").write_bytes(FORMATS["png"])
        with pytest.raises(InputError, match="outside the data folder"):
            open_image("../data2/a.png", root)

    @pytest.mark.parametrize(
        "address", ["http://127.0.0.1:9/a.png", "HTTPS://x.org/a.png", "s3://b/a", "data:image/png,x"]
    )
    def test_an_address_is_never_fetched(self, root: Path, address: str) -> None:
        for folder in (root, None):
            with pytest.raises(InputError, match="never fetched"):
                open_image(address, folder)

    @pytest.mark.parametrize(("path", "message"), [
        ("gone.png", "does not exist"), ("sub", "is not a file"), ("pipe", "is not a file"),
        ("a\0b", "the path of an image"), ("x" * 5_000, "the path of an image"), ("round", "the path of an image"),
        ("", "is not a file"),
    ])  # fmt: skip
    def test_what_is_no_file(self, root: Path, path: str, message: str) -> None:
        os.mkfifo(root / "pipe")  # opening it would wait for ever
        (root / "round").symlink_to("round")
        with pytest.raises(InputError, match=message):
            open_image(path, root)

    def test_a_prepared_folder_is_found_by_the_original_names(self, root: Path) -> None:
        (root / "b.gif.png").write_bytes(FORMATS["png"])
        assert image_path("b.gif", root) == root / "b.gif.png"
        (root / "c.gif.png").symlink_to("../secret.png")
        with pytest.raises(InputError, match="outside the data folder"):
            image_path("c.gif", root)


def test_colours() -> None:
    assert parse_color("black") == (0, 0, 0)
    for wrong in ("blak", "#12", "#11223344", ""):
        with pytest.raises(InputError, match="background: not a color"):
            parse_color(wrong)


def test_without_pillow_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('hidden')")
    code = "from ftkit.cli import main; raise SystemExit(main(['images', 'prepare', 'a', 'b']))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == EnvironmentFault.exit_code
    assert 'fix: pip install "ftkit[vlm]"' in done.stderr
    assert "Traceback" not in done.stderr
