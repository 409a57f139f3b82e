"""Image files of odd formats, made here by Pillow; the truth is the pixel values that went in."""

import hashlib
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from trees import encoded, picture

from lwnb.data import images

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def flat(mode: str, value, kind: str, size: int = 8, **options) -> bytes:
    return encoded(Image.new(mode, (size, size), value), kind, **options)


def only_colour(data: bytes, size: int = 8) -> tuple[int, ...]:
    """The one colour of a decoded image."""
    pixels = images.decode(data, size)
    assert pixels.shape == (3, size, size)
    assert pixels.dtype == np.uint8
    (colour,) = {tuple(map(int, pixel)) for pixel in pixels.reshape(3, -1).T}
    return colour


LOSSY = {"JPEG": 3, "AVIF": 3, "JPEG2000": 1}


@pytest.mark.parametrize("kind", images.FORMATS)
def test_formats(kind):
    if kind not in images.formats():
        pytest.skip(f"this Pillow has no {kind}")
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = (200, 30, 60)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    options |= {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    decoded = images.decode(encoded(Image.fromarray(pixels), kind, **options), 8)
    assert np.abs(decoded.transpose(1, 2, 0).astype(int) - pixels).max() <= LOSSY.get(kind, 0)


@pytest.mark.parametrize(
    ("mode", "value", "kind", "colour"),
    [
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", WHITE),
        ("LA", (0, 0), "PNG", WHITE),  # wholly transparent: the white below
        ("RGBA", (255, 0, 0, 255), "PNG", RED),
        ("RGBA", (255, 0, 0, 0), "PNG", WHITE),
        ("RGBA", (0, 0, 0, 51), "PNG", (204, 204, 204)),  # a fifth black, four fifths white
        ("CMYK", (0, 255, 255, 0), "TIFF", RED),  # no cyan, all magenta and yellow
        ("CMYK", (0, 0, 0, 255), "TIFF", (0, 0, 0)),
        ("I;16", 257 * 99, "PNG", (99, 99, 99)),
        ("I;16", 65535, "TIFF", WHITE),
        ("I", 257 * 99, "TIFF", (99, 99, 99)),
    ],
)
def test_modes(mode, value, kind, colour):
    assert only_colour(flat(mode, value, kind)) == colour


def test_cmyk_jpeg():
    colour = only_colour(flat("CMYK", (0, 255, 255, 0), "JPEG", quality=100))
    assert np.abs(np.subtract(colour, RED)).max() <= 3


def test_palette_with_and_without_transparency():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*GREEN, *BLUE])
    assert only_colour(encoded(image, "PNG")) == BLUE
    assert only_colour(encoded(image, "PNG", transparency=1)) == WHITE


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "MPO"])
def test_first_frame_of_several(kind):
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    colour = only_colour(encoded(first, kind, save_all=True, append_images=[second]))
    assert np.abs(np.subtract(colour, RED)).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "dot", "dash"),
    [  # where the stored top left and top right corners are seen, by the EXIF standard's table of row 0 and column 0
        (1, "top left", "top right"),
        (2, "top right", "top left"),
        (3, "bottom right", "bottom left"),
        (4, "bottom left", "bottom right"),
        (5, "top left", "bottom left"),
        (6, "top right", "bottom right"),
        (7, "bottom right", "top right"),
        (8, "bottom left", "top left"),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_rotation(kind, orientation, dot, dash):
    image = Image.new("RGB", (32, 32), WHITE)
    image.paste(RED, (0, 0, 8, 8))
    image.paste(BLUE, (24, 0, 32, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = images.decode(encoded(image, kind, exif=exif), 32)
    row, column = {"top": 3, "bottom": 28}, {"left": 3, "right": 28}
    for corner, colour in ((dot, RED), (dash, BLUE)):
        vertical, horizontal = corner.split()
        assert np.abs(decoded[:, row[vertical], column[horizontal]].astype(int) - colour).max() <= 8


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", [10, 20, 5])
def test_the_middle_is_kept(turned, side):
    """Of a flag of three square fields, whichever way it hangs, the middle field remains; larger and smaller too."""
    flag = Image.new("RGB", (30, 10), RED)
    flag.paste(GREEN, (10, 0, 20, 10))
    flag.paste(BLUE, (20, 0, 30, 10))
    if turned:
        flag = flag.transpose(Image.Transpose.ROTATE_90)
    inner = images.decode(encoded(flag, "PNG"), side)[:, 1:-1, 1:-1]
    assert (inner == np.array(GREEN)[:, None, None]).mean() > 0.95


def test_shrinking_is_antialiased():
    """A chessboard of single pixels becomes an even grey; without antialiasing it would stay black and white."""
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    inner = images.decode(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"), 16)[:, 1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 127.5).max() < 3


def test_exact_size():
    assert (images.decode(picture(1, 8), 8, exact=True) == images.decode(picture(1, 8), 8)).all()
    with pytest.raises(ValueError, match="8 x 8 pixels, expected 16 x 16"):
        images.decode(picture(1, 8), 16, exact=True)


def test_what_cannot_be_read_is_named_with_its_reason(monkeypatch):
    whole = picture(1, 64)
    files = {
        "good.png": whole,
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "text.jpg": b"not an image",
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF",  # would start Ghostscript
        "float.tiff": flat("F", 0.5, "TIFF"),
        "bomb.png": flat("RGB", RED, "PNG", size=200),
        "a.heic": b"\0\0\0\x18ftypheic" + bytes(99),
        "b.jpg": b"\0\0\0\x18ftypmif1" + bytes(99),
        "a.jxl": b"\xff\x0a" + bytes(99),
        "c.jpg": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
    }
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses beyond twice that
    pixels, contents, faults, remarks = images.decode_all(list(files), files.__getitem__, 8)
    assert set(faults) == set(files) - {"good.png"}
    assert remarks == {}
    assert faults["empty.png"] == "empty"
    assert "truncated" in faults["cut.png"]
    assert faults["text.jpg"] == faults["page.eps"] == images.UNKNOWN
    assert "no known range" in faults["float.tiff"]
    assert "megapixels" in faults["bomb.png"]
    assert {name: word in faults[name] for name, word in (("a.heic", "HEIC"), ("b.jpg", "pillow-heif"))} == {
        "a.heic": True,
        "b.jpg": True,
    }
    assert [name for name in ("a.jxl", "c.jpg") if "JPEG XL" not in faults[name]] == []
    assert (pixels[0] == images.decode(whole, 8)).all()
    assert [row.tobytes() for row in contents] == [hashlib.sha256(data).digest() for data in files.values()]


def test_many_files_keep_their_order():
    files = {str(seed): picture(seed) for seed in range(150)}
    pixels, _, faults, _ = images.decode_all(list(files), files.__getitem__, 8)
    assert faults == {}
    for seed in (0, 63, 64, 149):
        truth = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        assert (pixels[seed].transpose(1, 2, 0) == truth).all()


def test_what_a_name_says():
    meant = ["a.jpg", "b.JPEG", "c.Pgm", "d.ppm", "e.heic", "f.avif", "g.jp2", "train/h.tif", "i.jfif", "j.mpo"]
    assert [name for name in meant if not images.is_image(name)] == []
    others = ["a.txt", "b", "c.png/", "d.json", "e.jpg.xmp", ".jpg", "f.MOV", "g.CR2", "h.pdf", "i.eps"]
    assert [name for name in others if images.is_image(name)] == []
    assert [n for n in others if images.is_sidecar(n)] == ["a.txt", "d.json", "e.jpg.xmp", "f.MOV", "g.CR2", "h.pdf"]


def test_what_the_content_says():
    assert images.identified(picture(1, 64))
    assert images.identified(picture(1, 64)[:100]), "an image, though damaged"
    assert not images.identified(b"text" * 99)
    assert not images.identified(b"")


def sixteen(top: int, colours: bool = False) -> bytes:
    """A PNG of 16 bits a channel whose largest value is `top`; for colours by hand, since Pillow writes none."""
    grey = np.full((8, 8), top, np.uint16)
    if not colours:
        return encoded(Image.fromarray(grey), "PNG")
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in grey)
    return png(8, 8, 16, 2, zlib.compress(rows))


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG file by its chunks."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize(
    ("top", "found"), [(1023, {"deep", "dark"}), (4095, {"deep", "dark"}), (4096, {"deep"}), (65535, {"deep"})]
)
def test_values_of_fewer_bits_in_16_are_remarked(top, found, colours):
    _, _, faults, remarks = images.decode_all(["a.png"], lambda _: sixteen(top, colours), 8)
    assert (faults, remarks) == ({}, {"a.png": found})


@pytest.mark.parametrize(
    ("kind", "told"), [("GIF", True), ("TIFF", True), ("PNG", True), ("WEBP", True), ("MPO", False)]
)
def test_several_images_in_one_file_are_remarked(kind, told):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, GREEN)]
    content = {"a": encoded(frames[0], kind, save_all=True, append_images=frames[1:]), "b": encoded(frames[0], kind)}
    pixels, _, faults, remarks = images.decode_all(["a", "b"], content.__getitem__, 8)
    assert faults == {}
    assert remarks == ({"a": {"several"}} if told else {})
    assert np.abs(pixels[0].astype(int) - pixels[1]).max() <= 3, "the first one"


def test_a_scan_of_200_megapixels_is_refused_before_it_is_decoded():
    _, _, faults, _ = images.decode_all(["a"], lambda _: png(20_000, 10_000, 8, 0, b""), 8)
    assert "200 megapixels" in faults["a"]
    assert "179" in faults["a"]


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    at_once, most, rgb = set(), [], images._rgb

    def slow(image):
        at_once.add(id(image))
        time.sleep(0.02)
        most.append(len(at_once))
        at_once.remove(id(image))
        return rgb(image)

    monkeypatch.setattr(images, "_rgb", slow)
    monkeypatch.setattr(images, "LARGE", 63)
    images.decode_all(list("abcdef"), lambda _: picture(1, 8), 8)
    assert max(most) == 1


def test_what_cannot_be_opened_is_a_fault():
    def read(name):
        if name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return picture(1)

    _, _, faults, _ = images.decode_all(["a.png", "locked.png", "b.png"], read, 8)
    assert faults == {"locked.png": "Permission denied"}


def test_few_bytes_are_held_at_once(monkeypatch):
    monkeypatch.setattr(images, "HELD", 1000)
    chunks = list(images._chunks([*"abcde"], lambda _: bytes(600), {}))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
