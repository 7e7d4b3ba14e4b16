"""Frame networks: uint8 frames [N, S, S, 3] -> one vector each, from just before the classifier.

compact        a small torchvision network that we train ourselves (jobs/train/features.py); its
               architecture, width and input size stand in the bundle's card
vgg16          Simonyan & Zisserman, https://arxiv.org/abs/1409.1556  (fc7, 4096)
resnet18/50    He et al., https://arxiv.org/abs/1512.03385
googlenet      Szegedy et al., https://arxiv.org/abs/1409.4842        (pool5, 1024: the usual input of
               video summarisation networks)
inception_v3   Szegedy et al., https://arxiv.org/abs/1512.00567

    frames_NSSC uint8 ─► resize ─► normalise ─► trunk ─► v_ND float32
"""

from collections.abc import Sequence
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from stages.nn.kinds import WIDTHS, Kind
from stages.nn.weights import Bundle, BundleError

# Side of the picture that torchvision's weights were trained on.
INPUT_SIZES = {"vgg16": 224, "resnet18": 224, "resnet50": 224, "googlenet": 224, "inception_v3": 299}
# Of ImageNet, as in all of torchvision's weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class FeatureNet(nn.Module):
    """Resizing, normalisation and a trunk that ends before its classifier.

    width       D, length of the vectors
    input_size  side of the square that the trunk sees
    """

    def __init__(self, trunk: nn.Module, width: int, input_size: int):
        super().__init__()
        self.trunk, self.width, self.input_size = trunk, width, input_size
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames_NSSC: Tensor) -> Tensor:
        # A permuted NHWC picture is channels_last already: no copy, and the faster layout on CPU and GPU.
        x_NCSS = frames_NSSC.permute(0, 3, 1, 2)
        size = (self.input_size, self.input_size)
        if x_NCSS.shape[-2:] != size:
            # On a CPU a twelfth of the time for bytes, which a GPU cannot resize.
            x_NCSS = x_NCSS if x_NCSS.device.type == "cpu" else x_NCSS.float()
            x_NCSS = F.interpolate(x_NCSS, size, mode="bilinear", antialias=True)
        return self.trunk((x_NCSS.float() / 255 - self.mean) / self.std)


def last_map(net: FeatureNet) -> nn.Module:
    """The module whose output is the last that still has places: [N, C, h, w] of more than one pixel."""
    found: list[nn.Module] = []

    def look(module: nn.Module, _: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            found.append(module)

    hooks = [module.register_forward_hook(look) for module in net.trunk.modules()]
    with torch.inference_mode():
        net(torch.zeros(1, net.input_size, net.input_size, 3, dtype=torch.uint8, device=net.mean.device))
    for hook in hooks:
        hook.remove()
    return found[-1]


def grad_cam(net: FeatureNet, layer: nn.Module, frames_NHWC: Tensor, towards_ND: Tensor) -> Tensor:
    """Where in each picture lies what moves its vector in the direction asked for, [N, h, w]; signed.

    Selvaraju et al., https://arxiv.org/abs/1610.02391, eq. 1 and 2 without the ReLU, of y = v . towards and
    the activations A of `layer`: the sum over channels k of (mean over places of dy/dA_k) A_k. Where the
    vector is the mean of A over the places, as in a residual network, this is each place's very share of y.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
        # The gradient goes no further back than here; a leaf must not be written to by what comes next.
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    hook = layer.register_forward_hook(keep)
    try:
        y = (net(frames_NHWC) * towards_ND).sum()
    finally:
        hook.remove()
    (gradient_NChw,) = torch.autograd.grad(y, kept[-1])
    return (gradient_NChw.mean((2, 3), keepdim=True) * kept[-1].detach()).sum(1)


def load(bundle: Bundle, kind: Kind = "compact", weights: str = "bundle") -> FeatureNet:
    """The network with its weights, in eval mode.

    weights  "bundle", "official" (torchvision's own, downloaded and hash-checked), or the path of a
             .safetensors file with a state dict of this architecture

    Raises BundleError, in words for the operator.
    """
    net = build(bundle, kind)
    if weights == "bundle":
        card = bundle.card("features")
        if card["kind"] != kind:
            raise BundleError(
                f"{bundle.uri} holds {card['kind']} features, not {kind}: set features.weights to official "
                f"or to a .safetensors file, or train them with `reelmap train features`"
            )
        state = bundle.state("features")
    elif weights == "official":
        state = official(kind)
    elif weights.endswith(".safetensors"):
        state = read(weights)
    else:
        raise BundleError(f"features.weights is bundle, official or a .safetensors path, not {weights}")
    # A whole torchvision state dict is welcome, too: what comes after our trunk is left out.
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    wanted = net.trunk.state_dict()
    missing = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if missing:
        raise BundleError(
            f"the {weights} weights do not fit {kind} features: {len(missing)} of {len(wanted)} tensors are "
            f"missing or of another shape, the first is {missing[0]}"
        )
    net.trunk.load_state_dict({name: state[name] for name in wanted})
    return net.eval().to(memory_format=torch.channels_last)


def build(bundle: Bundle, kind: Kind) -> FeatureNet:
    """The network of a kind with random weights."""
    if kind == "compact":
        card = bundle.card("features")
        if card["kind"] != "compact":
            raise BundleError(
                f"{bundle.uri} holds {card['kind']} features and does not say how compact is built"
            )
        settings = card["settings"]
        return compact(settings["arch"], settings["without"], settings["width"], settings["input_size"])
    if kind not in WIDTHS:
        raise BundleError(f"no features are called {kind}; there are compact, {', '.join(WIDTHS)}")
    if kind in ("googlenet", "inception_v3"):
        # transform_input: their weights expect another normalisation and the networks convert to it.
        net = get_model(kind, weights=None, init_weights=False, aux_logits=False, transform_input=True)
        net.fc = nn.Identity()
    else:
        net = get_model(kind, weights=None)
        cut(net)
    return FeatureNet(net, WIDTHS[kind], INPUT_SIZES[kind])


def compact(arch: str, without: Sequence[str], width: int, input_size: int) -> FeatureNet:
    """A small torchvision network by name, without its classifier and the layers named, with random weights.

    Raises BundleError if its vectors are not `width` long.
    """
    net = get_model(arch, weights=None)
    cut(net)
    for name in without:
        setattr(net, name, nn.Identity())
    with torch.inference_mode():
        actual = net.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    if actual != width:
        raise BundleError(
            f"{arch} without {', '.join(without)} gives vectors of {actual}, not {width} as asked"
        )
    return FeatureNet(net, width, input_size)


def get_model(name: str, **options: Any) -> nn.Module:
    """torchvision's, whose import takes as long as torch's own: who builds no frame network does without."""
    from torchvision.models import get_model

    return get_model(name, **options)


def cut(net: nn.Module) -> None:
    """Take the last linear layer off a torchvision network, and the dropout before it."""
    if hasattr(net, "fc"):
        net.fc = nn.Identity()
        return
    *body, _ = net.classifier
    while body and isinstance(body[-1], nn.Dropout):
        body.pop()
    net.classifier = nn.Sequential(*body)


def official(kind: Kind) -> dict[str, Tensor]:
    """torchvision's default weights of a kind, from its cache or its server."""
    if kind == "compact":
        raise BundleError("compact features are ours: set features.weights to bundle")
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(kind).DEFAULT.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, TimeoutError, ConnectionError) as error:
        raise BundleError(
            f"torchvision's weights of {kind} cannot be downloaded ({error}): without a network, put them "
            f"into {torch.hub.get_dir()}/checkpoints, or set features.weights to a .safetensors file"
        ) from error
    except RuntimeError as error:
        raise BundleError(f"torchvision's weights of {kind} came damaged: {error}") from error


def read(path: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BundleError(f"features.weights: {path} does not exist") from error
    except SafetensorError as error:
        raise BundleError(f"features.weights: {path} is not a safetensors file: {error}") from error
