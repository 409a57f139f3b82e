"""What there is."""

from typing import NamedTuple

FIVE = ("mobilenet_v3_small", "resnet18", "squeezenet1_1", "efficientnet_v2_s", "shufflenet_v2_x1_0")
"""The networks of arXiv 2505.03303."""

POLICIES = (
    "none", "crop", "flip-crop", "autoaugment", "randaugment", "trivialaugment",
    "random-erasing", "mixup", "cutmix",
)  # fmt: skip


STUDIES = ("01_architectures", "02_transfer", "03_augmentation", "04_hyperparameters", "05_deployment")
"""The studies by the name of their notebook."""


PUBLISHED = ("cifar10-cpu", "cifar100-cpu", "tiny-imagenet-cpu", "cifar10-all", "cifar10-long")
"""The pages whose every run stands in `results/`: the report shows them where no page is asked for."""


CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200}
"""How many classes a known data set has; those of a `folder` are read from the images."""

TITLES = {
    "digits": "Digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny ImageNet",
    "folder": "My images",
}
"""A data set's name in print, and the title of a page that has none of its own."""


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


TERMS = {
    "digits": "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    "cifar10": "no licence stated; cite Krizhevsky 2009",
    "cifar100": "no licence stated; cite Krizhevsky 2009",
    "tiny-imagenet": "ImageNet's terms: non-commercial research and education only",
    "folder": "the terms of the images' owner",
}
"""The terms of the images that a network was trained on: see the book's page on data sets."""


KNOWN = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar10", "cifar10.tar"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz", "cifar100", "cifar100.tar"),
    "tiny-imagenet": ("tiny-imagenet-200", "tiny-imagenet-200.zip", "tiny-imagenet-200.tar"),
}
"""Names under which a data set is looked for, the first one that is there is taken."""

TINY_IMAGENET = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
"""Address and MD5 of the archive of Stanford's course CS231n (Le and Yang, 2015); 248,100,043 bytes."""


ALL = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "tiny-imagenet": (100_000, 10_000)}
"""Training and test images of the whole sets, which the published accuracies are taken to be about."""
