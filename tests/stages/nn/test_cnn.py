from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from stages.nn import cnn
from stages.nn.kinds import WIDTHS, width
from stages.nn.weights import Bundle, BundleError, open_bundle, save_model

COMPACT = {"arch": "resnet18", "without": ["layer3", "layer4"], "width": 128, "input_size": 64}
ANY = Bundle("nowhere", {"features": {"kind": "compact", "settings": COMPACT}})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    net = cnn.compact(**COMPACT)
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.trunk.state_dict().items()}
    save_model(str(tmp_path / "bundle"), "features", state, {"kind": "compact", "settings": COMPACT})
    return open_bundle(str(tmp_path / "bundle"))


def pictures(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["compact", *WIDTHS])
def test_every_kind_gives_vectors_of_the_width_it_names(kind: str):
    # On the meta device nothing is computed, so that VGG's 138 million weights cost nothing.
    with torch.device("meta"):
        net = cnn.build(ANY, kind) if kind != "compact" else cnn.FeatureNet(get_trunk(), 128, 64)
        vectors = net.eval()(torch.zeros(2, 256, 256, 3, dtype=torch.uint8))
    assert vectors.shape == (2, net.width) == (2, width(ANY, kind))


def get_trunk() -> torch.nn.Module:
    net = get_model("resnet18", weights=None)
    net.fc = net.layer3 = net.layer4 = torch.nn.Identity()
    return net


@torch.inference_mode()
def test_a_frame_has_the_same_vector_whatever_is_beside_it(bundle: Bundle):
    net, frames = cnn.load(bundle), pictures(5, 96)
    torch.testing.assert_close(net(frames)[3:4], net(frames[3:4]), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_different_frames_have_different_vectors(bundle: Bundle):
    net = cnn.load(bundle)
    black, white = (
        torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
        torch.full((1, 64, 64, 3), 255, dtype=torch.uint8),
    )
    assert (net(black) - net(white)).abs().max() > 1e-3


def test_a_whole_torchvision_state_dict_fits(tmp_path: Path):
    torch.manual_seed(1)
    whole = get_model("resnet18", weights=None)
    save_file(whole.state_dict(), tmp_path / "resnet18.safetensors")
    net = cnn.load(ANY, "resnet18", str(tmp_path / "resnet18.safetensors"))
    frames = pictures(2, 224)
    x = (frames.permute(0, 3, 1, 2) / 255 - net.mean) / net.std
    whole.fc = torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(net(frames), whole.eval()(x), rtol=1e-3, atol=1e-4)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(BundleError, match=r"do not fit resnet18 .* conv1\.weight"):
        cnn.load(ANY, "resnet18", str(tmp_path / "odd.safetensors"))


@pytest.mark.parametrize(("name", "data"), [("none.safetensors", None), ("text.safetensors", b"hello world")])
def test_a_path_that_holds_no_weights_is_said(tmp_path: Path, name: str, data: bytes | None):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} (does not exist|is not a safetensors file)"):
        cnn.load(ANY, "resnet18", str(tmp_path / name))


def test_a_pickle_is_never_read(tmp_path: Path):
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match=r"or a \.safetensors path, not"):
        cnn.load(bundle=ANY, kind="resnet18", weights=str(tmp_path / "weights.pth"))


def test_official_weights_without_a_network_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(BundleError, match="without a network, put them into"):
        cnn.load(ANY, "resnet18", "official")


def test_a_bundle_of_another_kind_says_so(bundle: Bundle):
    with pytest.raises(BundleError, match="holds compact features, not resnet18"):
        cnn.load(bundle, "resnet18")


def test_a_width_that_the_network_does_not_have_is_refused():
    with pytest.raises(BundleError, match="vectors of 128, not 99"):
        cnn.compact("resnet18", ["layer3", "layer4"], 99, 64)


@pytest.mark.parametrize("kind", ["vgg16", "resnet18", "resnet50", "googlenet", "inception_v3"])
def test_the_last_map_of_every_kind_still_has_places(kind: str):
    with torch.device("meta"):
        net = cnn.build(ANY, kind).eval()
        layer, shapes = cnn.last_map(net), []
        layer.register_forward_hook(lambda _, __, output: shapes.append(output.shape))
        net(torch.zeros(1, 256, 256, 3, dtype=torch.uint8))
    assert shapes[0][2:] == ((8, 8) if kind == "inception_v3" else (7, 7))


def test_the_places_of_a_map_share_the_whole_among_them(bundle: Bundle):
    net, frames = cnn.load(bundle), pictures(3, 64)
    towards = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    shares = cnn.grad_cam(net, cnn.last_map(net), frames, towards)
    assert shares.shape == (3, 8, 8)
    torch.testing.assert_close(shares.sum((1, 2)), (net(frames) * towards).sum(1).detach())
    again = cnn.grad_cam(net, cnn.last_map(net), frames, towards)
    torch.testing.assert_close(again, shares)  # nothing stays hooked
