"""What there is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from lwnb.base import doors
from lwnb.base.errors import ParamsError, nearest

FIVE = ("mobilenet_v3_small", "resnet18", "squeezenet1_1", "efficientnet_v2_s", "shufflenet_v2_x1_0")
"""The networks of arXiv 2505.03303."""


@dataclass(frozen=True)
class Policy:
    """An augmentation policy, which a page names alone or joined to others by "+".

    Attributes
    ----------
    stage : when it is applied. "pixels": to (N, 3, S, S) uint8; then, normalised, "erasing": to (N, 3, S, S) float32;
        then "mixing": to those and to targets (N, K) float32; of these a run takes at most one
    work : the function of the stage's arguments and a `torch.Generator` that gives the same, changed, as
        "module:function"
    mirrors : whether it turns images left to right
    """

    stage: Literal["pixels", "erasing", "mixing"]
    work: str
    mirrors: bool = False


POLICIES = {
    "none": Policy("pixels", "lwnb.training.augment:unchanged"),
    "crop": Policy("pixels", "lwnb.training.augment:crop"),
    "flip-crop": Policy("pixels", "lwnb.training.augment:flip_crop", mirrors=True),
    "autoaugment": Policy("pixels", "lwnb.training.policies:autoaugment"),
    "randaugment": Policy("pixels", "lwnb.training.policies:randaugment"),
    "trivialaugment": Policy("pixels", "lwnb.training.policies:trivialaugment"),
    "random-erasing": Policy("erasing", "lwnb.training.augment:random_erasing"),
    "mixup": Policy("mixing", "lwnb.training.augment:mixup"),
    "cutmix": Policy("mixing", "lwnb.training.augment:cutmix"),
}


@dataclass(frozen=True)
class Study:
    """A question, its notebook (of the same name) and its runs.

    Parameters
    ----------
    title : of its notebook and its chapter
    runs : from a page's parameters to all runs of the study
    compared : to those of them that are compared; empty: all
    exported : whether its pages show the networks of its runs exported to the page's runtimes
    joint : whether it searches several hyperparameters at once, so that a learning rate has no ladder of its own
    quoted : whether published figures are held against its runs
    """

    title: str
    runs: str
    compared: str = ""
    exported: bool = False
    joint: bool = False
    quoted: bool = False


STUDIES = {
    "01_architectures": Study("Architectures", "lwnb.plan.studies:architectures", quoted=True),
    "02_transfer": Study(
        "Transfer learning", "lwnb.plan.studies:transfer", compared="lwnb.plan.studies:on_target", quoted=True
    ),
    "03_augmentation": Study("Data augmentation", "lwnb.plan.studies:augmentation"),
    "04_hyperparameters": Study("Hyperparameters", "lwnb.plan.studies:hyperparameters", joint=True),
    "05_deployment": Study("Deployment", "lwnb.plan.studies:deployment", exported=True),
}
"""The studies by the name of their notebook."""


def listed() -> str:
    """Networks, edge runtimes and studies by name, for the help of a command."""
    runtimes = "; ".join(f"{name} ({row.where})" for name, row in edge_runtimes().items())
    studies = "; ".join(f"{name} ({row.title})" for name, row in STUDIES.items())
    return (
        f"Networks (-p models=[…]): {', '.join(NETWORKS)}, and the classification networks of {', '.join(LIBRARIES)}. "
        f"Edge runtimes (-p runtimes=[…]): {runtimes}. Studies: {studies}."
    )


PUBLISHED = ("cifar10-cpu", "cifar100-cpu", "tiny-imagenet-cpu", "cifar10-all", "cifar10-long")
"""The pages whose every run stands in `results/`: the report shows them where no page is asked for."""


@dataclass(frozen=True)
class DataSet:
    """A data set: what is known of it before an image is read.

    Attributes
    ----------
    title : its name in print, and the title of a page that has none of its own
    read : the function that reads it, as "module:function". It takes a `Source`, the archive or folder that was found
        (None if `inside`) and the wanted pixels a side, which it ignores if `side` is set, and gives a
        `lwnb.data.readers.Contents`
    terms : the terms of the images, which a network trained on them takes along
    classes : how many it has; 0: read from the images
    side : pixels a side of its images; 0: they are brought to the run's `image_size` as they are read
    whole : training and test images of the whole published set, which published accuracies are taken to be about; 0:
        no such set
    files : names of archives and folders under which it is looked for, the first one that is there is taken
    origin : address and MD5 of the published archive; None: there is none to download
    unmirrored : why its images can never be mirrored; empty: they can, where the page does not say `mirror_safe: false`
    seen_by : initial weights that were trained on these images or on these classes
    own : whether the images are the user's: `data_root` names them, they may change, and copies among them are likely
    """

    title: str
    read: str
    terms: str
    classes: int = 0
    side: int = 0
    whole: tuple[int, int] = (0, 0)
    files: tuple[str, ...] = ()
    origin: tuple[str, str] | None = None
    unmirrored: str = ""
    seen_by: tuple[str, ...] = ()
    own: bool = False

    @property
    def inside(self) -> bool:
        """Whether it is part of an installed package, so that no file is looked for."""
        return not (self.files or self.own)


DATASETS = {
    "digits": DataSet(
        title="Digits",
        read="lwnb.data.readers:digits",
        terms="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
        classes=10,
        side=8,
        unmirrored="a mirrored digit is no digit",
    ),
    "cifar10": DataSet(
        title="CIFAR-10",
        read="lwnb.data.readers:cifar",
        terms="no licence stated; cite Krizhevsky 2009",
        classes=10,
        side=32,
        whole=(50_000, 10_000),
        files=("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar10", "cifar10.tar"),
        origin=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar100": DataSet(
        title="CIFAR-100",
        read="lwnb.data.readers:cifar",
        terms="no licence stated; cite Krizhevsky 2009",
        classes=100,
        side=32,
        whole=(50_000, 10_000),
        files=("cifar-100-python", "cifar-100-python.tar.gz", "cifar100", "cifar100.tar"),
        origin=("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "tiny-imagenet": DataSet(  # of Stanford's course CS231n (Le and Yang, 2015); 248,100,043 bytes
        title="Tiny ImageNet",
        read="lwnb.data.readers:tiny_imagenet",
        terms="ImageNet's terms: non-commercial research and education only",
        classes=200,
        side=64,
        whole=(100_000, 10_000),
        files=("tiny-imagenet-200", "tiny-imagenet-200.zip", "tiny-imagenet-200.tar"),
        origin=("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
        seen_by=("imagenet",),
    ),
    "folder": DataSet(
        title="My images",
        read="lwnb.data.readers:folder",
        terms="the terms of the images' owner",
        own=True,
    ),
}


# --- Networks ---


class Scale(NamedTuple):
    """Mean and standard deviation of the RGB channels, on the scale 0..1, that a network's weights expect."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Scale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of ImageNet's training images."""


class Weights(NamedTuple):
    """Published weights: their name in print, and the function from a network's name to its state dict."""

    title: str
    load: str


@dataclass(frozen=True)
class Network:
    """A network: the function that builds it, and its facts.

    Parameters
    ----------
    title : its name in print
    build : from its name and the number of classes K to a network with random weights, drawn from torch's own
        generator: images (N, 3, H, W) float32 to logits (N, K)
    marker : its sign in every figure, as matplotlib names it
    licence : of its code
    scale : how its images are normalised
    weights : its published weights, by the name that the parameters `weights` and `source` have for them
    library : the package whose version the record of a run keeps
    speed : training images a second at 32 px and output stride 32, for a first estimate before this machine has runs of
        its own; None where nothing was measured
    smallest : the image size in pixels from which it is known to work at every output stride; None: it is tried out
    """

    title: str
    build: str
    marker: str = "o"
    licence: str = ""
    scale: Scale = IMAGENET
    weights: Mapping[str, Weights] = field(default_factory=dict)
    library: str = "torch"
    speed: float | None = None
    smallest: int | None = None


class Library(NamedTuple):
    """A library of networks: the function that lists their names, and the facts that all of them share."""

    names: str
    like: Network


TORCHVISION = Network(
    title="",
    build="lwnb.networks.plain:of_torchvision",
    licence="BSD 3-Clause",
    weights={"imagenet": Weights("ImageNet-1K, torchvision's IMAGENET1K_V1", "lwnb.networks.states:imagenet")},
    library="torchvision",
)

LIBRARIES = {"torchvision": Library("lwnb.networks.plain:names_of_torchvision", TORCHVISION)}

NETWORKS = {
    name: replace(TORCHVISION, title=title, marker=marker, speed=speed, smallest=32)
    for name, title, marker, speed in (
        ("mobilenet_v3_small", "MobileNetV3-Small", "o", 2950),
        ("resnet18", "ResNet18", "s", 1040),
        ("squeezenet1_1", "SqueezeNet 1.1", "D", 4330),
        ("efficientnet_v2_s", "EfficientNetV2-S", "^", 340),
        ("shufflenet_v2_x1_0", "ShuffleNetV2 ×1.0", "v", 2460),
    )
}
"""The networks that have a row of their own; `network` also knows those of `LIBRARIES`.

Speeds are those of two workers of one thread together, on two cores of an Intel Xeon with AVX-512, torch 2.14.1, fp32,
batch 128: medians of the published runs on Tiny ImageNet; of EfficientNetV2-S by the length of a step (`python -m
benchmarks.smallmaps`)."""


def network(model: str) -> Network:
    """The row of a network; one that only a library knows has the library's facts, and its name as its title.

    Raises
    ------
    ParamsError
        No network has this name.
    """
    if model in NETWORKS:
        return NETWORKS[model]
    names = list(NETWORKS)
    for library in LIBRARIES.values():  # asked for its names only here: to import it costs seconds
        more = doors.resolve(library.names)()
        if model in more:
            return replace(library.like, title=model)
        names += more
    raise ParamsError(
        f"no network is called {model!r}: allowed are {', '.join(NETWORKS)} and the classification networks of "
        f"{', '.join(LIBRARIES)}{nearest(model, names)}"
    )


def name(model: str) -> str:
    """A network's name in print."""
    return NETWORKS[model].title if model in NETWORKS else model


def marker(model: str) -> str:
    """A network's sign in every figure."""
    return NETWORKS[model].marker if model in NETWORKS else "o"


def sources() -> list[str]:
    """The names of published weights, whichever networks have them."""
    rows = [*NETWORKS.values(), *(library.like for library in LIBRARIES.values())]
    return list(dict.fromkeys(source for row in rows for source in row.weights))


def published_weights(model: str, source: str) -> Weights:
    """The published weights of a network that have this name.

    Raises
    ------
    ParamsError
        It has none of this name: says which it has.
    """
    has = network(model).weights
    if source not in has:
        raise ParamsError(f"weights: {model} has no weights {source!r}, only {', '.join(has) or 'random ones (none)'}")
    return has[source]


# --- Edge runtimes ---


PYTORCH = "pytorch-eager"


class Cell(NamedTuple):
    """One thing to measure: a network's shape on a runtime; `repeat` above 0 is the same again, for the noise."""

    model: str
    num_classes: int
    image_size: int
    output_stride: int
    runtime: str = PYTORCH
    precision: str = "fp32"
    threads: int = 1
    batch_size: int = 1
    repeat: int = 0


LOSS = 0.01
"""The top-1 that INT8 may cost; a file that loses more is marked, and looked at where its format knows how."""


@dataclass(frozen=True)
class Format:
    """A kind of file for edge runtimes.

    Parameters
    ----------
    title : its name in print
    suffix : of its files
    write : writes a file. Called with the network, the file, the image size in pixels, the batch size, calibration
        images (M, 3, S, S) float32 or None, text about the network by name, and the same network's fp32 file or None.
        With calibration images the network becomes INT8.
    columns : what a network takes in this format, in bytes, in the order of tables: `<format>_<precision>_bytes` is a
        file
    needs : the packages that `write` takes
    extra : the extra of lwnb that brings them; empty: they are installed by their own names
    any_batch : whether a file serves any number of images at a time; otherwise the one that it was written for
    weigh : what else `columns` has, from the network, its fp32 file and the image size; empty where there is nothing
    lost : what is looked at where INT8 loses more than `LOSS`; empty: nothing. Called with the
        network, its run, the run's task, the files by precision and the calibration images. Gives what the INT8
        network's row says besides, and further files to test, by precision.
    """

    title: str
    suffix: str
    write: str
    columns: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = ""
    any_batch: bool = False
    weigh: str = ""
    lost: str = ""


FORMATS = {
    "onnx": Format(
        title="ONNX",
        suffix=".onnx",
        write="lwnb.edge.to_onnx:write",
        columns=("onnx_fp32_bytes", "onnx_fp16_bytes", "onnx_int8_bytes"),
        needs=("onnx", "onnxscript", "onnxruntime"),
        extra="edge",
        any_batch=True,
        weigh="lwnb.edge.to_onnx:weigh",
        lost="lwnb.edge.to_onnx:lost",
    ),
    "executorch": Format(
        title="ExecuTorch",
        suffix=".pte",
        write="lwnb.edge.to_executorch:write",
        columns=("executorch_fp32_bytes", "executorch_int8_bytes", "planned_bytes"),
        needs=("executorch", "torchao"),
        extra="edge",
        weigh="lwnb.edge.to_executorch:weigh",
        lost="lwnb.edge.to_executorch:lost",
    ),
}


@dataclass(frozen=True)
class Runtime:
    """What runs a network on a device.

    Parameters
    ----------
    title : its name in print
    load : from the number of threads to a loader, and the loader from a cell to what runs: images (N, 3, S, S) float32
        to logits (N, K); see `lwnb.edge.runtimes`
    form : the format of its files; empty: it runs the network as it was trained
    precisions : those that it runs, fp32 first
    needs : its packages besides those of its format; the first one's version is the runtime's
    extra : the extra of lwnb that brings them; empty: they are installed by their own names
    where : where it runs, in words
    """

    title: str
    load: str
    form: str = ""
    precisions: tuple[str, ...] = ("fp32", "int8")
    needs: tuple[str, ...] = ()
    extra: str = ""
    where: str = ""


REFERENCE = "onnxruntime"
"""The runtime whose files and latencies stand for a network where there is room for one."""

RUNTIMES = {
    "onnxruntime": Runtime(
        title="ONNX Runtime",
        load="lwnb.edge.runtimes:onnxruntime",
        form="onnx",
        needs=("onnxruntime",),
        extra="edge",
        where="x86 and ARM processors",
    ),
    "executorch": Runtime(
        title="ExecuTorch",
        load="lwnb.edge.runtimes:executorch",
        form="executorch",
        needs=("executorch",),
        extra="edge",
        where="x86 and ARM processors, phones",
    ),
    "openvino": Runtime(
        title="OpenVINO",
        load="lwnb.edge.runtimes:openvino",
        form="onnx",
        needs=("openvino",),
        extra="openvino",
        where="x86 and ARM processors, Intel's above all",
    ),
    PYTORCH: Runtime(
        title="eager PyTorch",
        load="lwnb.edge.runtimes:pytorch_eager",
        precisions=("fp32",),
        needs=("torch",),
        where="wherever PyTorch does",
    ),
}


def edge_runtimes() -> dict[str, Runtime]:
    """The runtimes that read a file: those that a page may name."""
    return {name: row for name, row in RUNTIMES.items() if row.form}
