"""Image files of many formats, decoded to uint8 RGB arrays of one size."""

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What an image may be; JPEG includes the MPO that many phones write."""

CHUNK = 64
"""Files that are held in memory at once, undecoded."""


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
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        image = _rgb(ImageOps.exif_transpose(file))
    if exact and image.size != (size, size):
        raise ValueError(f"{image.width} x {image.height} pixels, expected {size} x {size}")
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of mode {image.mode} beyond 16 bits have no known range")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def decode_all(
    paths: Sequence[str], read: Callable[[str], bytes], size: int, exact: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Decode files side by side, read one after the other in the order given.

    Returns
    -------
    images : (N, 3, size, size) uint8, black where a file could not be decoded
    contents : (N, 32) uint8, SHA-256 of the files' bytes
    faults : path -> reason, of the files that could not be decoded
    """
    images = np.zeros((len(paths), 3, size, size), np.uint8)
    contents = np.zeros((len(paths), 32), np.uint8)
    faults = {}

    def one(index: int, data: bytes) -> None:
        contents[index] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        try:
            images[index] = decode(data, size, exact)
        except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on a broken file
            faults[paths[index]] = "empty" if not data else str(error).split(" <")[0] or type(error).__name__

    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), desc="decoding", disable=None, leave=False) as bar:
        for start in range(0, len(paths), CHUNK):
            indices = range(start, min(start + CHUNK, len(paths)))
            list(pool.map(one, indices, [read(paths[index]) for index in indices]))
            bar.update(len(indices))
    return images, contents, faults
