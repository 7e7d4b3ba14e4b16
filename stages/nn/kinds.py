"""What networks there are, by name: known without torch."""

from typing import Literal

from stages.nn.weights import Bundle

# Of frame networks, see stages/nn/cnn.py; and the width of the vector of those that torchvision has.
Kind = Literal["compact", "vgg16", "resnet18", "resnet50", "googlenet", "inception_v3"]
WIDTHS = {"vgg16": 4096, "resnet18": 512, "resnet50": 2048, "googlenet": 1024, "inception_v3": 2048}
# Of stages/nn/gan.py.
EFFECTS = ("whip", "spin", "ripple", "twist", "zoom", "blur", "lens")


def width(bundle: Bundle, kind: Kind) -> int:
    """D of a frame network, without building it."""
    return bundle.card("features")["settings"]["width"] if kind == "compact" else WIDTHS[kind]
