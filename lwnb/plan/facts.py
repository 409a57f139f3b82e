"""What there is."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

FIVE = ("mobilenet_v3_small", "resnet18", "squeezenet1_1", "efficientnet_v2_s", "shufflenet_v2_x1_0")
"""The networks of arXiv 2505.03303."""


@dataclass(frozen=True)
class Policy:
    """An augmentation policy, which a page names alone or joined to others by "+".

    Attributes
    ----------
    stage : when it is applied. "pixels": to (N, 3, S, S) uint8; then, normalised, "erasing": to (N, 3, S, S) float32; then
        "mixing": to those and to targets (N, K) float32; of these a run takes at most one
    work : the function of the stage's arguments and a `torch.Generator` that gives the same, changed, as "module:function"
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


STUDIES = ("01_architectures", "02_transfer", "03_augmentation", "04_hyperparameters", "05_deployment")
"""The studies by the name of their notebook."""


PUBLISHED = ("cifar10-cpu", "cifar100-cpu", "tiny-imagenet-cpu", "cifar10-all", "cifar10-long")
"""The pages whose every run stands in `results/`: the report shows them where no page is asked for."""


@dataclass(frozen=True)
class DataSet:
    """A data set: what is known of it before an image is read.

    Attributes
    ----------
    title : its name in print, and the title of a page that has none of its own
    read : the function that reads it, as "module:function". It takes a `Source`, the archive or folder that was found (None
        if `inside`) and the wanted pixels a side, which it ignores if `side` is set, and gives a `lwnb.data.readers.Contents`
    terms : the terms of the images, which a network trained on them takes along
    classes : how many it has; 0: read from the images
    side : pixels a side of its images; 0: they are brought to the run's `image_size` as they are read
    whole : training and test images of the whole published set, which published accuracies are taken to be about; 0: no such set
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


NETWORKS = {
    "mobilenet_v3_small": ("MobileNetV3-Small", "o"),
    "resnet18": ("ResNet18", "s"),
    "squeezenet1_1": ("SqueezeNet 1.1", "D"),
    "efficientnet_v2_s": ("EfficientNetV2-S", "^"),
    "shufflenet_v2_x1_0": ("ShuffleNetV2 ×1.0", "v"),
}
"""A network's name in print, and its marker in every figure."""


def name(model: str) -> str:
    """A network's name in print."""
    return NETWORKS.get(model, (model, ""))[0]


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


FORMATS = {"onnxruntime": "onnx", "openvino": "onnx", "executorch": "executorch"}
"""The format that a runtime reads."""

SUFFIXES = {"onnx": ".onnx", "executorch": ".pte"}

NEEDS = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "executorch": ("executorch", "torchao"),
    "openvino": ("openvino", "onnxruntime", "onnx", "onnxscript"),
    PYTORCH: ("torch",),
}
"""The packages that a runtime and its files take; the first is the one whose version is the runtime's."""


SPEED = {
    "mobilenet_v3_small": 2950,
    "resnet18": 1040,
    "squeezenet1_1": 4330,
    "efficientnet_v2_s": 340,
    "shufflenet_v2_x1_0": 2460,
}
"""Training images a second at 32 px and output stride 32, for a first estimate before this machine has runs of its own.

By two workers of one thread together, on two cores of an Intel Xeon with AVX-512, torch 2.14.1, fp32, batch 128: medians of the
published runs on Tiny ImageNet; of EfficientNetV2-S by the length of a step (`python -m benchmarks.smallmaps`)."""
