"""How much of a layer is used: against a covariance in one piece, and planted subspaces."""

import math

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv

from ibcore.capacity import (
    SaturationTracker,
    functional_ranks,
    memory_capacity,
    used,
    weight_bits,
)
from ibcore.capacity.rank import projection
from ibcore.data import Dataset
from ibcore.models import FullyConnected, GraphConvolutional, LeNet
from ibcore.training import fit


def gaussian(n, d, rank=None, seed=0, offset=0.0):
    """Return n vectors in d dimensions that vary in `rank` of them, as much in each."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n, rank or d, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return draw @ axes[: rank or d] + offset


def looked(model, x, *args, layers=None, batch_size=4096, **options):
    with SaturationTracker(model, layers, **options) as tracker:
        tracker.look(1, x, *args, batch_size=batch_size)
    return tracker.table.set_index("layer")


class Named(nn.Module):
    """One layer under a name, and what it puts out."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *inputs):
        return self.layer(*inputs)


# What a covariance says


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_a_planted_subspace_is_counted(rank):
    z = gaussian(5000, 20, rank)
    found = used(z.T.cov(correction=0), len(z))
    assert found.directions == rank
    assert found.saturation == rank / 20
    assert found.effective_rank == pytest.approx(rank, rel=0.01)
    assert found.participation == pytest.approx(rank, rel=0.02)
    assert found.dead == 0


def test_directions_hold_the_share_that_is_asked_for():
    covariance = torch.diag(torch.tensor([50.0, 30, 15, 5], dtype=torch.float64))
    assert [used(covariance, 9, share).directions for share in (0.4, 0.8, 0.81, 0.95, 1)] == [
        1, 2, 3, 3, 4,
    ]  # fmt: skip
    assert used(covariance, 9).participation == pytest.approx(100**2 / (2500 + 900 + 225 + 25))
    shares = (0.5, 0.3, 0.15, 0.05)
    entropy = -sum(share * math.log(share) for share in shares)
    assert used(covariance, 9).effective_rank == pytest.approx(math.exp(entropy))


def test_units_that_never_change_are_dead_and_a_layer_of_them_uses_nothing():
    covariance = torch.diag(torch.tensor([1.0, 1, 0, 0], dtype=torch.float64))
    assert used(covariance, 9).dead == 0.5
    assert used(torch.zeros(4, 4, dtype=torch.float64), 9) == (4, 9, 0, 0, 0, 0, 1)


# Streams


@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_stream_has_the_covariance_of_all_samples_at_once(batch_size, offset):
    x = gaussian(500, 6, offset=offset) * torch.logspace(0, -3, 6, dtype=torch.float64)
    with SaturationTracker(model := Named(nn.Identity()), "layer") as tracker:
        tracker.look(1, x, batch_size=batch_size)
        covariance = tracker.moments()["layer"][1]
    assert model.training
    truth = x.T.cov(correction=0)
    assert torch.linalg.eigvalsh(covariance).tolist() == pytest.approx(
        torch.linalg.eigvalsh(truth).tolist(), rel=1e-6
    )


def test_memory_is_that_of_the_covariance():
    with SaturationTracker(Named(nn.Identity()), "layer") as tracker:
        tracker.look(1, gaussian(3000, 4), batch_size=100)
        kept = tracker._covariances["layer"]
        tensors = [value for value in vars(kept).values() if isinstance(value, torch.Tensor)]
        assert sum(value.numel() for value in tensors) == 4 + 16


# Layers of all kinds


def test_channels_are_the_units_of_maps_and_places_their_samples():
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for layer in (nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(3, 6, 3)):
        found = looked(Named(layer), x, layers="layer", batch_size=2).loc["layer"]
        z = layer(x).detach().double()
        whole = z.movedim(1, -1).flatten(0, 2)
        assert (found["units"], found["vectors"]) == (6, len(whole))
        assert found["effective_rank"] == pytest.approx(
            used(whole.T.cov(correction=0), 1).effective_rank
        )
    relu = looked(LeNet(), torch.rand(4, 1, 28, 28), layers=["relu1", "relu3"])
    assert relu.loc["relu1", "units"] == 10
    assert relu.loc["relu3", "vectors"] == 4


def test_features_are_the_units_of_sequences_and_come_second_behind_a_convolution():
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    for layer in (nn.LSTM(3, 4, batch_first=True), nn.Linear(3, 4)):
        found = looked(Named(layer), x, layers="layer").loc["layer"]
        assert (found["units"], found["vectors"]) == (4, 35)
    attention = looked(
        Named(nn.MultiheadAttention(4, 2, batch_first=True)),
        (x.repeat(1, 1, 2)[..., :4],) * 3,
        layers="layer",
    )
    assert attention.loc["layer", "units"] == 4
    found = looked(Named(nn.Conv1d(7, 2, 1)), x, layers="layer").loc["layer"]
    assert (found["units"], found["vectors"]) == (2, 15)
    found = looked(nn.Sequential(nn.Conv1d(7, 2, 1), nn.ReLU()), x, layers="1", axis={"1": 1})
    assert found.loc["1", "units"] == 2


def test_nodes_are_the_samples_of_a_graph():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    found = looked(Named(GCNConv(3, 5)), gaussian(4, 3).float(), edges, layers="layer")
    assert (found.loc["layer", "units"], found.loc["layer", "vectors"]) == (5, 4)


def test_a_compiled_model_and_a_dict_of_inputs_are_followed():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.tanh = nn.Tanh()

        def forward(self, a, b):
            return self.tanh(a + b)

    x = {"a": gaussian(40, 3), "b": gaussian(40, 3, seed=1)}
    model = Sum()
    found = looked(torch.compile(model, backend="eager"), x, batch_size=9)
    assert found.loc["tanh", "vectors"] == 40
    assert found.equals(looked(model, x, batch_size=9))


# While a network learns


def test_rows_are_kept_a_look_and_layer_while_a_network_learns():
    x = gaussian(60, 4).float()
    ds = Dataset.from_arrays(x, (x[:, 0] > 0).long())
    model = FullyConnected([4, 8, 3, 2], "relu", seed=0)
    state = model.state_dict()
    with SaturationTracker(model) as tracker:
        options = {"epochs": 3, "learning_rate": 0.01, "snapshots": [3], "progress": False}
        fit(model, ds, on_epoch=lambda epoch, _: tracker.look(epoch, ds.x), **options)
    assert tracker.table["epoch"].tolist() == [1, 1, 2, 2, 3, 3]
    assert tracker.table["layer"].tolist() == ["relu1", "relu2"] * 3
    assert tracker.table["units"].tolist() == [8, 3] * 3
    other = FullyConnected([4, 8, 3, 2], "relu", seed=0)
    fit(other, ds, **options)
    for name, weight in other.state_dict().items():  # looking changes nothing
        assert weight.equal(state[name])


def test_passes_of_ones_own_add_up_until_a_reset():
    layer = Named(nn.Identity())
    with SaturationTracker(layer, "layer") as tracker:
        layer(gaussian(30, 5, 2))
        layer(gaussian(30, 5, 2))
        assert tracker.used()["layer"][:3] == (5, 60, 2)
        tracker.reset()
        layer(gaussian(30, 5, 4))
        assert tracker.used()["layer"][:3] == (5, 30, 4)
    layer(gaussian(30, 5))
    assert tracker.used()["layer"].vectors == 30


def test_a_live_view_draws_a_bar_a_layer(capsys):
    looked(Named(nn.Identity()), gaussian(30, 4, 2), layers="layer", live=True)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "epoch 1"
    assert shown[1].startswith("layer " + "█" * 15 + "·" * 15)
    assert shown[1].endswith("2 of 4")


# What can't be


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (torch.ones(1, 3), {}, RuntimeError, "two vectors"),
        (torch.full((4, 3), math.nan), {}, ValueError, "puts out NaN"),
        (torch.ones(4), {}, ValueError, "say which by axis="),
        (torch.ones(4, 3), {"axis": {"layer": 0}}, ValueError, "can't be that of the"),
        (torch.ones(4, 3), {"axis": {"other": 1}}, ValueError, r"axis names \['other'\]"),
        (torch.ones(4, 3), {"share": 0}, ValueError, "share must lie"),
        (torch.ones(0, 3), {}, ValueError, "at least one sample"),
    ],
)
def test_what_has_no_covariance_is_refused(x, options, error, words):
    with pytest.raises(error, match=words):
        looked(Named(nn.Identity()), x, layers="layer", **options)


def test_a_layer_that_is_not_called_is_named_and_a_look_outside_the_block_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    model.add_module("idle", nn.Sequential())
    model.forward = lambda x: model[1](model[0](x))
    model.idle.append(nn.Tanh())
    with (
        SaturationTracker(model, ["1", "idle.0"]) as tracker,
        pytest.raises(RuntimeError, match=r"called \['idle.0'\]"),
    ):
        tracker.look(1, torch.randn(5, 3))
    with SaturationTracker(model) as tracker:  # of the default layers it is left out
        tracker.look(1, torch.randn(5, 3))
    assert tracker.table["layer"].tolist() == ["1"]
    with pytest.raises(RuntimeError, match="inside the tracker's"):
        tracker.look(2, torch.randn(5, 3))


# What the answer needs


class Reads(nn.Module):
    """Answers by the sign of one coordinate of a layer; by no coordinate where it is None."""

    def __init__(self, coordinate):
        super().__init__()
        self.layer, self.coordinate = nn.Identity(), coordinate

    def forward(self, x):
        z = self.layer(x).flatten(1)
        score = z[:, 0] * 0 if self.coordinate is None else z[:, self.coordinate]
        return torch.stack([-score, score], 1)


def graded(n=400, d=8):
    """Return vectors whose coordinates are their principal directions, the largest first."""
    z = gaussian(n, d) @ torch.linalg.qr(torch.eye(d, dtype=torch.float64))[0]
    white = torch.linalg.svd(z - z.mean(0), full_matrices=False)[0] * math.sqrt(n)
    return white * torch.linspace(3, 1, d, dtype=torch.float64)


@pytest.mark.parametrize("coordinate", [0, 2, 7])
def test_the_answer_needs_the_directions_up_to_the_one_it_reads(coordinate):
    x = graded()
    y = (x[:, coordinate] > 0).long()
    found = functional_ranks(Reads(coordinate), x, y, layers="layer", lost=0.1)
    assert found == {"layer": coordinate + 1}


def test_an_answer_that_reads_nothing_needs_nothing_and_one_that_may_lose_all_neither():
    x = graded()
    y = (x[:, 3] > 0).long()
    assert functional_ranks(Reads(None), x, y, layers="layer") == {"layer": 0}
    assert functional_ranks(Reads(3), x, y, layers="layer", lost=0.9) == {"layer": 0}


def test_channels_of_maps_are_projected_place_by_place():
    x = graded(900, 4).reshape(100, 9, 4).movedim(-1, 1).reshape(100, 4, 3, 3)
    model = Reads(0)
    model.forward = lambda x: Reads.forward(model, x.mean((2, 3), keepdim=True))
    change = projection("layer", model.layer, torch.zeros(4), torch.eye(4)[:, :2], {})
    kept = change(x)
    assert kept[:, :2].equal(x[:, :2])
    assert not kept[:, 2:].any()
    x[:, 0] *= 10
    y = (x.mean((2, 3))[:, 0] > 0).long()
    assert functional_ranks(model, x, y, layers="layer", lost=0.05) == {"layer": 1}


def test_only_the_chosen_samples_count():
    x = graded()
    y = (x[:, 5] > 0).long()
    half = torch.arange(200)
    y[200:] = 1 - y[200:]  # wrong on the rest, whatever is projected
    all_of_them = functional_ranks(Reads(5), x, y, layers="layer", lost=0.05)
    assert all_of_them == {"layer": 0}  # half of the answers are right in any case
    chosen = functional_ranks(Reads(5), x, y, layers="layer", lost=0.05, chosen=half)
    assert chosen == {"layer": 6}


@pytest.mark.parametrize(
    ("options", "y", "words"),
    [
        ({"lost": 1.0}, torch.zeros(400), "lost is a share"),
        ({"lost": -0.1}, torch.zeros(400), "lost is a share"),
        ({}, torch.zeros(3), "need as many labels"),
    ],
)
def test_ranks_that_cant_be_are_refused(options, y, words):
    with pytest.raises(ValueError, match=words):
        functional_ranks(Reads(0), graded(), y.long(), layers="layer", **options)


class ReadsState(nn.Module):
    """A recurrent layer that passes its inputs on; the answer reads a coordinate of its state."""

    def __init__(self, coordinate, read):
        super().__init__()
        self.layer = nn.RNN(8, 8, batch_first=True, nonlinearity="relu").double()
        for weight in self.layer.parameters():
            weight.data.zero_()
        self.layer.weight_ih_l0.data = torch.eye(8).double()
        self.layer.bias_ih_l0.data += 100  # nothing is rectified
        self.coordinate, self.read = coordinate, read

    def forward(self, x):
        z = self.read(self.layer(x[:, None]))[:, self.coordinate] - 100
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize(
    "read", [lambda output: output[0][:, -1], lambda output: output[1][0]], ids=["steps", "state"]
)
def test_of_a_recurrent_layer_steps_and_last_states_are_the_same_units(read):
    x = graded()
    y = (x[:, 4] > 0).long()
    found = functional_ranks(ReadsState(4, read), x, y, layers="layer", lost=0.1)
    assert found == {"layer": 5}


def test_cells_and_other_parts_of_a_tuple_stay_as_they_are():
    two = torch.eye(4)[:, :2]
    z, h, c = torch.randn(5, 3, 4), torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    lstm, both_ways = nn.LSTM(4, 4, batch_first=True), nn.GRU(2, 2, bidirectional=True)
    steps, (states, cells) = projection("l", lstm, torch.zeros(4), two, {})((z, (h, c)))
    assert not steps[..., 2:].any()
    assert not states[..., 2:].any()
    assert cells is c
    halves = torch.randn(2, 5, 2)
    steps, states = projection("l", both_ways, torch.zeros(4), two, {})((z, halves))
    assert not steps[..., 2:].any()
    assert states is halves
    attention = nn.MultiheadAttention(4, 1, batch_first=True)
    steps, weights = projection("l", attention, torch.zeros(4), two, {})((z, None))
    assert steps[..., :2].equal(z[..., :2])
    assert weights is None


def test_a_layer_that_puts_out_no_tensor_is_named():
    class Named(nn.Module):
        def forward(self, x):
            return {"z": x}

    model = nn.Sequential(Named())
    model.forward = lambda x: model[0](x)["z"]
    with pytest.raises(TypeError, match="'0' puts out a dict"):
        functional_ranks(model, graded(), torch.zeros(400).long(), layers="0")


# What a layer can hold


def test_the_memory_of_the_12_bit_network_is_that_of_the_rules():
    model = FullyConnected([12, 10, 7, 5, 4, 3, 2], "tanh", seed=0)
    table = memory_capacity(model, torch.zeros(1, 12))
    assert table["bits"].tolist() == [130, 10, 7, 5, 4, 3]
    assert table["parameters"].tolist() == [130, 77, 40, 24, 15, 8]


def test_a_map_brings_in_a_bit_a_value():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 100, 3), nn.Flatten(), nn.Linear(100, 2)
    )
    table = memory_capacity(model, torch.zeros(5, 1, 8, 8))
    assert table["layer"].tolist() == ["0", "2", "4"]
    assert table["bits"].tolist() == [2 * 9 + 2, 2 * 3 * 3, 100]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Named(nn.LSTM(3, 2)), r"not \{'layer': 'LSTM'\}"),
        (Named(nn.ReLU()), "no layer with weights"),
    ],
)
def test_where_there_is_no_rule_it_says_so(model, words):
    with pytest.raises(ValueError, match=words):
        memory_capacity(model, torch.zeros(2, 3))


def test_a_graph_is_looked_at_whole_and_its_chosen_nodes_count():
    x, edges = gaussian(40, 5).float(), torch.stack([torch.arange(40), torch.arange(40).roll(1)])
    ds = Dataset.from_arrays(x, (x[:, 0] > 0).long(), train=torch.arange(20), edge_index=edges)
    model = GraphConvolutional([5, 8, 2], "relu", seed=0)
    fit(model, ds, epochs=30, learning_rate=0.05, snapshots=[30], progress=False)
    options = {"chosen": ds.train, "batch_size": None}
    (needed,) = functional_ranks(model, x, ds.y, edges, **options).values()
    assert 0 < needed <= 8


def test_a_planted_bottleneck_is_needed_whole_and_a_planted_wide_layer_in_small_part():
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(8, 20, generator=generator)
    y = torch.arange(8).repeat(60)
    ds = Dataset.from_arrays(centres[y] + torch.randn(480, 20, generator=generator), y)
    model = FullyConnected([20, 32, 3, 600, 8], "relu", seed=0)
    options = {"learning_rate": 5e-3, "batch_size": 32, "snapshots": [30], "progress": False}
    fit(model, ds, epochs=30, **options)
    needed = functional_ranks(model, ds.x, ds.y)
    assert needed["relu2"] == 3
    assert needed["relu3"] < 60
    assert needed["relu1"] < 32


# What the weights hold


def votes(values, n=600):
    """Return a layer whose weights are these values, and data with its own answers."""
    generator = torch.Generator().manual_seed(0)
    model = Named(nn.Linear(len(values), 2, bias=False)).double()
    with torch.no_grad():
        model.layer.weight.copy_(torch.stack([-values, values]))
    x = torch.randn(n, len(values), generator=generator, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def signs():
    """Return a network that answers with the sign of a coordinate, mixed with the next."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    first = torch.tensor([[1.0, 0.3, 0.0], [-1.0, -0.2, 0.1]])
    with torch.no_grad():
        for weight, value in zip(
            model.parameters(), (first, torch.zeros(2), torch.eye(2), torch.zeros(2)), strict=True
        ):
            weight.copy_(value)
    return model


def test_weights_of_two_values_hold_a_bit_each():
    values = torch.tensor([1.0, -1.0] * 32, dtype=torch.float64)
    table = weight_bits(*votes(values)).set_index("weight")
    found = table.loc["layer.weight"]
    assert found["entropy"] == pytest.approx(1)
    assert found["total"] == pytest.approx(128)
    assert 1 < found["step"] <= 2  # from 2 on all weights are rounded to 0
    assert table.loc["all", "total"] == pytest.approx(found["total"])


def test_finer_answers_cost_more_bits_and_less_noise():
    values = torch.linspace(-3, 3, 50, dtype=torch.float64)
    model, x, y = votes(values)
    tables = [weight_bits(model, x, y, lost=lost).iloc[0] for lost in (0.1, 0.02, 0.0)]
    for name in ("entropy", "noise_entropy"):
        assert tables[0][name] < tables[1][name] < tables[2][name]
    assert tables[0]["noise"] > tables[2]["noise"]


def test_weights_that_nothing_reads_hold_nothing_and_all_is_put_back():
    model = signs()
    model.add_module("idle", nn.Linear(5, 5))
    model.forward = lambda x: model[2](model[1](model[0](x)))
    x = gaussian(300, 3).float()
    y = model(x).argmax(1).detach()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    table = weight_bits(model, x, y).set_index("weight")
    assert table.loc["idle.weight", "total"] == 0
    assert math.isinf(table.loc["idle.weight", "step"])
    assert table.loc["0.weight", "total"] > 0
    assert table.loc["all", "size"] == sum(w.numel() for w in model.parameters())
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert model.training


def test_bits_are_those_of_the_function_not_of_its_scale():
    model = signs().double()
    x = gaussian(300, 3)
    y = model(x).argmax(1).detach()
    before = weight_bits(model, x, y)
    assert before["total"].iloc[-1] > 0
    with torch.no_grad():
        for weight, factor in zip(model.parameters(), (8, 8, 1 / 8, 1), strict=True):
            weight.mul_(factor)
    after = weight_bits(model, x, y)
    assert after["entropy"].tolist() == pytest.approx(before["entropy"].tolist())
    assert after["step"].tolist() == pytest.approx(before["step"].tolist())


def test_what_training_wrote_is_the_change():
    values = torch.tensor([1.0, -1.0] * 32, dtype=torch.float64)
    model, x, y = votes(values)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert weight_bits(model, x, y, before=state)["written"].eq(0).all()
    state["layer.weight"][:, ::4] = 0  # a quarter was written
    found = weight_bits(model, x, y, before=state)["written"].iloc[0]
    share = 0.25
    expected = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert found == pytest.approx(expected, abs=0.3)  # of two signs in the two rows: a bit more
    assert weight_bits(model, x, y)["written"].isna().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lost": 1.5}, "lost is a share"),
        ({"before": {}}, "'layer.weight' has shape .* nothing before"),
        ({"before": {"layer.weight": torch.zeros(3)}}, r"\(3,\) before"),
    ],
)
def test_bits_that_cant_be_are_refused(options, words):
    model, x, y = votes(torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=words):
        weight_bits(model, x, y, **options)


def test_a_network_without_weights_and_one_that_hangs_on_rounding_are_refused():
    with pytest.raises(ValueError, match="has no weights"):
        weight_bits(Named(nn.ReLU()), torch.zeros(3, 2), torch.zeros(3).long())
    values = torch.tensor([1 + 1e-9, 1.0], dtype=torch.float64)  # their difference decides
    model, _, _ = votes(values)
    model.forward = lambda x: torch.stack([z := model.layer.weight[1].diff() * x[:, 0], -z], 1)
    x = torch.ones(9, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="hangs on rounding"):
        weight_bits(model, x, model(x).argmax(1).detach())
