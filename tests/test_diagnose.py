"""Verdicts on layers: planted by hand, on every kind of data, and what is refused."""

import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ibcore
from ibcore.capacity.__main__ import main
from ibcore.capacity.verdict import _verdicts, _widths
from ibcore.data import Dataset
from ibcore.models import FullyConnected, GraphConvolutional


def corners(n=400, seed=0):
    """Return points around the four corners of a square, and which corner each is near."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    signs = torch.stack([y % 2, y // 2], 1).double() * 2 - 1
    return signs + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64), y


def planted(*widths):
    """A network that tells the corners, and needs two directions of each of its layers."""
    layers, before = [], 2
    for number, width in enumerate(widths):
        layer = nn.Linear(before, width).double()
        mixed = torch.randn(width, 2, generator=torch.Generator().manual_seed(number)).double()
        read = composed(layers).T if layers else torch.eye(2).double()  # the two directions
        layer.weight.data = torch.linalg.qr(mixed)[0] @ read
        layer.bias.data.zero_()
        layers += [layer, nn.LeakyReLU(1.0)]  # an activation that changes nothing
        before = width
    answer = nn.Linear(before, 4).double()
    signs = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]]).double()
    answer.weight.data = signs @ torch.linalg.pinv(composed(layers))
    answer.bias.data.zero_()
    return nn.Sequential(*layers, answer)


def composed(layers):
    product = torch.eye(2, dtype=torch.float64)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            product = layer.weight.data @ product
    return product


def test_planted_layers_are_told():
    x, y = corners()
    wide = ibcore.diagnose(planted(40, 7), (x, y), quiet=True)
    assert wide["verdict"].tolist() == ["over-sized", "fine"]
    assert wide["width"].tolist() == [10, 7]
    report = ibcore.diagnose(planted(40, 2, 40), (x, y), quiet=True)
    assert report["units"].tolist() == [40, 2, 40]
    assert report["needed"].tolist() == [2, 2, 2]
    assert report["share"].tolist() == [0.05, 1.0, 0.05]
    # For all that is known the others are as wide as they have to be: they stand beside one.
    assert report["verdict"].tolist() == ["fine", "bottleneck", "fine"]
    assert report["confidence"].tolist() == [1, 1, 1]
    assert report["width"].tolist() == [40, 8, 40]
    assert report["directions"].tolist() == [2, 2, 2]
    assert report["saturation"].tolist() == [0.05, 1.0, 0.05]


def test_the_rule_reads_what_is_needed_by_units_and_what_there_is_to_spare():
    assert _verdicts([0.51, 0.05], [True, True]) == ["bottleneck", "fine"]
    assert _verdicts([0.51, 0.05], [False, True]) == ["fine", "over-sized"]
    assert _verdicts([0.05, 0.5, 0.1], [False, True, False]) == ["fine", "bottleneck", "fine"]
    assert _verdicts([0.15, 0.16, 0.49], 3 * [True]) == ["over-sized", "fine", "fine"]
    assert _widths([100, 5, 30], [3, 5, 9], ["over-sized", "bottleneck", "fine"]) == [15, 20, 30]
    assert _widths([4, 2], [4, 2], ["bottleneck", "bottleneck"]) == [8, 4]
    assert _widths([50], [0], ["over-sized"]) == [1]
    assert _widths([30], [7], ["over-sized"]) == [30]  # never wider


def test_a_verdict_that_hangs_on_what_may_be_lost_is_less_sure():
    x, y = corners(4000)
    x = torch.cat([x, torch.zeros(4000, 16, dtype=torch.float64)], 1)
    rare = torch.arange(4000) % 4000 < 28  # 0.7 % of the samples, of which a third direction tells
    x[:, 2] = 0.02 * torch.where(rare, 10.0, 0.0)
    answer = nn.Linear(18, 4, bias=False).double()
    answer.weight.data.zero_()
    answer.weight.data[:, :2] = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]]).double()
    answer.weight.data[0, 2] = 1e3  # they are all of the first class
    y = torch.where(rare, 0, y)
    report = ibcore.diagnose(
        nn.Sequential(nn.LeakyReLU(1.0), answer), (x, y), layers="0", quiet=True
    )
    assert report["needed"].item() == 3
    assert report["verdict"].item() == "fine"  # 3 of 18
    # The rare ones are 21 wrong answers of 4000, too many at a quarter and half a point, and not
    # at one: there two directions do, and the layer is over-sized.
    assert report["confidence"].item() == pytest.approx(4 / 6)


def test_it_prints_what_it_returns(capsys):
    x, y = corners()
    report = ibcore.diagnose(planted(40, 2), (x, y))
    out = capsys.readouterr().out
    assert "accuracy on 400 samples: 1.000" in out
    for name in report:
        assert name in out
    ibcore.diagnose(planted(40, 2), (x, y), quiet=True)
    assert capsys.readouterr().out == ""


def test_a_loader_and_a_dataset_say_what_the_pair_says():
    x, y = corners()
    model = planted(40, 2).train()
    pair = ibcore.diagnose(model, (x, y), quiet=True)
    loader = DataLoader(TensorDataset(x, y), batch_size=64)
    pd.testing.assert_frame_equal(ibcore.diagnose(model, loader, quiet=True), pair)
    more, labels = torch.cat([x, 1e3 + x]), torch.cat([y, y])
    ds = Dataset.from_arrays(more, labels, train=torch.arange(400), test=torch.arange(400, 800))
    pd.testing.assert_frame_equal(ibcore.diagnose(model, ds, quiet=True), pair)
    assert model.training
    again = ibcore.diagnose(model.float(), (x.float(), y), quiet=True, batch_size=50)
    pd.testing.assert_frame_equal(again, pair, check_exact=False, rtol=1e-4)


def test_a_graph_is_passed_whole():
    x, y = corners(80)
    edges = torch.arange(80).expand(2, -1)
    ds = Dataset.from_arrays(
        x, y, train=torch.arange(40), test=torch.arange(40, 80), edge_index=edges
    )
    model = GraphConvolutional((2, 30, 4), activation="identity", seed=0).double()
    signs = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]]).double()
    model.conv2.lin.weight.data = signs @ torch.linalg.pinv(model.conv1.lin.weight.data)
    report = ibcore.diagnose(model, ds, layers="identity*", quiet=True)
    assert report["verdict"].tolist() == ["over-sized"]
    assert report["needed"].tolist() == [2]


def test_a_network_that_guesses_gets_no_verdict():
    x, y = corners()
    model = FullyConnected((2, 8, 4), seed=0).double()
    model.linear2.weight.data.zero_()
    with pytest.warns(UserWarning, match="says little of its layers"):
        report = ibcore.diagnose(model, (x, y), quiet=True)
    assert report["verdict"].tolist() == ["none: the network guesses"]
    assert report["confidence"].isna().all()
    assert report["width"].tolist() == [8]


def test_the_layer_that_answers_is_no_hidden_one():
    x, y = corners()
    softened = nn.Sequential(*planted(40), nn.LogSoftmax(1))
    report = ibcore.diagnose(softened, (x, y), layers=[nn.LeakyReLU, nn.LogSoftmax], quiet=True)
    assert report["layer"].tolist() == ["1"]
    report = ibcore.diagnose(planted(40), (x, y), layers=nn.Linear, quiet=True)
    assert report["layer"].tolist() == ["0"]


def test_a_hidden_layer_may_have_as_many_units_as_the_answer():
    x, y = corners()
    model = FullyConnected((2, 8, 4, 4), "relu", seed=0).double()
    with pytest.warns(UserWarning, match="says little of its layers"):  # it is not trained
        report = ibcore.diagnose(model, (x, y), quiet=True)
    assert report["layer"].tolist() == ["relu1", "relu2"]


X, Y = corners()


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        ((X, Y[1:]), {}, ValueError, "as many labels"),
        (X, {}, TypeError, "a pair"),
        (DataLoader(TensorDataset(X)), {}, ValueError, "pairs of samples and labels"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), {}, ValueError, "gives no samples"),
        ((X[:3], Y[:3]), {}, ValueError, "at least two samples are needed, got 3"),
        ((X * math.nan, Y), {}, ValueError, "NaN or infinity"),
        ((X, Y), {"lost": 0.6}, ValueError, "below 0.5, got 0.6"),
        ((X, Y), {"layers": "none"}, ValueError, "no layer matches"),
        ((X, Y), {"layers": "2"}, ValueError, "no hidden layer"),
    ],
)
def test_what_can_not_be_diagnosed_is_refused(data, options, error, words):
    with pytest.raises(error, match=words):
        ibcore.diagnose(planted(40), data, quiet=True, **options)


def test_a_layer_that_is_not_called_is_named():
    model = planted(40)
    model[0].spare = nn.Tanh()
    with pytest.raises(RuntimeError, match=r"does not call \['0.spare'\]"):
        ibcore.diagnose(model, (X, Y), layers=["1", "0.spare"], quiet=True)


# From the command line


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(2, 40), nn.LeakyReLU(1.0), nn.Linear(40, 4)).double()\n"
        "def none():\n"
        "    return 3\n"
    )
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    torch.save(planted(40).state_dict(), tmp_path / "weights.pt")
    np.savez(tmp_path / "data.npz", x=X.numpy(), y=Y.numpy().astype(np.int8))
    return tmp_path


def test_a_saved_network_is_diagnosed(saved, capsys):
    given = ["mynet:make", "weights.pt", "data.npz", "--layers", "1", "--csv", "table.csv"]
    assert main(given) == 0
    assert "over-sized" in capsys.readouterr().out
    report = ibcore.diagnose(planted(40), (X, Y), layers="1", quiet=True)
    written = pd.read_csv(saved / "table.csv", dtype={"layer": str})
    pd.testing.assert_frame_equal(written, report, check_dtype=False)
    assert sorted(path.name for path in saved.glob("*.csv")) == ["table.csv"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["mynet:other", "weights.pt", "data.npz"], "names no function"),
        (["nowhere:make", "weights.pt", "data.npz"], "names no function"),
        (["mynet:none", "weights.pt", "data.npz"], "returned int"),
        (["mynet:make", "missing.pt", "data.npz"], "missing.pt"),
        (["mynet:make", "mynet.py", "data.npz"], "mynet.py holds no weights"),
        (["mynet:make", "other.pt", "data.npz"], "other.pt holds no weights"),
        (["mynet:make", "weights.pt", "mynet.py"], "pickle|Pickle"),
        (["mynet:make", "weights.pt", "nolabels.npz"], "y"),
        (["mynet:make", "weights.pt", "data.npz", "--layers", "relu"], "no layer matches"),
    ],
)
def test_what_can_not_be_loaded_is_named(saved, capsys, given, words):
    torch.save({"weight": torch.zeros(2)}, saved / "other.pt")
    np.savez(saved / "nolabels.npz", x=X.numpy())
    assert main(given) == 1
    out = capsys.readouterr()
    assert re.search(words, out.err)
    assert out.out == ""
