"""Image files of many formats, decoded to uint8 RGB arrays of one size."""

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What an image may be, where the installed Pillow knows it; JPEG includes the MPO that many phones write."""

FOREIGN = {".avif", ".heic", ".heif", ".hif", ".jp2", ".jxl"}
"""Endings of images that some or all versions of Pillow cannot read: such a file is a bad image,
not one to pass over."""

SIDECARS = (
    " .txt .json .jsonl .xml .xmp .csv .tsv .yaml .yml .toml .ini .cfg .md .rst .html .htm "
    " .pdf .doc .docx .xls .xlsx .ods "
    " .db .sqlite .log .py .ipynb .mat .npy .npz .pkl .h5 .hdf5 .parquet .arrow .tfrecord .zip .tar .gz .tgz .7z .rar "
    " .mov .mp4 .m4v .avi .mkv .webm .3gp .mp3 .wav .m4a .aae .lnk .url .md5 .sha256 "
    " .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 "
)
"""Endings of what lies beside images: never opened. Of the raw files of cameras Pillow would read the thumbnail."""

UNREAD = (
    " .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .psd .xcf .ai .eps .svg .wmf .emf "
    " .tga .pcx .ico .icns .dds .dib .exr .hdr "
)
"""Endings of images that are not read, unless their content is of one of `FORMATS`."""

CHUNK, HELD = 64, 2**28
"""Files, and bytes, that are held in memory at once, undecoded."""

LARGE = 50_000_000
"""Pixels above which images are decoded one at a time: a copy takes 4 bytes a pixel, and there are two to four."""

JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
"""How a file of JPEG XL begins: one without a container, and one with it."""

UNKNOWN = "no image that can be read here"
"""The reason where a file's content is of no known format."""

_one_at_a_time = threading.Lock()


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _suffixes() -> set[str]:
    return FOREIGN | {suffix for suffix, name in Image.registered_extensions().items() if name in (*formats(), "MPO")}


def suffix(name: str) -> str:
    """The ending of a file's name in lower case: '.jpg', or '' if it has none, or is a folder by its last slash."""
    return "" if name.endswith("/") else PurePosixPath(name).suffix.lower()


def is_image(name: str) -> bool:
    """Whether a file is meant as an image, by its ending."""
    return suffix(name) in _suffixes()


def is_sidecar(name: str) -> bool:
    """Whether a file is known not to be an image, by its ending."""
    return f" {suffix(name)} " in SIDECARS and suffix(name) != ""


def is_unread(name: str) -> bool:
    """Whether a file is an image of a kind that is not read, by its ending."""
    return f" {suffix(name)} " in UNREAD and suffix(name) != ""


def identified(data: bytes) -> bool:
    """Whether a file is an image by its content, whole or damaged; it is not decoded."""
    with suppress(Exception):
        try:
            Image.open(io.BytesIO(data), formats=formats()).close()
        except Image.UnidentifiedImageError:
            return False
    return True


def decode(data: bytes, size: int, exact: bool = False) -> np.ndarray:
    """An image file as (3, size, size) uint8 RGB.

    It is turned as its EXIF data say, laid on white where it is transparent, resized by its shorter side (bilinear,
    antialiased) and cropped about the centre. 16-bit grey is divided by 257.

    Raises
    ------
    ValueError
        With `exact`: the image has another size.
    Exception
        Whatever Pillow raises on broken files, decompression bombs among them.
    """
    return _decode(data, size, exact)[0]


def _decode(data: bytes, size: int, exact: bool) -> tuple[np.ndarray, set[str]]:
    """The image and its remarks, as in `decode_all`."""
    with Image.open(io.BytesIO(data), formats=formats()) as file, _turn(file):
        return _fitted(file, size, exact)


def _fitted(file: Image.Image, size: int, exact: bool) -> tuple[np.ndarray, set[str]]:
    deep = file.mode.startswith("I") or ";16" in str(file.tile)
    image = _rgb(upright := ImageOps.exif_transpose(file))
    if exact and image.size != (size, size):
        raise ValueError(f"{image.width} x {image.height} pixels, expected {size} x {size}")
    remarks = {"several"} if _is_animated(file) else set()
    if deep:  # of 16-bit colours Pillow gives the upper byte
        upper = np.asarray(upright) // 256 if upright.mode.startswith("I") else np.asarray(image)
        remarks |= {"deep", "dark"} if upper.max() <= 4095 // 256 else {"deep"}
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1), remarks


def _turn(file: Image.Image) -> AbstractContextManager:
    """What a large image waits for."""
    return _one_at_a_time if file.width * file.height > LARGE else nullcontext()


def _is_animated(file: Image.Image) -> bool:
    with suppress(Exception):  # a later frame is damaged: the first one was read
        return file.format != "MPO" and getattr(file, "is_animated", False)  # a phone's MPO is one picture
    return True


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of mode {image.mode} beyond 16 bits have no known range")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_all(
    paths: Sequence[str], read: Callable[[str], bytes], size: int, exact: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, str], dict[str, set[str]]]:
    """Decode files side by side, read one after the other in the order given.

    Returns
    -------
    images : (N, 3, size, size) uint8, black where a file could not be decoded
    contents : (N, 32) uint8, SHA-256 of the files' bytes
    faults : path -> reason, of the files that could not be read or decoded
    remarks : path -> what else was seen: `several` images in one file, of which the first was taken; `deep`: 16 bits a
        channel; `dark`: so deep, without a value above 4,095 (12 bits)
    """
    images = np.zeros((len(paths), 3, size, size), np.uint8)
    contents = np.zeros((len(paths), 32), np.uint8)
    faults, remarks = {}, {}

    def one(index: int, data: bytes) -> None:
        contents[index] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        try:
            images[index], remarks[paths[index]] = _decode(data, size, exact)
        except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on a broken file
            faults[paths[index]] = _reason(data, error)

    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor() as pool,
        tqdm(total=len(paths), desc="decoding", disable=None, leave=False) as bar,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but read
        for chunk in _chunks(paths, read, faults):
            list(pool.map(one, chunk.keys(), chunk.values()))
            bar.update(len(chunk))
    return images, contents, faults, {path: found for path, found in remarks.items() if found}


def _chunks(paths: Sequence[str], read: Callable[[str], bytes], faults: dict[str, str]) -> Iterator[dict[int, bytes]]:
    """Index -> content, for a few files at a time; what cannot be read goes to `faults`."""
    chunk = {}
    for index, path in enumerate(paths):
        try:
            chunk[index] = read(path)
        except OSError as error:
            faults[path] = error.strerror or str(error)
        if len(chunk) == CHUNK or sum(map(len, chunk.values())) > HELD:
            yield chunk
            chunk = {}
    yield chunk


def _reason(data: bytes, error: Exception) -> str:
    """Why a file could not be decoded, and what to do where that is not plain."""
    if not data:
        return "empty"
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", str(error))
        size = f"{int(found[0]) / 1e6:,.0f}" if found else "too many"
        return f"{size} megapixels, more than the {2 * Image.MAX_IMAGE_PIXELS / 1e6:,.0f} that are read: scale it down"
    if isinstance(error, Image.UnidentifiedImageError):
        kind = {b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC", b"avi": "AVIF"}.get(data[8:11] * (data[4:8] == b"ftyp"))
        kind = "JPEG XL" if data.startswith(JXL) else kind
        needs = " without the package pillow-heif" if kind == "HEIC" else ""
        return f"{kind}, which the installed Pillow cannot read{needs}: convert it to JPEG" if kind else UNKNOWN
    return str(error).split(" <")[0] or type(error).__name__
