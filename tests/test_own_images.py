"""The journey of a person with a folder of photographs, by the README's words: a page, a file,
and what the file guesses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from readme import guesses
from trees import encoded, folder

from lwnb.base.places import CHECKOUT
from lwnb.data import images, sets
from lwnb.plan.run import Source
from lwnb.records import results

CLASSES = ("ball", "brick", "grass")
SMALL = ("models=[squeezenet1_1,mobilenet_v3_small]", "epochs=8")


def photograph(kind: str, draw: np.random.Generator) -> bytes:
    """A bright disc or a bright bar somewhere before a dark ground, or green noise; 60 to 100 pixels a side."""
    size = tuple(map(int, draw.integers(60, 101, 2)))
    if kind == "grass":
        noise = draw.integers(0, 160, (*reversed(size), 3)) * [0.3, 1, 0.3]
        return encoded(Image.fromarray(noise.astype(np.uint8)), "PNG")
    ground, ink = (tuple(map(int, draw.integers(low, low + 90, 3))) for low in (0, 160))
    x, y, r = (float(v) for v in (*(np.array(size) / 2 + draw.integers(-6, 7, 2)), draw.integers(14, 20)))
    image = Image.new("RGB", size, ground)
    if kind == "ball":
        ImageDraw.Draw(image).ellipse([x - r, y - r, x + r, y + r], fill=ink)
    else:
        ImageDraw.Draw(image).rectangle([x - 1.4 * r, y - r / 3, x + 1.4 * r, y + r / 3], fill=ink)
    return encoded(image, "PNG")


def lwnb(home: Path, *arguments) -> str:
    """What a command prints; the published records of the checkout are at hand, as for everybody."""
    there = os.environ | {"LWNB_HOME": str(home), "LWNB_RESULTS": str(CHECKOUT / "results")}
    command = [Path(sys.executable).with_name("lwnb"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=there)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pages_of(home: Path, page: str) -> dict[str, str]:
    """The HTML of a page's part in every study."""
    return {file.parent.name: file.read_text() for file in (home / "build" / "html").glob(f"*/{page}.html")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_photographs_become_a_page_and_a_file_that_guesses_as_its_run_did(house):
    draw = np.random.default_rng(0)
    tree = {f"{kind}/{number}.png": photograph(kind, draw) for kind in CLASSES for number in range(40)}
    tree["ball/3 (1).png"] = tree["ball/3.png"]
    place, page = folder(house / "photographs", tree), house / "photos.yaml"
    text = (CHECKOUT / "params" / "folder.yaml").read_text(encoding="utf-8")
    assert text.count("title: My images") == text.count("data_root: data/my-images ") == 1
    page.write_text(text.replace("My images", "Balls").replace("data/my-images", str(place)), encoding="utf-8")

    found = lwnb(house, "fetch", str(page))
    assert all(name in found for name in CLASSES)
    index = Path(lwnb(house, "report", str(page), *(word for one in SMALL for word in ("-p", one))).splitlines()[-1])
    assert index == house / "build" / "html" / "index.html" and index.exists()
    shown = pages_of(house, "photos")
    assert set(shown) == {file.stem for file in (CHECKOUT / "notebooks").glob("0[1-5]*")}
    for study, html in shown.items():
        assert "Balls" in html and all(name in html for name in CLASSES), study
        assert "0 of 24" in html and re.search(r"\b1 of \d", html), study  # the copy lies beside what it copies

    own = [record for record in results.every() if record.run.dataset == "folder" and record.learned]
    best = max(own, key=lambda record: record.metrics["val_top1"])
    assert best.metrics["top1"] > 0.6 and best.metrics["classes"] == list(CLASSES)
    said = lwnb(house, "recommend", "--dataset", "folder")
    assert any(f"run {record.run.key}" in said for record in own)
    lwnb(house, "export", best.run.key, "-o", str(house / "net.onnx"))
    test = sets.load(Source(dataset="folder", data_root=str(place)), best.run.image_size).test
    said = {image.numpy().tobytes(): CLASSES[top] for image, top in zip(test.images, best.predictions["top5"][:, 0])}
    pixels = {file: np.asarray(images.decode(file.read_bytes(), best.run.image_size)) for file in place.rglob("*.png")}
    chosen = [file for file in sorted(pixels) if pixels[file].tobytes() in said][::2][:10]
    assert len(chosen) == 10
    assert guesses(house / "net.onnx", chosen) == [said[pixels[file].tobytes()] for file in chosen]
