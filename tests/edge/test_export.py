"""Exported and quantised networks, held against PyTorch, against arithmetic by hand,
and against a fault that is planted."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from planted import plant
from readme import example, guesses
from torch import nn
from trained import tiny
from trees import cifar10, cifar10_files, folder, tiny_imagenet

from lwnb.base import errors
from lwnb.batch import grid, prepare
from lwnb.data import images, sets
from lwnb.edge import convert, export, runtimes, to_executorch, to_onnx
from lwnb.evidence import deployed
from lwnb.networks import build, preprocessing
from lwnb.plan import facts, studies
from lwnb.plan.facts import DATASETS
from lwnb.plan.params import check
from lwnb.plan.run import Source
from lwnb.records import costs, folders, publishing, results
from lwnb.training import train

pytest.importorskip("onnx", reason="the extra edge is not installed")

SHAPE = (4, 3, 32, 32)


def outputs(runtime, file, images):
    call = runtimes.loader(runtime, 1)({"file": str(file)})
    size = 1 if runtime == "executorch" else len(images)
    return np.concatenate([call(part.numpy()).copy() for part in images.split(size)])


@pytest.fixture(scope="module")
def net():
    return build.build("squeezenet1_1", 10).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "form"), [("onnxruntime", "onnx"), ("executorch", "executorch"), ("openvino", "onnx")]
)
def test_an_exported_network_says_what_pytorch_says(net, tmp_path, runtime, form):
    if runtimes.absent(*runtimes.rows(runtime)):
        pytest.skip(f"{runtime} is not installed")
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    export.export(net, form, file := tmp_path / f"net{facts.FORMATS[form].suffix}", 32)
    with torch.no_grad():
        wanted = net(images).numpy()
    assert np.abs(outputs(runtime, file, images) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "form"), [("onnxruntime", "onnx"), ("executorch", "executorch")])
def test_int8_is_a_quarter_of_the_file_and_near(net, tmp_path, runtime, form):
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    files = [tmp_path / f"{precision}{facts.FORMATS[form].suffix}" for precision in ("fp32", "int8")]
    for file, calibration in zip(files, (None, images), strict=True):
        export.export(net, form, file, 32, calibration=calibration)
    assert 0.2 < files[1].stat().st_size / files[0].stat().st_size < 0.35
    exact, rough = (outputs(runtime, file, images) for file in files)
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()


def test_int8_products_do_not_saturate_where_a_processor_adds_them_in_16_bits(tmp_path):
    """Weights and inputs all at the top of their ranges: two products are 2 x 255 x 127, twice what 16 bits hold.
    Without VNNI the output was half of what it is."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten()).eval()
    nn.init.constant_(net[0].weight, 0.01)
    images = torch.linspace(0.9, 1, 32 * 3 * 64).view(32, 3, 8, 8)
    export.export(net, "onnx", file := tmp_path / "int8.onnx", 8, calibration=images)
    wanted = net(images).detach().numpy()
    assert np.abs(outputs("onnxruntime", file, images) - wanted).max() < 0.02 * wanted.max()


@pytest.mark.slow
def test_planned_memory_by_hand():
    """conv 3 -> 8, ReLU, conv 8 -> 16 stride 2, flatten, linear at 32 px: the most at once is ReLU's in and out, 2 x 8
    x 32 x 32 x 4 bytes."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Flatten()]
    assert to_executorch.planned(nn.Sequential(*layers, nn.Linear(4096, 10)), 32) == 65_536


def test_a_layer_whose_weights_int8_cannot_hold_is_found(tmp_path):
    """The second convolution's output spans a factor of 10^5 between channels:
    one scale for all of them is too coarse."""
    torch.manual_seed(0)
    wild = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 3)).eval()
    with torch.no_grad():
        wild[1].weight[0] *= 1e5
        wild[3].weight[:, :64] *= 1e-5
    images = torch.randn(32, 3, 8, 8)
    files = [tmp_path / "fp32.onnx", tmp_path / "int8.onnx"]
    for file, calibration in zip(files, (None, images), strict=True):
        export.export(wild, "onnx", file, 8, calibration=calibration)
    found = to_onnx.worst_layers(*files, images)
    assert found and found[0]["snr_db"] < 30 and found == sorted(found, key=lambda one: one["snr_db"])


@pytest.fixture
def record(house):
    return train.train(tiny(models=["resnet18"], epochs=4))


@pytest.mark.slow
def test_a_trained_network_keeps_its_guesses_and_its_conversions_join_the_record(record):
    prepare.convert([record.run], ["onnxruntime"])
    found = results.find(record.run)
    fp32, int8 = found.conversions
    assert fp32["agree"] == 1.0 and fp32["error"] < 1e-4
    assert fp32["predictions"] == found.predictions["top5"][:, 0].tolist()
    assert int8["precision"] == "int8" and len(int8["predictions"]) == found.metrics["n_test"]
    shown = deployed.conversions_table([found])
    assert shown["difference"][0] == 0 and shown["p"][0] == 1
    before = found.conversions
    prepare.convert([record.run], ["onnxruntime"])
    assert results.find(record.run).conversions == before
    assert publishing.publish_runs([found]) and results.find(record.run)
    assert (folders.folder(record.run, "results") / folders.CONVERSIONS).exists()


@pytest.mark.slow
def test_a_network_is_exported_as_its_run_ends_and_that_travels_with_its_record(house, tmp_path, monkeypatch):
    run = tiny(models=["resnet18"], epochs=4)
    grid.ensure([run], exported={run.key: ["onnxruntime"]})
    found = results.find(run)
    assert [row["precision"] for row in found.conversions] == ["fp32", "int8"]
    weighed = costs.find_footprint(costs.shape(run, 10))
    assert weighed["onnx_int8_bytes"] == found.conversions[1]["size_bytes"] < weighed["onnx_fp16_bytes"]
    files = results.pack(found)
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "elsewhere"))
    assert results.store(run, files).conversions == found.conversions


def written(image, kind="PNG", turned=None, **options) -> bytes:
    """An image as the bytes of a file; `turned` by so many quarters, with the EXIF tag that turns it back."""
    if turned:
        image = image.rotate(-90 * turned, expand=True)
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = {1: 8, 2: 3, 3: 6}[turned]
    image.save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


def formats(image) -> dict[str, bytes]:
    """An RGB image of dark ink on white as files that are read in different ways: turned, see-through, 16 bits deep."""
    grey = image.convert("L")
    clear = image.convert("RGBA")
    clear.putalpha(grey.point(lambda value: 255 * (value < 200)))
    clear.paste((0, 0, 0, 0), mask=grey.point(lambda value: 255 * (value >= 200)))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "a.png": written(image), "b.jpg": written(image, "JPEG", quality=95), "c.png": written(clear),
        "d.webp": written(clear, "WEBP", lossless=True), "e.png": written(deep), "f.png": written(clear.convert("LA")),
        "g.jpg": written(image.convert("CMYK"), "JPEG", quality=95), "h.gif": written(image, "GIF"),
        "i.tif": written(deep, "TIFF"), "j.png": written(image, transparency=(255, 255, 255)), "k.png": written(grey),
        "l.bmp": written(image.convert("1"), "BMP"), "m.gif": written(clear, "GIF"),
    } | {f"turned-{n}.jpg": written(image, "JPEG", n, quality=95) for n in (1, 2, 3)}  # fmt: skip


def drawn(kind: str, draw: np.random.Generator):
    """A dark circle or an upright ellipse amid 120 x 40 white pixels; squeezed to a square, a circle is an ellipse."""
    image, ink = Image.new("RGB", (120, 40), "white"), tuple(map(int, draw.integers(0, 120, 3)))
    x, y, height = 60 + draw.integers(-4, 5), 20 + draw.integers(-2, 3), int(draw.integers(12, 17))
    width = height if kind == "circle" else height // 3
    ImageDraw.Draw(image).ellipse([x - width, y - height, x + width, y + height], fill=ink)
    return image


@pytest.mark.parametrize(
    ("dataset", "image_size", "sides"),
    [("folder", 24, [24]), ("digits", 32, [8, 32]), ("cifar10", 32, [32]), ("tiny-imagenet", 32, [64, 32])],
)
def test_the_readme_s_lines_make_of_an_image_file_what_training_makes(house, monkeypatch, dataset, image_size, sides):
    """Pixel by pixel but for a rounding of the last resizing, for every format, with a network that only looks."""
    record, seen = plant(dataset=dataset, image_size=image_size), []
    about = convert.about(record)
    assert json.loads(about["sizes"]) == sides
    known = {"get_modelmeta": lambda: SimpleNamespace(custom_metadata_map=about)}
    known["run"] = lambda _, inputs: seen.append(inputs["images"]) or (np.eye(10)[:1],)
    options = SimpleNamespace(add_session_config_entry=lambda *_: None)
    fake = SimpleNamespace(SessionOptions=lambda: options, InferenceSession=lambda *_: SimpleNamespace(**known))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    for name, content in formats(drawn("ellipse", np.random.default_rng(3))).items():
        (house / name).write_bytes(content)
        monkeypatch.setattr(sys, "argv", ["example", "net.onnx", str(house / name)])
        exec(example(), {})  # noqa: S102 - lines of this repository
        pixels = torch.tensor(images.decode(content, sides[0]))[None]
        wanted = preprocessing.normalise(preprocessing.resize(pixels, image_size), facts.IMAGENET).numpy()
        assert seen[-1].shape == wanted.shape and np.abs(seen[-1] - wanted).max() < 1.01 / 255 / min(
            facts.IMAGENET.std
        ), name


def test_the_sides_of_data_sets_are_those_of_their_images(house):
    assert sets.load(Source(dataset="digits")).train.images.shape[-1] == DATASETS["digits"].side
    tree = folder(house / "tiny", tiny_imagenet())
    assert (
        sets.load(Source(dataset="tiny-imagenet", data_root=str(tree))).test.images.shape[-1]
        == DATASETS["tiny-imagenet"].side
    )
    tree = folder(house / "cifar10", cifar10_files(cifar10(train=2, test=1)))
    assert sets.load(Source(dataset="cifar10", data_root=str(tree))).test.images.shape[-1] == DATASETS["cifar10"].side
    assert {name for name, row in DATASETS.items() if not row.side} == {"folder"}


@pytest.mark.slow
def test_a_file_trained_on_wide_turned_and_transparent_pictures_guesses_as_its_training_did(house):
    draw, tree, truth = np.random.default_rng(0), {}, {}
    for kind in ("circle", "ellipse"):
        for number in range(50):
            tree[f"train/{kind}/{number}.png"] = written(drawn(kind, draw))
        tree |= {f"test/{kind}/{name}": content for name, content in formats(drawn(kind, draw)).items()}
    place = folder(house / "shapes", tree)
    p = grid.pin(
        check({"dataset": "folder", "data_root": str(place), "digest": "", "pool_train": 0, "pool_test": 0} | SHAPES)
    )
    record = train.train(studies.architectures(p)[0])
    assert record.learned and record.metrics["top1"] == 1
    truth = {str(file): file.parent.name for file in sorted(place.glob("test/*/*"))}
    record = results.find_key(record.run.key)  # as `lwnb export` does: it knows where the images lay
    for int8 in (False, True):
        convert.ship(record, "onnx", int8, file := house / "net.onnx")
        assert guesses(file, truth) == list(truth.values())


SHAPES = {
    "models": ["squeezenet1_1"], "image_size": 32, "train_size": 0, "epochs": 8, "batch_size": 16, "augment": "none",
}  # fmt: skip


@pytest.mark.slow
def test_an_executorch_file_tells_the_same(record, tmp_path):
    pytest.importorskip("executorch", reason="executorch is not installed")
    from executorch.runtime import Runtime

    convert.ship(record, "executorch", False, file := tmp_path / "net.pte")
    (said,) = Runtime.get().load_program(str(file)).load_method("metadata").execute([])
    assert json.loads(said) == convert.about(record) and json.loads(json.loads(said)["sizes"]) == [8, 32]


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_a_shipped_file_is_used_without_torch_and_without_this_package(record, tmp_path, int8):
    convert.ship(record, "onnx", int8, file := tmp_path / "net.onnx")
    sure = int(record.predictions["confidence"].argmax())
    Image.fromarray(sets.task(record.run).test.images[sure].permute(1, 2, 0).numpy()).save(
        picture := tmp_path / "one.png"
    )
    assert guesses(file, [picture]) == [record.metrics["classes"][record.predictions["top5"][sure, 0]]]
    about = convert.about(record)
    assert about["run"] == record.run.key and "CC BY 4.0" in about["data_terms"] and json.loads(about["classes"])


@pytest.mark.slow
def test_weights_that_are_not_here_are_refused(record):
    (record.folder / folders.WEIGHTS).unlink()
    with pytest.raises(errors.WeightsError, match="no weights on this machine"):
        convert.trained(record)


@pytest.mark.slow
def test_a_network_that_int8_hurts_is_fine_tuned_through_the_rounding_and_looked_at(record, monkeypatch):
    """Any loss counts as too much here, so that both ways are taken."""
    monkeypatch.setattr(convert, "LOSS", -1.0)
    monkeypatch.setitem(to_executorch.FINETUNE, "steps", 4)
    prepare.convert([record.run], ["onnxruntime", "executorch"])
    found = results.find(record.run)
    ways = [(row["runtime"], row["precision"]) for row in found.conversions]
    assert ways[1:] == [("onnxruntime", "int8"), *[("executorch", one) for one in ("fp32", "int8", "int8-aware")]]
    assert len(deployed.layers([found])) == 5 and found.conversions[2]["agree"] == 1.0
    sizes = {row["precision"]: row["size_bytes"] for row in found.conversions if row["runtime"] == "executorch"}
    assert sizes["int8-aware"] < 0.35 * sizes["fp32"]
