"""What an ensemble refuses before it trains, and what it gives back."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from ibcore import Dataset, fit, fit_ensemble
from ibcore.models import FullyConnected, LeNet
from ibcore.stack import check_networks, check_optimizer

SETTINGS = {"epochs": 3, "learning_rate": 0.05, "batch_size": 8, "progress": False}


def sequences(dtype=torch.float64, seed=0):
    """Sequences of four steps of three numbers, whose class is the sign of their sum."""
    x = torch.randn(40, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = (x.sum((1, 2)) > 0).long()
    parts = {"train": torch.arange(30), "test": torch.arange(30, 40)}
    return Dataset("signs", x.to(dtype), y, **parts, classes=("-", "+"), source="made", sha256="")


class Net(nn.Module):
    """Layers that a subclass makes, for flat inputs of twelve numbers."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.make()
        self.double()

    def forward(self, x):
        return self.layers(x.flatten(1))


class Gru(Net):
    core = nn.GRU

    def make(self):
        self.cell, self.head = self.core(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Lstm(Gru):
    core = nn.LSTM


class Rnn(Gru):
    core = nn.RNN


class TwoNames(Net):
    """One layer under two names."""

    def make(self):
        self.one, self.head = nn.Linear(12, 12), nn.Linear(12, 2)
        self.two = self.one

    def forward(self, x):
        return self.head(self.two(self.one(x.flatten(1)).tanh()).tanh())


class TwoCalls(Net):
    """One layer of one name, called twice."""

    def make(self):
        self.one, self.head = nn.Linear(12, 12), nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.one(self.one(x.flatten(1)).tanh()).tanh())


class Branch(Net):
    def make(self):
        self.layers = nn.Linear(12, 2)

    def forward(self, x):
        z = super().forward(x)
        return z if z.sum() > 0 else -z


class Dropped(Net):
    def make(self):
        self.layers = nn.Sequential(nn.Linear(12, 6), nn.Dropout(0.5), nn.Linear(6, 2))


class Norm(Net):
    bias = False

    def make(self):
        self.layers = nn.Sequential(
            nn.Linear(12, 6, bias=self.bias), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)
        )


class BiasedNorm(Norm):
    bias = True


class Attention(Net):
    """Layer norm with biases before it, which matter, and attention, whose biases count too."""

    def make(self):
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.norm(self.attention(x, x, x)[0]).mean(1))


class Forgetful(Net):
    """Logits that depend on how many networks there are: the batch norm of a stack, in effect."""

    def make(self):
        self.layers = nn.Linear(12, 2)

    def forward(self, x):
        z = super().forward(x)
        return z.detach() * 0.5 + z * 0.5 if torch._C._functorch.is_batchedtensor(z) else z


REFUSED = [Gru, Lstm, Rnn, TwoNames, Branch, Dropped, BiasedNorm, Forgetful]
TAKEN = [TwoCalls, Norm]


@pytest.mark.parametrize("build", REFUSED)
def test_a_network_that_a_stack_cannot_train_is_refused_before_anything_trains(build):
    trained = []
    with pytest.raises(ValueError, match=rf"{build.__name__} .*stack.*fit\(\) in a loop"):
        fit_ensemble(build, sequences(), seeds=[0, 1], on_snapshot=trained.append, **SETTINGS)
    assert trained == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_before_a_batch_norm_is_named(dtype):
    ds = sequences(dtype)
    with pytest.raises(ValueError, match=r"layers\.0\.bias.*bias=False"):
        fit_ensemble(lambda seed: BiasedNorm(seed).to(dtype), ds, seeds=[0, 1], **SETTINGS)


@pytest.mark.parametrize("build", TAKEN)
def test_what_is_taken_is_trained_as_alone_and_given_back_in_the_order_of_the_seeds(build):
    history = fit_ensemble(build, sequences(), seeds=[4, 1], **SETTINGS)
    for seed, trained in zip([4, 1], history.models, strict=True):
        alone = fit(build(seed), sequences(), seed=seed, **SETTINGS).models[0]
        assert not trained.training
        assert not alone.training
        state = trained.state_dict()
        # In float64 rounding stays far below this over a dozen steps.
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(trained(sequences().x), alone(sequences().x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_no_network_of_the_book_is_refused(dtype, seed):
    draw = torch.Generator().manual_seed(seed)

    def check(build, *shape):
        models = [build(seed).to(dtype) for seed in (seed, seed + 10)]
        before = copy.deepcopy([model.state_dict() for model in models])
        x = torch.randn(*shape, generator=draw, dtype=dtype)
        check_networks(models, x, torch.randint(2, (len(x),), generator=draw))
        for model, state in zip(models, before, strict=True):
            assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
            assert all(p.grad is None for p in model.parameters())

    check(lambda seed: FullyConnected([12, 10, 7, 5, 4, 3, 2], seed=seed), 64, 12)
    check(lambda seed: FullyConnected([784, 100, 20, 10], "relu", seed=seed), 64, 784)
    check(lambda seed: FullyConnected([20] + 10 * [20] + [2], "sigmoid", seed=seed), 1, 20)
    check(lambda seed: LeNet(seed=seed), 16, 1, 28, 28)


def test_networks_of_unequal_layers_are_refused():
    def build(seed):
        return FullyConnected([12, 6, 2], "tanh" if seed else "relu", seed=seed).double()

    with pytest.raises(ValueError, match="same layers for every seed"):
        fit_ensemble(build, sequences(), seeds=[0, 1, 0], **SETTINGS)


def by_kind(parameters, lr):
    """Decay the matrices and not the biases, told apart by their dimensions."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.5},
        {"params": [p for p in parameters if p.ndim == 1]},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=lr)


@pytest.mark.parametrize(
    "optimizer", [torch.optim.Adafactor, torch.optim.LBFGS, by_kind], ids=lambda o: o.__name__
)
def test_an_optimiser_that_does_not_work_element_by_element_is_refused(optimizer):
    with pytest.raises(ValueError, match="element by element"):
        check_optimizer(optimizer)
    with pytest.raises(ValueError, match="element by element"):
        fit_ensemble(
            lambda seed: FullyConnected([12, 4, 2], seed=seed).double(), sequences(), seeds=[0, 1],
            optimizer=optimizer, **SETTINGS,
        )  # fmt: skip


ELEMENTWISE = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD"]


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Adagrad", "Adadelta"])
def test_an_optimiser_that_works_element_by_element_is_taken(name):
    check_optimizer(getattr(torch.optim, name))


def test_momentum_and_decay_are_those_of_fit():
    optimizer = partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1)
    many = fit_ensemble(Norm, sequences(), seeds=[3], optimizer=optimizer, **SETTINGS)
    one = fit(Norm(3), sequences(), seed=3, optimizer=optimizer, **SETTINGS)
    plain = fit(Norm(3), sequences(), seed=3, optimizer=torch.optim.SGD, **SETTINGS)
    weights = [history.models[0].layers[0].weight for history in (many, one, plain)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(weights[1], weights[2], rtol=1e-2)


def test_layers_that_do_not_exist_are_refused_before_anything_trains():
    def build(seed):
        model = Norm(seed)
        model.register_forward_pre_hook(lambda *_: pytest.fail("it trains"))
        return model

    with pytest.raises(ValueError, match="no layer matches 'conv1'"):
        fit_ensemble(build, sequences(), seeds=[0], layers="conv1", on_snapshot=print, **SETTINGS)


def test_data_of_another_dtype_is_refused_by_its_name():
    for train in (
        lambda: fit_ensemble(Norm, sequences(torch.float32), seeds=[0], **SETTINGS),
        lambda: fit(Norm(0), sequences(torch.float32), **SETTINGS),
    ):
        with pytest.raises(ValueError, match=r"torch\.float32.*torch\.float64"):
            train()
