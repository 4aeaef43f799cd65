"""Laws of the networks: the formula, the names, the weights."""

import numpy as np
import pytest
import torch
from torch import nn

from ibcore.models import FullyConnected

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
