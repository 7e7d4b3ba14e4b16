"""A whole bundle of small networks with random weights: loads and runs like a trained one."""

import torch

from stages.nn.cnn import compact
from stages.nn.codec import build_codec, storable
from stages.nn.gan import Generator, GeneratorSettings
from stages.nn.hyperprior import HyperpriorSettings
from stages.nn.lut import LutNet, LutSettings
from stages.nn.scorer import ScorerNet, ScorerShape
from stages.nn.weights import save_model
from stages.score import SIGNALS

ARCH, WIDTH = "shufflenet_v2_x0_5", 1024


def make_bundle(folder: str, seed: int = 0) -> str:
    """Writes the bundle and returns its URI."""
    torch.manual_seed(seed)
    features = compact(ARCH, [], WIDTH, 64)
    card = {
        "kind": "compact",
        "settings": {"arch": ARCH, "without": [], "width": WIDTH, "input_size": 64, "colour": "rgb"},
    }
    save_model(folder, "features", features.trunk.state_dict(), card)
    shape = ScorerShape(features_width=WIDTH, signals=SIGNALS, hidden=8)
    trained_on = {"kind": "compact", "width": WIDTH, "weights": "bundle"}
    card = {
        "kind": "lstm",
        "settings": {"shape": shape.model_dump(), "rate_hz": 2.0, "features": trained_on},
        "requires": ["features"],
    }
    save_model(folder, "scorer", ScorerNet("lstm", shape).state_dict(), card)
    colour = LutSettings()
    save_model(
        folder, "colour", LutNet(colour).state_dict(), {"kind": "lut", "settings": colour.model_dump()}
    )
    effects = GeneratorSettings()
    card = {"kind": "gan", "settings": effects.model_dump()}
    save_model(folder, "effects", Generator(effects).state_dict(), card)
    codec = HyperpriorSettings(
        widths=(16, 16, 16), depths=(1, 1, 1), latent=16, hyper=16, hyper_latent=8, context=16
    ).model_dump()
    net = build_codec("hyperprior", codec)
    net.freeze()
    save_model(folder, "codec", storable(net), {"kind": "hyperprior", "settings": codec})
    return folder
