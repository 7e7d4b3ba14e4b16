import pytest
import torch
from torch import nn

from benchmarks import look

CPU, PEAKS = torch.device("cpu"), {torch.float32: 1e9, torch.bfloat16: 2e9}


def small(branches: bool = False) -> look.Network:
    class Net(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if not branches or x.sum() > 0 else -x)

    torch.manual_seed(0)
    net = Net(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    return look.Network("small", net, (torch.rand(2, 3, 8, 8),), 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda net: net)  # a compiler is not to be asked for
    monkeypatch.setattr(look, "seconds_of", lambda run, device: 0.5 if run().dtype == torch.float32 else 0.25)


def test_every_way_gives_the_same_and_its_figures_are_beside_plain():
    found = {one.way: one for one in look.measure(small(), CPU, PEAKS, rounds=1)}
    assert list(found) == ["plain", "layout", "bf16", "compiled", "int8"]
    assert all(one.like > 0.99 for one in found.values())
    assert (found["plain"].per_s, found["plain"].gain) == (4, 1)
    assert (found["bf16"].per_s, found["bf16"].gain) == (8, 2)
    # of two pictures: 6 x 6 places of 4 x 3 x 9 products, then 4 x 4 of 4 x 4 x 9
    flops = 2 * 2 * (36 * 108 + 16 * 144)
    assert found["plain"].roofline == pytest.approx(flops / 0.5 / 1e9)
    assert found["bf16"].roofline == pytest.approx(flops / 0.25 / 2e9)
    assert found["int8"].roofline is None


def test_a_way_that_a_network_cannot_go_is_left_out_in_words(capsys: pytest.CaptureFixture[str]):
    found = look.measure(small(branches=True), CPU, PEAKS, rounds=1)
    assert [one.way for one in found] == ["plain", "layout", "bf16", "compiled"]
    assert "small: no int8: TraceError" in capsys.readouterr().err
