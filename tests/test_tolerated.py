"""Laws of the tolerated noise: what moves it, what does not, and channels of known rate."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import ibcore
from ibcore.models import FullyConnected, GraphConvolutional, LeNet, Recurrent
from ibcore.tolerated import ToleratedNoise

SEARCH = 0.15  # bits: another draw of the noise, and where the search for it stops


@pytest.fixture(scope="module")
def data():
    return ibcore.load("tishby", dtype=torch.float64).split(0.85, 0)


@pytest.fixture(scope="module")
def trained(data):
    model = FullyConnected((12, 8, 6, 4, 2), "relu", seed=0).double()
    ibcore.fit(model, data, epochs=30, learning_rate=5e-3, batch_size=512, seed=0, snapshots=[],
               progress=False)  # fmt: skip
    return model


def some(data, count=400):
    rows = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(0))[:count]
    return data.x[rows], data.y[rows]


def linears(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_the_answer_changes_by_the_tolerance_also_on_fresh_draws(data, trained, form):
    for tolerance in (0.1, 0.01):
        found = ToleratedNoise(tolerance, form)(trained, "relu2", *some(data))
        assert found.reached == pytest.approx(tolerance, rel=0.3)
        assert 0 < found.i_zy <= 1 + 1e-9
        assert found.i_zy <= found.i_xz <= math.log2(400)


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_less_change_of_the_answer_costs_more_bits(data, trained, form):
    rates = [
        ToleratedNoise(t, form)(trained, "relu2", *some(data)).rate for t in (0.1, 0.01, 0.001)
    ]
    assert rates[0] < rates[1] < rates[2]


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_the_scale_of_relu_units_moves_nothing(data, trained, form):
    scaled = copy.deepcopy(trained)
    first, second = linears(scaled)[1:3]
    factors = torch.tensor([0.01, 0.3, 1, 5, 40, 1000], dtype=torch.float64)
    with torch.no_grad():
        first.weight *= factors[:, None]
        first.bias *= factors
        second.weight /= factors
    before, after = (ToleratedNoise(form=form)(m, "relu2", *some(data)) for m in (trained, scaled))
    assert after.rate == pytest.approx(before.rate, abs=SEARCH)
    assert after.i_xz == pytest.approx(before.i_xz, abs=SEARCH)


class Read(nn.Module):
    """A layer, and what reads it: a linear map and a network of its own."""

    def __init__(self, layer, reader, weights):
        super().__init__()
        self.layer, self.read = nn.Linear(*layer.shape[::-1], bias=False), reader
        self.layer.weight = nn.Parameter(layer)
        self.weights = weights

    def forward(self, x):
        return self.read(self.layer(x) @ self.weights)


def reader(dim=4, classes=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(dim, 16), nn.Tanh(), nn.Linear(16, classes)).double()


def test_an_invertible_linear_map_moves_only_the_diagonal_form():
    x = gaussian(500, 4) @ torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.2]).double())
    y, net = torch.arange(500) % 3, reader()
    turn = torch.linalg.qr(gaussian(4, 4, 2)).Q @ torch.diag(torch.tensor([1, 2, 0.5, 9]).double())
    plain = Read(torch.eye(4).double(), net, torch.eye(4).double())
    mapped = Read(turn, net, torch.linalg.inv(turn).T)
    full, moved = (ToleratedNoise()(m, "layer", x, y) for m in (plain, mapped))
    assert moved.rate == pytest.approx(full.rate, abs=SEARCH)
    assert moved.i_xz == pytest.approx(full.i_xz, abs=SEARCH)
    diagonal = [ToleratedNoise(form="diagonal")(m, "layer", x, y).rate for m in (plain, mapped)]
    assert abs(diagonal[1] - diagonal[0]) > SEARCH


def test_copied_and_unread_units_move_only_the_diagonal_form():
    x, y, net = gaussian(500, 4), torch.arange(500) % 3, reader()
    one, none = torch.eye(4).double(), torch.zeros(10, 4).double()
    plain = Read(one, net, one)
    copied = Read(torch.cat([one] * 3), net, torch.cat([one] * 3) / 3)
    unread = Read(torch.cat([one, gaussian(10, 4, 3)]), net, torch.cat([one, none]))
    full = ToleratedNoise()(plain, "layer", x, y)
    for other in (copied, unread):
        assert ToleratedNoise()(other, "layer", x, y).i_xz == pytest.approx(full.i_xz, abs=0.3)
    spread = ToleratedNoise(form="diagonal")
    assert spread(unread, "layer", x, y).i_xz > spread(plain, "layer", x, y).i_xz + 0.3


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_a_layer_that_the_answer_ignores_has_no_bits(form):
    x, y = gaussian(300, 4), torch.arange(300) % 3
    found = ToleratedNoise(form=form)(
        Read(torch.eye(4).double(), reader(), torch.zeros(4, 4).double()), "layer", x, y
    )
    assert found[:6] == (0, 0, 0, 0, 0, 0)
    assert found.reached == 0


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_units_that_never_change_carry_nothing_and_are_no_directions(form):
    x, y, net = gaussian(300, 4), torch.arange(300) % 3, reader()
    one, none = torch.eye(4).double(), torch.zeros(3, 4).double()
    plain, dead = Read(one, net, one), Read(torch.cat([one, none]), net, torch.cat([one, none]))
    found, same = (ToleratedNoise(form=form)(m, "layer", x, y) for m in (dead, plain))
    assert found.directions == same.directions <= 4
    assert found.rate == pytest.approx(same.rate, abs=SEARCH)
    still = Read(torch.zeros(4, 4).double(), net, one)
    assert ToleratedNoise(form=form)(still, "layer", x, y)[:6] == (0, 0, 0, 0, 0, 0)


def test_a_linear_answer_has_the_rate_of_parallel_gaussian_channels():
    # Small changes of two logits: KL = ½ p(1−p) (change of their difference)², one direction.
    x, y = gaussian(4000, 3), torch.arange(4000) % 2
    slope = torch.tensor([[0.05, 0.02, -0.01], [0.0, 0.0, 0.0]]).double()
    head = nn.Linear(3, 2, bias=False).double()
    head.weight = nn.Parameter(slope)
    net = Read(torch.eye(3).double(), head, torch.eye(3).double())
    tolerance = 1e-5
    found = ToleratedNoise(tolerance)(net, "layer", x, y)
    difference = (x @ (slope[0] - slope[1])).numpy()
    p = 1 / (1 + np.exp(-difference))
    need = np.mean(p * (1 - p)) / 2 / math.log(2) * difference.var()  # bits, at r = 1
    expected = 0.5 * math.log2(1 + need / tolerance)
    assert found.rate == pytest.approx(expected, rel=0.03)  # θ is searched to 1 %
    assert found.directions == 1
    assert found.i_xz == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_a_planted_channel_is_found_whatever_units_lie_beside_it(bits):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (600, 6), generator=generator).double()
    places = 2 ** torch.arange(bits)
    y = (x[:, :bits] @ places.double()).long()
    words = (torch.arange(2**bits)[:, None] // places % 2).double()
    head = nn.Linear(6, 2**bits).double()
    with torch.no_grad():  # logits by the distance to each word of the first bits
        head.weight.zero_()
        head.weight[:, :bits] = 60 * (2 * words - 1)
        head.bias.copy_(-60 * words.sum(1))
    net = Read(torch.eye(6).double(), head, torch.eye(6).double())
    found = ToleratedNoise(1e-3)(net, "layer", x, y)
    assert found.i_xz == pytest.approx(bits, abs=0.15)
    assert found.i_zy == pytest.approx(bits, abs=0.15)
    assert found.directions == bits


@pytest.mark.slow
def test_a_temperature_that_fits_takes_away_what_confidence_does(data, trained):
    sure = copy.deepcopy(trained)
    with torch.no_grad():
        linears(sure)[-1].weight *= 7
        linears(sure)[-1].bias *= 7
    plain, loud = (ToleratedNoise()(m, "relu2", *some(data)).rate for m in (trained, sure))
    assert abs(loud - plain) > SEARCH
    one, seven = (ToleratedNoise(calibrated=True)(m, "relu2", *some(data)) for m in (trained, sure))
    assert seven.temperature == pytest.approx(7 * one.temperature, rel=0.01)
    assert seven.rate == pytest.approx(one.rate, abs=SEARCH)


def test_a_seed_gives_the_same_again_and_another_nearly_so(data, trained):
    first, again, other = (
        ToleratedNoise(seed=seed)(trained, "relu2", *some(data)) for seed in (0, 0, 1)
    )
    assert again == first
    assert other.rate == pytest.approx(first.rate, abs=0.3)


@pytest.mark.slow
def test_any_kind_of_layer_can_be_measured_and_the_model_stays_as_it_was():
    generator = torch.Generator().manual_seed(0)
    pictures, y = torch.rand(40, 1, 28, 28, generator=generator), torch.arange(40) % 10
    edges = torch.randint(40, (2, 90), generator=generator)
    cases = [
        (LeNet(seed=0), "pool2", pictures, ()),
        (Recurrent(5, (6, 6), 10, "tanh", seed=0), "last2", pictures[:, 0, :9, :5], ()),
        (GraphConvolutional([7, 6, 10], "relu", seed=0), "relu1", pictures[:, 0, 0, :7], (edges,)),
    ]
    for model, layer, x, more in cases:
        before = [p.clone() for p in model.parameters()]
        found = ToleratedNoise(1e-4)(model, layer, x, y, *more)
        assert found.rate > 0
        assert 0 < found.i_xz <= math.log2(40)
        assert found.reached == pytest.approx(1e-4, rel=0.5)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_last_state_of_a_layer_is_not_what_the_next_one_reads():
    model, x = Recurrent(5, (6, 6), 3, "tanh", seed=0), gaussian(60, 20).reshape(60, 4, 5)
    assert ToleratedNoise()(model, "last1", x, torch.arange(60) % 3).rate == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tolerance": 0}, "tolerance must be a positive"), ({"tolerance": math.nan}, "tolerance"),
     ({"form": "round"}, "form must be one of"), ({"draws": 1}, "at least 2 draws"),
     ({"queries": 1}, "queries")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ToleratedNoise(**options)


def test_what_no_estimate_can_be_made_from_is_answered_clearly(data, trained):
    x, y = some(data)
    with pytest.raises(ValueError, match="relu9"):
        ToleratedNoise()(trained, "relu9", x, y)
    with pytest.raises(ValueError, match="400"):
        ToleratedNoise()(trained, "relu2", x, y[:5])
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        linears(broken)[-1].bias.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        ToleratedNoise()(broken, "relu2", x, y)
    scores = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 1)).double()
    with pytest.raises(ValueError, match=r"logits, shape \(400, classes\), got \(400, 1\)"):
        ToleratedNoise()(scores, "0", x, y)
    for form in ("full", "diagonal"):
        with pytest.raises(ValueError, match=r"more than 0\.01 bits under noise of 1e-12"):
            ToleratedNoise(form=form)(Wild(), "layer", x, y)


class Wild(nn.Module):
    """An answer that turns about within a millionth of its layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        return 9 * torch.sin(1e9 * self.layer(x))


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.read = nn.LSTM(12, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.read(self.memory(x)[0])


def test_a_layer_that_puts_out_a_tuple_is_named(data):
    with pytest.raises((TypeError, ValueError), match="memory"):
        ToleratedNoise()(Stateful(), "memory", *some(data))
