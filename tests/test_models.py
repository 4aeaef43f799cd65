"""Laws of the networks: the formula, the names, the weights."""

import copy
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ibcore import ActivationTracker, Dataset, fit, fit_ensemble
from ibcore.models import FullyConnected, GraphConvolutional, LeNet, Recurrent

TRUNCATED = 0.87962566103423978  # deviation of a standard normal that is cut at ±2

FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "identity": lambda z: z,
}


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_the_network_is_equation_1_2_with_logits_at_the_end(activation):
    model = FullyConnected([6, 5, 4, 3], activation=activation, seed=0).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # biases too, which start at zero
    x = torch.randn(20, 6, dtype=torch.float64)
    z = x.numpy()
    for number in (1, 2, 3):
        linear = getattr(model, f"linear{number}")
        z = z @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        if number < 3:
            z = FUNCTIONS[activation](z)
    np.testing.assert_allclose(model(x).detach().numpy(), z, rtol=1e-12, atol=1e-12)


def test_every_layer_is_a_named_submodule_in_order():
    names = [name for name, _ in FullyConnected([12, 10, 7, 2]).named_children()]
    assert names == ["linear1", "tanh1", "linear2", "tanh2", "linear3"]
    names = [name for name, _ in FullyConnected([4, 3, 2], activation="relu").named_children()]
    assert names == ["linear1", "relu1", "linear2"]


def test_widths_are_the_shapes_of_the_weights():
    model = FullyConnected([12, 10, 7, 5, 4, 3, 2])
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(10, 12), (7, 10), (5, 7), (4, 5), (3, 4), (2, 3)]


def test_the_seed_decides_the_weights_whatever_the_global_generator_does():
    torch.manual_seed(1)
    first = FullyConnected([8, 6, 2], seed=3).state_dict()
    torch.manual_seed(2)
    again = FullyConnected([8, 6, 2], seed=3).state_dict()
    other = FullyConnected([8, 6, 2], seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["linear1.weight"], other["linear1.weight"])


def test_without_a_seed_the_global_generator_decides():
    def weights(seed):
        torch.manual_seed(seed)
        return FullyConnected([8, 6, 2]).linear1.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_layers_of_one_shape_start_with_different_weights():
    model = FullyConnected([6, 6, 6], seed=0)
    assert not torch.equal(model.linear1.weight, model.linear2.weight)


@pytest.mark.parametrize("inputs", [100, 400])
def test_weights_are_normal_with_deviation_one_over_root_inputs_cut_at_two(inputs):
    weight = FullyConnected([inputs, 500, 2], seed=0).linear1.weight.detach().double()
    std = inputs**-0.5
    assert float(weight.abs().max()) <= 2 * std * (1 + 1e-6)
    assert float(weight.abs().max()) > 1.99 * std
    n = weight.numel()
    assert float(weight.mean()) == pytest.approx(0, abs=4 * std / n**0.5)
    assert float(weight.std()) == pytest.approx(TRUNCATED * std, rel=4 / (2 * n) ** 0.5)


def test_weights_are_the_same_bit_for_bit_whatever_instructions_the_processor_has():
    code = (
        "import sys; from ibcore.models import FullyConnected as F; "
        "[sys.stdout.buffer.write(p.detach().numpy().tobytes())"
        " for s in range(5) for p in F([300, 100, 7, 2], seed=s).parameters()]"
    )
    command = [sys.executable, "-c", code]
    settings = [{}, {"ATEN_CPU_CAPABILITY": "default"}]
    found = [
        subprocess.run(command, check=True, capture_output=True, env=os.environ | s).stdout
        for s in settings
    ]
    assert len(found[0]) == 5 * 4 * (301 * 100 + 101 * 7 + 8 * 2)
    assert found[0] == found[1]


def test_weights_are_drawn_on_the_cpu_and_in_float64_before_they_are_rounded():
    single = FullyConnected([9, 5, 2], seed=3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        double = FullyConnected([9, 5, 2], seed=3)
    finally:
        torch.set_default_dtype(before)
    for one, two in zip(single.parameters(), double.parameters(), strict=True):
        assert two.dtype == torch.float64
        assert torch.equal(one, two.float())
    with torch.device("meta"):
        assert FullyConnected([9, 5, 2], seed=3).linear1.weight.is_meta


def test_biases_start_at_zero():
    model = FullyConnected([12, 10, 2], seed=0)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("widths", [[], [12], [12, 0], [0, 2], [12, -3, 2], "[12, 3, 2]"])
def test_widths_that_make_no_network_are_refused(widths):
    with pytest.raises(ValueError, match="widths"):
        FullyConnected(widths)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'swish'.*relu.*tanh"):
        FullyConnected([2, 2, 2], activation="swish")


# Inputs of any shape


def test_images_and_one_hot_words_are_flattened():
    model = FullyConnected([12, 4, 2], seed=0)
    x = torch.randn(3, 1, 3, 4)
    assert torch.equal(model(x), model(x.flatten(1)))


# Graphs


def random_graph(nodes, edges, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(nodes, (2, edges), generator=generator)
    pairs = torch.unique(torch.stack([pairs.amin(0), pairs.amax(0)]), dim=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    return torch.cat([pairs, pairs.flip(0)], 1)


def dense_graph_network(model, x, edge_index):
    """Eq. 1.12 written out."""
    adjacency = torch.eye(len(x), dtype=x.dtype)
    adjacency[edge_index[1], edge_index[0]] = 1
    root = adjacency.sum(1).rsqrt()
    mixing = root[:, None] * adjacency * root
    for name, module in model.named_children():
        if name.startswith("conv"):
            x = mixing @ x @ module.lin.weight.T + module.bias
        else:
            x = torch.relu(x)
    return x


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("edges", [0, 3, 40])
def test_a_graph_network_is_eq_1_12_written_out(seed, edges):
    model = GraphConvolutional([5, 7, 6, 3], seed=seed).double()
    for bias in (p for p in model.parameters() if p.ndim == 1):
        torch.nn.init.normal_(bias)
    x = torch.randn(12, 5, dtype=torch.float64)
    graph = random_graph(12, edges, seed)
    expected = dense_graph_network(model, x, graph)
    torch.testing.assert_close(model(x, graph), expected, rtol=1e-12, atol=1e-12)


def test_its_gradients_are_those_of_eq_1_12():
    model, graph = GraphConvolutional([5, 7, 3], seed=0).double(), random_graph(12, 30, 1)
    x = torch.randn(12, 5, dtype=torch.float64)
    ours = torch.autograd.grad(model(x, graph).square().sum(), list(model.parameters()))
    loss = dense_graph_network(model, x, graph).square().sum()
    for a, b in zip(ours, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_one_node_is_eq_1_15():
    model = GraphConvolutional([2, 3], seed=0).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    edges = torch.tensor([[0, 1, 0, 2], [1, 0, 2, 0]])  # the thesis's example (1.13)
    d = torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64)  # row sums of (1.14)
    mixed = sum(x[j] / (d[0] * d[j]).sqrt() for j in range(3))
    expected = mixed @ model.conv1.lin.weight.T
    torch.testing.assert_close(model(x, edges)[0], expected, rtol=1e-12, atol=1e-12)


def test_without_edges_it_is_the_fully_connected_network_of_that_seed():
    widths = [6, 8, 7, 3]
    x, none = torch.randn(9, 6), torch.empty(2, 0, dtype=torch.int64)
    ours = GraphConvolutional(widths, "relu", seed=4)(x, none)
    torch.testing.assert_close(ours, FullyConnected(widths, "relu", seed=4)(x))


def test_renaming_the_nodes_renames_the_outputs():
    model, graph = GraphConvolutional([4, 6, 3], seed=0).double(), random_graph(10, 30, 2)
    x, order = torch.randn(10, 4, dtype=torch.float64), torch.randperm(10)
    renamed = torch.argsort(order)[graph]  # node order[i] is now called i
    torch.testing.assert_close(model(x[order], renamed), model(x, graph)[order])


def test_another_graph_or_a_changed_one_is_noticed():
    model = GraphConvolutional([4, 6, 3], seed=0).double()
    x, one, two = torch.randn(10, 4).double(), random_graph(10, 30, 2), random_graph(10, 30, 3)
    for graph in (one, two, one):
        torch.testing.assert_close(model(x, graph), dense_graph_network(model, x, graph))
    one[:, :] = random_graph(10, 300, 5)[:, : one.shape[1]]
    torch.testing.assert_close(model(x, one), dense_graph_network(model, x, one))


def test_a_copy_of_a_graph_network_that_was_used_is_the_same_function():
    model, graph = GraphConvolutional([4, 6, 3], seed=0), random_graph(10, 30, 2)
    x = torch.randn(10, 4)
    assert torch.equal(model(x, graph), copy.deepcopy(model)(x, graph))


def test_a_graph_network_that_was_looked_at_in_inference_mode_can_be_trained():
    model, graph = GraphConvolutional([4, 6, 3], seed=0), random_graph(10, 30, 2)
    with torch.inference_mode():
        model(torch.randn(10, 4), graph)
    model(torch.randn(10, 4), graph).square().sum().backward()
    assert all(weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("shape", [(5, 3), (4,), (5, 2, 4)])
def test_nodes_of_another_shape_are_refused(shape):
    edges = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=rf"\(n_nodes, 4\), got {re.escape(str(shape))}"):
        GraphConvolutional([4, 2], seed=0)(torch.zeros(shape), edges)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        (torch.zeros(3, 4, dtype=torch.int64), r"\(2, n_edges\).*\(3, 4\)"),
        (torch.zeros(2, 4), "whole numbers"),
        (torch.tensor([[0, 5], [1, 0]]), "nodes 0 to 5.*nodes 0 to 4"),
        (torch.tensor([[0, -1], [1, 0]]), "nodes -1 to 1"),
    ],
)
def test_edges_that_join_nothing_are_refused(edges, words):
    with pytest.raises(ValueError, match=words):
        GraphConvolutional([2, 2], seed=0)(torch.zeros(5, 2), edges)


# Sequences


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_recurrent_network_is_eq_1_9_written_out(activation):
    model = Recurrent(4, [5, 6], 3, activation, seed=1).double()
    for bias in (p for p in model.parameters() if p.ndim == 1):
        torch.nn.init.normal_(bias)
    x = torch.randn(7, 9, 4, dtype=torch.float64)
    states, expected = x, {}
    for number in (1, 2):
        p = dict(getattr(model, f"rnn{number}").named_parameters())
        a, found = torch.zeros(7, len(p["bias_hh_l0"]), dtype=torch.float64), []
        for t in range(9):
            a = states[:, t] @ p["weight_ih_l0"].T + a @ p["weight_hh_l0"].T
            a = getattr(torch, activation)(a + p["bias_ih_l0"] + p["bias_hh_l0"])
            found.append(a)
        states, expected[f"last{number}"] = torch.stack(found, 1), a
    with ActivationTracker(model, "last*") as tracker:
        found = tracker.collect(x)
        torch.testing.assert_close(model(x), model.linear(expected["last2"]))
    assert list(found) == ["last1", "last2"]
    for name, state in found.items():
        torch.testing.assert_close(state, expected[name], rtol=1e-12, atol=1e-12)


def test_units_may_be_numpy_whole_numbers():
    assert Recurrent(4, np.array([5, 6]), 3, seed=1)(torch.zeros(2, 6, 4)).shape == (2, 3)


def test_the_order_of_the_letters_matters():
    model, x = Recurrent(4, [5], 3, seed=1), torch.randn(2, 6, 4)
    assert not torch.allclose(model(x), model(x.flip(1)))


# Images


def test_the_convolution_finds_the_edge_of_eq_1_8():
    image = torch.zeros(1, 1, 6, 6)
    image[..., :3] = 1
    convolution = type(LeNet(seed=0).conv1)(1, 1, 3, bias=False)
    convolution.weight.data[:] = torch.tensor([1.0, 0.0, -1.0])
    assert torch.equal(convolution(image)[0, 0], torch.tensor([0.0, 3, 3, 0]).expand(4, 4))


def test_a_convolution_is_the_sum_over_each_window():
    model, x = LeNet(seed=0).double(), torch.randn(2, 1, 28, 28, dtype=torch.float64)
    windows = x[:, 0].unfold(1, 5, 1).unfold(2, 5, 1)
    expected = torch.einsum("nrcuv,kuv->nkrc", windows, model.conv1.weight[:, 0])
    torch.testing.assert_close(model.conv1(x), expected, rtol=1e-12, atol=1e-12)


def test_lenet_has_the_maps_of_the_thesis_before_and_after_pooling():
    model = LeNet(seed=0)
    names = ["relu1", "pool1", "relu2", "pool2", "relu3", "linear2"]
    with ActivationTracker(model, names) as tracker:
        found = tracker.collect(torch.randn(3, 1, 28, 28))
    shapes = [(10, 24, 24), (10, 12, 12), (20, 8, 8), (20, 4, 4), (50,), (10,)]
    assert {k: tuple(z.shape) for k, z in found.items()} == {
        k: (3, *shape) for k, shape in zip(names, shapes, strict=True)
    }
    assert sum(p.numel() for p in model.parameters()) == 21_840


def test_lenet_trains_in_an_ensemble_as_alone():
    x = torch.randn(12, 1, 28, 28, dtype=torch.float64)
    index = torch.arange(12)
    classes = tuple("0123456789")
    ds = Dataset("images", x, index % 10, index[:10], index[10:], classes, "original", "")
    settings = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 5, "progress": False}
    alone = fit(LeNet(seed=3).double(), ds, seed=3, **settings).table
    both = fit_ensemble(lambda s: LeNet(seed=s).double(), ds, seeds=[2, 3], **settings).table
    losses = both.loc[both["run"] == 3, "train_loss"]
    assert losses.tolist() == pytest.approx(alone["train_loss"].tolist(), rel=1e-9)


# All of them

BUILD = {
    "graph": lambda seed: GraphConvolutional([4, 5, 3], seed=seed),
    "recurrent": lambda seed: Recurrent(4, [5, 6], 3, seed=seed),
    "lenet": lambda seed: LeNet(seed=seed),
}


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_the_seed_decides_all_weights_and_biases_are_zero(build):
    torch.manual_seed(1)
    first = dict(build(3).named_parameters())
    torch.manual_seed(2)
    again, other = dict(build(3).named_parameters()), dict(build(4).named_parameters())
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        if weight.ndim == 1:
            assert not weight.any()
        else:
            assert not torch.equal(weight, other[name])
            bound = 2 * weight[0].numel() ** -0.5
            assert float(weight.detach().abs().max()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: GraphConvolutional([4]),
        lambda: GraphConvolutional([4, 0, 2]),
        lambda: Recurrent(4, [], 3),
        lambda: Recurrent(4, [5, -1], 3),
        lambda: Recurrent(4, [5.5], 3),
    ],
)
def test_networks_without_whole_positive_widths_are_refused(build):
    with pytest.raises(ValueError, match="widths"):
        build()


@pytest.mark.parametrize("build", [GraphConvolutional, lambda *a: Recurrent(4, [5], 3, *a[1:])])
def test_unknown_activations_are_refused(build):
    with pytest.raises(ValueError, match=r"'swish'.*relu.*tanh"):
        build([4, 5, 3], "swish")


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Recurrent(4, [5], 3), (7, 4), r"\(n_samples, steps, 4\), got \(7, 4\)"),
        (Recurrent(4, [5], 3), (7, 9, 5), r"got \(7, 9, 5\)"),
        (LeNet(), (7, 28, 28), r"\(n_samples, 1, 28, 28\), got \(7, 28, 28\)"),
        (LeNet(), (7, 1, 32, 32), r"got \(7, 1, 32, 32\)"),
    ],
)
def test_inputs_of_another_shape_are_refused_with_both_shapes(model, shape, words):
    with pytest.raises(ValueError, match=words):
        model(torch.zeros(shape))
