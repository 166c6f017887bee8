"""Pictures as they come: every mode, odd sizes, broken files."""

import contextlib
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from contextjax import images
from contextjax.types import UserError


def encoded(image, format="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("long", range(8, 17))
def test_the_rounded_crop_is_that_of_torchvision(long):
    """CenterCrop begins at int(round(rest / 2)), which rounds halves to even numbers; Resize is ours."""
    for pixels in (noise(8, long, 3), noise(long, 8, 3)):
        start = round((long - 8) / 2)
        rows, columns = (slice(start, start + 8) if side == long else slice(0, 8) for side in pixels.shape[:2])
        got = images.preprocess(Image.fromarray(pixels), 8, fit="crop_rounded")
        np.testing.assert_array_equal(got, pixels[rows, columns])


def test_too_little_memory_is_no_bad_picture(monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", short)
    with pytest.raises(MemoryError):
        images.decode(encoded(Image.new("RGB", (4, 4))))


def test_rgb_comes_back_exactly():
    pixels = noise(5, 7, 3)
    decoded = images.decode(encoded(Image.fromarray(pixels)))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_jpeg_and_webp_are_read(format):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    np.testing.assert_allclose(np.asarray(images.decode(encoded(flat, format))), np.asarray(flat), atol=4)


def test_grey_is_three_equal_channels():
    pixels = noise(4, 6)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels // 128 * 255).convert("1")):
        decoded = np.asarray(images.decode(encoded(image)))
        np.testing.assert_array_equal(decoded, np.asarray(image.convert("L"))[..., None].repeat(3, -1))


def test_transparency_goes_to_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = [255, 0, 0, 255]
    pixels[1, 1] = [0, 0, 0, 128]
    decoded = np.asarray(images.decode(encoded(Image.fromarray(pixels))))
    assert decoded[0, 0].tolist() == [255, 0, 0]
    assert decoded[0, 1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(decoded[1, 1], 127, atol=1)


def test_a_transparent_palette_colour_goes_to_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 10, 20, 30])
    image.putpixel((1, 0), 1)
    decoded = np.asarray(images.decode(encoded(image, transparency=0)))
    assert decoded.tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_grey_with_transparency_goes_to_white():
    image = Image.fromarray(np.asarray([[[0, 0], [0, 255]]], np.uint8), mode=None)
    assert image.mode == "LA"
    assert np.asarray(images.decode(encoded(image))).tolist() == [[[255] * 3, [0] * 3]]


def png(values, depth, key):
    """A PNG of whole numbers [H, W] or [H, W, 3] of a depth in bits, with a transparent colour."""
    chunk = lambda kind, body: (
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
    )  # fmt: skip
    height, width, *rgb = values.shape
    bits = ["".join(f"{value:0{depth}b}" for value in row.ravel()) for row in values]
    rows = b"".join(b"\0" + bytes(int(row[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(row), 8)) for row in bits)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 2 if rgb else 0, 0, 0, 0])
    key = b"".join(int(value).to_bytes(2, "big") for value in np.ravel(key))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*one) for one in ((b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@pytest.mark.parametrize(("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_a_transparent_colour_goes_to_white_at_every_depth(depth, channels):
    """And a colour that differs from it in one bit stays."""
    rng = np.random.default_rng(depth)
    values = rng.integers(0, 2**depth, (6, 7, channels))
    key = values[2, 3].copy()
    values[4, 4], values[5, 5] = key, key ^ np.eye(channels, dtype=int)[0]
    decoded = np.asarray(images.decode(png(values if channels == 3 else values[..., 0], depth, key)))
    for row, column in np.ndindex(6, 7):
        pixel = values[row, column]
        shown = [255] * 3 if (pixel == key).all() else list(np.broadcast_to(pixel * 255 / (2**depth - 1), 3))
        np.testing.assert_allclose(decoded[row, column], shown, atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "P bytes"])
def test_transparency_of_every_kind_is_laid_on_white(mode):
    pixels = np.concatenate([noise(6, 5, 1).repeat(3, -1), noise(6, 5, 1, seed=1)], -1)
    image = Image.fromarray(pixels).convert(mode.split()[0] if mode != "PA" else "RGBA")
    options = {"P": {"transparency": 3}, "P bytes": {"transparency": bytes(range(0, 250, 2))}}.get(mode, {})
    format = {"PA": "WEBP"}.get(mode, "PNG")
    data = encoded(image, format, **options, **({"lossless": True} if format == "WEBP" else {}))
    source = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), float)
    alpha = source[..., 3:] / 255
    assert (alpha < 1).any()
    np.testing.assert_allclose(images.decode(data), source[..., :3] * alpha + 255 * (1 - alpha), atol=1)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    decoded = np.asarray(images.decode(encoded(image, "JPEG", quality=95)))
    assert decoded.shape == (8, 8, 3)
    np.testing.assert_allclose(decoded[0, 0], [255, 0, 0], atol=12)


def test_sixteen_bits_keep_their_tones():
    deep = (np.arange(64, dtype=np.uint32).reshape(8, 8) * 1040).astype(np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(deep))))
    np.testing.assert_allclose(decoded[..., 0], deep / 257, atol=1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_short_names_itself(format):
    data = encoded(Image.fromarray(noise(20, 17, 3)), format)
    for length in (0, 3, 10, len(data) // 2, len(data) - 40):
        with pytest.raises(UserError, match=r"cat.png can't be read as a picture.*replace or remove it"):
            images.decode(data[:length], name="cat.png")


@pytest.mark.parametrize("format", ["BMP", "GIF", "TIFF", "JPEG2000", "PPM", "ICO", "QOI", "AVIF", "SGI"])
def test_other_formats_are_read(format):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    np.testing.assert_allclose(np.asarray(images.decode(encoded(flat, format))), np.asarray(flat), atol=6)


def test_a_file_is_a_picture_by_its_ending():
    for name in (
        "a.jfif",
        "a.JPE",
        "a.tif",
        "a.TIFF",
        "a.webp",
        "a.avif",
        "a.bmp",
        "a.gif",
        "a.jp2",
        "a.apng",
        "a.ppm",
    ):
        assert images.is_picture(Path(name)), name
    for name in ("._a.png", ".a.jpg", "a.txt", "a.pdf", "a.eps", "a.svg", "png", "a.png.part", "Thumbs.db"):
        assert not images.is_picture(Path(name)), name


def test_junk_is_refused():
    for data in (
        b"",
        b"<svg></svg>",
        encoded(Image.new("RGB", (4, 4)), "TGA"),
        encoded(Image.new("L", (4, 4)), "EPS"),
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    ):
        with pytest.raises(UserError, match="x can't be read"):
            images.decode(data, name="x")


def test_flipped_bytes_never_crash():
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(noise(9, 9, 3)))
    for _ in range(200):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        with contextlib.suppress(UserError):
            images.decode(bytes(broken))


def bomb(width, height):
    """A PNG whose header promises more than it holds."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    chunk = lambda body: (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + zlib.compress(b"\0" * 10)) + chunk(b"IEND")


def test_too_many_pixels_are_refused_by_the_header():
    with pytest.raises(UserError, match="big"):
        images.decode(bomb(40_000, 40_000), name="big")
    with pytest.raises(UserError, match="big has 10 x 10 pixels; at most 99"):
        images.decode(encoded(Image.new("RGB", (10, 10))), name="big", max_pixels=99)
    assert images.decode(encoded(Image.new("RGB", (9, 11))), max_pixels=99).size == (9, 11)


def test_between_the_decoders_own_limit_and_ours_there_is_no_warning():
    with pytest.raises(UserError):
        images.decode(bomb(9_900, 10_000), name="large")


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 31), (31, 9), (1, 2), (640, 481), (3, 100)])
@pytest.mark.parametrize("fit", images.FITS)
def test_preprocess_gives_a_square_of_any_size(size, fit):
    picture = images.preprocess(Image.fromarray(noise(size[1], size[0], 3)), 8, fit=fit)
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize("fit", images.FITS)
def test_a_picture_of_the_right_size_is_left_alone(fit):
    pixels = noise(8, 8, 3)
    np.testing.assert_array_equal(images.preprocess(Image.fromarray(pixels), 8, fit=fit), pixels)


def test_fits_agree_on_a_square():
    square = Image.fromarray(noise(31, 31, 3))
    np.testing.assert_array_equal(images.preprocess(square, 8), images.preprocess(square, 8, fit="squash"))


def test_the_crop_is_of_the_centre():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert images.preprocess(Image.fromarray(pixels), 10).min() == 255
    assert images.preprocess(Image.fromarray(pixels.transpose(1, 0, 2)), 10).min() == 255


def test_squash_keeps_everything_in_its_place():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:5, :15], pixels[5:, 15:] = 90, 255
    squashed = images.preprocess(Image.fromarray(pixels), 20, fit="squash")
    quarters = [
        squashed[rows, columns] for rows in (slice(0, 7), slice(13, 20)) for columns in (slice(0, 7), slice(13, 20))
    ]
    for quarter, grey in zip(quarters, (90, 0, 0, 255), strict=True):
        np.testing.assert_allclose(quarter, grey, atol=1)
    mirrored = images.preprocess(Image.fromarray(pixels[:, ::-1]), 20, fit="squash")
    np.testing.assert_allclose(mirrored[:, ::-1].astype(int), squashed, atol=1)


@pytest.mark.parametrize("fit", [fit for fit in images.FITS if fit not in images.PADDED])
@pytest.mark.parametrize("size", [(60, 24), (24, 61), (40, 40), (200, 3)])
def test_what_is_outside_the_seen_part_is_not_kept(size, fit):
    """But for two pixels at its edge, which the filter and rounding mix."""
    width, height = size
    left, top, right, bottom = images.seen(width, height, fit=fit)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = 255
    assert (images.preprocess(Image.fromarray(pixels), min(width, height), fit=fit) == 255).all()
    kept = images.preprocess(Image.fromarray(255 - pixels), 8, fit=fit)
    assert (kept == 0).all()


def test_an_unknown_fit_is_refused():
    with pytest.raises(UserError, match=r"fit of pictures is 'stretch'; expected one of crop, crop_rounded, squash"):
        images.load(noise(4, 6, 3), 8, fit="stretch")


def test_a_thread_of_a_picture_needs_no_giant_in_between(monkeypatch):
    """The long side grows with the short one: 1 x 5,000 pixels at 224 would be 250 million."""
    sizes = []
    resize = Image.Image.resize

    def spy(self, size, *rest, **options):
        sizes.append(size[0] * size[1])
        return resize(self, size, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    with contextlib.suppress(UserError):  # refused, or only its middle computed
        assert images.preprocess(images.decode(encoded(Image.new("RGB", (1, 5000)))), 16).shape == (16, 16, 3)
    assert max(sizes, default=0) <= 100_000


def test_load_takes_paths_pictures_and_arrays(tmp_path):
    pixels = noise(12, 20, 3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    crop, squash = (images.preprocess(Image.fromarray(pixels), 8, fit=fit) for fit in ("crop", "squash"))
    assert (crop != squash).any()
    for source in (path, str(path), Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(images.load(source, 8), crop)
        np.testing.assert_array_equal(images.load(source, 8, fit="squash"), squash)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "no picture at nowhere.png"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]; expected uint8"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
)
def test_load_says_what_it_got(source, message):
    with pytest.raises(UserError, match=message):
        images.load(source, 8)


def test_the_crop_is_that_of_the_whole_picture_resized():
    """Pixel for pixel, though columns that are cut are never resized in height."""
    rng = np.random.default_rng(0)
    for _ in range(120):
        width, height = (int(side) for side in rng.integers(1, 90, 2))
        size = int(rng.integers(1, 60))
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        short = min(width, height)
        whole = (int(width * size / short), int(height * size / short))
        left, top = (whole[0] - size) // 2, (whole[1] - size) // 2
        resized = image.resize(whole, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
        np.testing.assert_array_equal(images.preprocess(image, size), np.asarray(resized))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_as_pillow_turns_copies(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise(8, 14, 3)), format, exif=exif)
    if format == "TIFF":  # which Pillow turns itself
        data, file = encoded(Image.fromarray(noise(8, 14, 3)), "PNG", exif=exif), data
        np.testing.assert_array_equal(np.asarray(images.decode(file)), np.asarray(images.decode(data)))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(images.decode(data)), np.asarray(expected))


BROKEN = {
    "junk": b"Exif\0\0junk",
    "nothing": b"Exif\0\0",
    "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0",
    "offset": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "no such turn": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    "a text for a turn": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02\x36\0\0\0\0\0\0\0",
    "endless": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x87\x69\0\x04\0\0\0\x01\0\0\0\x08" * 20,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_whole_picture_with_broken_exif_is_read_unturned(format, broken):
    image = Image.fromarray(noise(8, 14, 3))
    plain, sound = encoded(image, format), Image.Exif()
    sound[0x0112] = 6
    data = encoded(image, format, exif=b"Exif\0\0" + sound.tobytes()[6:])
    assert images.decode(data).size == (8, 14)
    try:
        data = encoded(image, format, exif=BROKEN[broken])
    except (SyntaxError, ValueError, TypeError):
        pytest.skip("Pillow does not write it")
    np.testing.assert_array_equal(np.asarray(images.decode(data)), np.asarray(images.decode(plain)))
    with pytest.raises(UserError, match="can't be read"):
        images.decode(data[: len(data) * 2 // 3])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [b"\x01\x02", b"\x00\x00", b"\x0d\x0f"])
def test_a_tiff_with_a_broken_turn_is_read_unturned(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(noise(8, 14, 3))
    data = encoded(image, "TIFF", exif=exif)
    place = data.index(b"\x12\x01\x03\x00")
    broken = data[: place + 2] + kind[::-1] + data[place + 4 :]
    assert images.decode(data).size == (8, 14)
    np.testing.assert_array_equal(np.asarray(images.decode(broken)), np.asarray(image))
    nowhere = data[: place + 2] + b"\x02\x00\xff\xff\x00\x00\xff\xff\xff\x7f" + data[place + 12 :]
    np.testing.assert_array_equal(np.asarray(images.decode(nowhere)), np.asarray(image))


@pytest.mark.parametrize("source", [None, 3, b"x", ["a.png"]])
def test_what_is_no_picture_is_refused(source):
    with pytest.raises(UserError, match="expected a path, a PIL picture or an array"):
        images.load(source, 8)


def test_links_that_lead_nowhere_are_among_the_other_files(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"")
    for name, target in {"loop.png": "loop.png", "loop": "loop", "dead.png": "none.png", "up": "."}.items():
        (tmp_path / name).symlink_to(target)
    assert images.find_pictures(tmp_path) == (["in/a.png"], ["dead.png", "loop", "loop.png"])


@pytest.mark.parametrize(("fit", "ratio"), [("targetpad", 1.25), ("squarepad", 1.0)])
@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (50, 61), (64, 64), (99, 33)])
def test_a_picture_is_padded_with_black_and_cut_at_its_centre(fit, ratio, shape):
    """The published formula: each side of the short one gets int((long / ratio - short) / 2)."""
    height, width = shape
    pixels = np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)
    extra = lambda side: max(int((max(shape) / ratio - side) / 2), 0) if max(shape) / min(shape) >= ratio else 0
    padded = np.pad(pixels, [(extra(height),) * 2, (extra(width),) * 2, (0, 0)])
    expected = images.preprocess(Image.fromarray(padded), 16, fit="crop_rounded")
    np.testing.assert_array_equal(images.preprocess(Image.fromarray(pixels), 16, fit=fit), expected)
    left, top, right, bottom = images.seen(width, height, fit=fit)
    assert right - left == bottom - top == min(padded.shape[:2])
    assert left >= -extra(width) and right <= width + extra(width) and top >= -extra(height)


def test_padding_a_very_long_picture_needs_little_memory():
    long = Image.new("RGB", (60_000, 601), (255, 0, 0))
    seen = images.preprocess(long, 32, fit="squarepad")
    assert seen.shape == (32, 32, 3) and seen[0].max() == 0 and seen[16, :, 0].min() > 50
