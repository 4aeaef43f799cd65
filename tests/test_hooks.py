"""Laws of the trackers: what is recorded, for whom, and that nothing stays behind."""

import copy
import gc
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from ibcore.hooks import ActivationTracker, GradientTracker, Intervention
from ibcore.layers import first_tensor, select_layers
from ibcore.models import FullyConnected
from ibcore.moments import RunningMoments, norms


@pytest.fixture
def model():
    return FullyConnected([4, 6, 5, 3], seed=0)


@pytest.fixture
def x():
    return torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    """A recurrent core, whose output is a tuple, under a linear head."""

    def __init__(self, core):
        super().__init__()
        self.core = core(4, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.core(x)[0][:, -1])


class Shared(nn.Module):
    """One layer that is called three times in a pass."""

    def __init__(self):
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.tanh = nn.Tanh()

    def forward(self, x):
        for _ in range(3):
            x = self.tanh(self.step(x))
        return x


class Uncalled(nn.Module):
    """A network whose one activation module is never called."""

    def __init__(self):
        super().__init__()
        self.linear, self.tanh = nn.Linear(4, 2), nn.Tanh()

    def forward(self, x):
        return self.linear(x).tanh()


class Token:
    """Something that a graph can hold, and that a weak reference can watch."""


alive = weakref.WeakSet()


class Probe(torch.autograd.Function):
    """The identity, whose node in the graph holds a token."""

    @staticmethod
    def forward(ctx, x):
        ctx.token = Token()
        alive.add(ctx.token)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Probed(nn.Module):
    """A layer that reports whether its graph lives."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.tanh = nn.Tanh()

    def forward(self, x):
        return self.tanh(Probe.apply(self.linear(x)))


def hooks_of(model):
    modules = list(model.modules())
    counted = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_modules = sum(len(getattr(m, kind)) for m in modules for kind in counted)
    return of_modules + sum(len(p._backward_hooks or ()) for p in model.parameters())


# Which layers


def test_one_name_is_that_layer(model):
    assert list(select_layers(model, "linear2")) == ["linear2"]
    assert select_layers(model, "linear2")["linear2"] is model.linear2


def test_a_pattern_is_every_layer_that_it_matches_in_the_models_order(model):
    assert list(select_layers(model, "linear*")) == ["linear1", "linear2", "linear3"]
    assert list(select_layers(model, "*2")) == ["linear2", "tanh2"]


def test_a_type_is_every_layer_of_that_type(model):
    assert list(select_layers(model, nn.Tanh)) == ["tanh1", "tanh2"]


def test_several_wishes_are_joined_in_the_models_order_none_twice(model):
    assert list(select_layers(model, ["tanh2", nn.Tanh, "linear1"])) == [
        "linear1",
        "tanh1",
        "tanh2",
    ]


def test_without_a_wish_it_is_every_activation(model):
    assert list(select_layers(model)) == ["tanh1", "tanh2"]


def test_without_an_activation_it_is_every_leaf():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    assert list(select_layers(model)) == ["0", "1.0", "1.1"]


def test_names_of_nested_layers_are_dotted():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert list(select_layers(model, "1.*")) == ["1.0", "1.1"]
    assert list(select_layers(model)) == ["1.1"]


@pytest.mark.parametrize("wish", ["linear9", "conv*", nn.ReLU, ["tanh1", "linear9"]])
@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(model, wish, tracker):
    with pytest.raises(ValueError, match="no layer matches") as error:
        tracker(model, wish)
    assert all(name in str(error.value) for name, _ in model.named_children())


@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_an_empty_choice_is_refused(model, tracker):
    with pytest.raises(ValueError, match=r"layer|weight"):
        tracker(model, [])


@pytest.mark.parametrize("layers", [None, "linear", nn.Linear])
def test_a_model_without_submodules_is_its_own_layer(layers):
    model, x = nn.Linear(2, 2), torch.randn(3, 2)
    with ActivationTracker(model, layers) as tracker:
        found = tracker.collect(x)
    assert list(found) == ["linear"]
    assert torch.equal(found["linear"], model(x))


# What is recorded


def test_a_record_is_the_layers_own_output(model, x):
    with ActivationTracker(model, ["tanh1", "linear3"]) as tracker:
        logits = model(x)
        assert torch.equal(tracker.activations["tanh1"], torch.tanh(model.linear1(x)))
        assert torch.equal(tracker.activations["linear3"], logits)


def test_a_pass_replaces_the_record_of_the_pass_before(model, x):
    with ActivationTracker(model, "tanh1") as tracker:
        model(x)
        model(x[:7])
        assert {k: len(v) for k, v in tracker.activations.items()} == {"tanh1": 7}


def test_tracking_changes_neither_the_output_nor_the_gradient(model, x):
    def gradient():
        model.zero_grad()
        output = model(x)
        output.square().sum().backward()
        return [output.detach(), *(p.grad.clone() for p in model.parameters())]

    alone = gradient()
    with ActivationTracker(model), GradientTracker(model):
        watched = gradient()
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


@pytest.mark.parametrize("core", [nn.RNN, nn.GRU, nn.LSTM])
def test_of_a_tuple_it_is_the_first_tensor(core):
    model, x = Recurrent(core), torch.randn(6, 3, 4)
    with ActivationTracker(model, "core") as tracker:
        found = tracker.collect(x)
    torch.testing.assert_close(found["core"], model.core(x)[0])


@pytest.mark.parametrize("core", [nn.RNN, nn.GRU])
def test_pick_takes_something_else_out_of_a_tuple(core):
    model, x = Recurrent(core), torch.randn(6, 3, 4)
    with ActivationTracker(model, "core", pick=lambda output: output[1][-1]) as tracker:
        found = tracker.collect(x, batch_size=4)
    torch.testing.assert_close(found["core"], model.core(x)[0][:, -1], rtol=1e-5, atol=1e-6)


def test_the_first_tensor_is_found_in_any_nest():
    one, two = torch.ones(1), torch.zeros(2)
    for output in (one, (one, two), [None, one], {"a": None, "b": one}, ((one,), two), ((), one)):
        assert first_tensor(output) is one


@pytest.mark.parametrize("output", [None, (), [None], {}, 3.0, "text"])
def test_an_output_without_a_tensor_is_refused(output):
    with pytest.raises(TypeError):
        first_tensor(output)


def test_each_call_of_a_shared_module_is_recorded():
    model, x = Shared(), torch.randn(5, 4)
    with ActivationTracker(model) as tracker:
        found = tracker.collect(x, batch_size=2)
    assert list(found) == ["tanh", "tanh:2", "tanh:3"]
    expected = x
    for z in found.values():
        expected = torch.tanh(model.step(expected))
        torch.testing.assert_close(z, expected)


def test_a_layer_that_works_in_place_does_not_change_the_record_before_it(x):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    with ActivationTracker(model, ["0", "1"]) as tracker:
        found = tracker.collect(x)
    torch.testing.assert_close(found["0"], model[0](x))
    torch.testing.assert_close(found["1"], model[0](x).relu())
    assert (found["0"] < 0).any()


# Whole data sets


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_batches_give_what_one_pass_gives(model, x, batch_size):
    with ActivationTracker(model, "*") as tracker:
        whole = tracker.collect(x)
        parts = tracker.collect(x, batch_size=batch_size)
    assert list(whole) == list(parts)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-5, atol=1e-6)


def test_no_pass_takes_more_samples_than_the_batch_size(model, x):
    sizes = []
    model.register_forward_pre_hook(lambda m, inputs: sizes.append(len(inputs[0])))
    with ActivationTracker(model) as tracker:
        tracker.collect(x, batch_size=7)
    assert sizes == [7, 7, 6]


def test_further_inputs_go_whole_with_every_batch(x):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.tanh = nn.Tanh()

        def forward(self, x, shift):
            return self.tanh(x + shift.sum())

    shift = torch.ones(9)
    with ActivationTracker(Two()) as tracker:
        found = tracker.collect(x, shift, batch_size=3)
    torch.testing.assert_close(found["tanh"], torch.tanh(x + 9))


def test_a_data_set_is_seen_in_evaluation_mode(x):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with ActivationTracker(model) as tracker:
        first, second = tracker.collect(x), tracker.collect(x)
    assert torch.equal(first["3"], second["3"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_gets_its_mode_back_and_builds_no_graph(model, x, training):
    seen = []
    model.linear2.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    model.train(training)
    with ActivationTracker(model) as tracker:
        tracker.collect(x)
    assert all(module.training is training for module in model.modules())
    assert seen == [False]
    assert torch.is_grad_enabled()


def test_a_layer_that_was_frozen_in_evaluation_mode_stays_so(x):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).train()
    model[1].eval()
    with ActivationTracker(model) as tracker:
        tracker.collect(x)
    assert [m.training for m in model.modules()] == [True, True, False, True]


def test_the_model_gets_its_mode_back_after_an_error(model, x):
    model.train()
    with ActivationTracker(model) as tracker, pytest.raises(RuntimeError):
        tracker.collect(x[:, :3])
    assert model.training


def test_a_layer_that_is_never_called_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model[0].unused = nn.ReLU()
    never = pytest.raises(RuntimeError, match=r"never called \['0\.unused'\]")
    with ActivationTracker(model, ["1", nn.ReLU]) as tracker, never:
        tracker.collect(torch.randn(3, 4))
    with ActivationTracker(model) as tracker:  # by default it is what was called
        assert list(tracker.collect(torch.randn(3, 4))) == ["1"]
    with ActivationTracker(Uncalled()) as tracker, pytest.raises(RuntimeError, match="linear"):
        tracker.collect(torch.randn(3, 4))


# Inputs of every form


class TwoInputs(nn.Module):
    """A network of two inputs a sample and one for all, by place or by name."""

    def __init__(self):
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, a, b=None, *, factor=1.0):
        a, b = (a["a"], a["b"]) if isinstance(a, dict) else (a, b)
        return self.tanh(factor * (a + b.squeeze(1)))


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize(
    "form", [lambda a, b: (a, b), lambda a, b: {"b": b, "a": a}, lambda a, b: ({"a": a, "b": b},)],
    ids=["a tuple by place", "a dict by name", "a dict whole"],
)  # fmt: skip
def test_all_inputs_of_a_sample_are_split_alike(x, form, batch_size):
    b = torch.arange(20.0).reshape(20, 1, 1).expand(20, 1, 4)
    with ActivationTracker(TwoInputs()) as tracker:
        found = tracker.collect(form(x, b), factor=0.1, batch_size=batch_size)
    torch.testing.assert_close(found["tanh"], torch.tanh(0.1 * (x + b[:, 0])))


@pytest.mark.parametrize(
    "x", [(torch.ones(4, 2), torch.ones(3, 2)), torch.ones(0, 4), torch.tensor(1.0), (), {"a": 1},
          np.ones((3, 4))],
    ids=["unequal", "empty", "a number", "nothing", "no tensor", "NumPy"],
)  # fmt: skip
def test_inputs_without_samples_or_with_unequal_numbers_are_refused(model, x):
    with ActivationTracker(model) as tracker, pytest.raises(ValueError, match="as many samples"):
        tracker.collect(x)


def test_a_batch_size_below_one_is_refused(model, x):
    with ActivationTracker(model) as tracker, pytest.raises(ValueError, match=r"batch_size.*-2"):
        tracker.collect(x, batch_size=-2)


class TimeFirst(nn.Module):
    """A recurrent core that wants and gives time first, in a network of samples first."""

    def __init__(self):
        super().__init__()
        self.core = nn.GRU(4, 3)

    def forward(self, x):
        return self.core(x.transpose(0, 1))[0][-1]


@pytest.mark.parametrize("steps", [5, 16])
def test_a_layer_whose_first_axis_is_not_the_sample_is_refused_also_where_it_is_as_long(steps):
    model, x = TimeFirst(), torch.randn(16, steps, 4)
    with ActivationTracker(model, "core") as tracker:
        with pytest.raises(ValueError, match=rf"'core'.*\({steps}, 16, 3\).*16 samples.*pick="):
            tracker.collect(x)
        with pytest.raises(ValueError, match="pick="):
            tracker.collect(x, batch_size=4)
    picked = ActivationTracker(model, "core", pick=lambda output: output[0].transpose(0, 1))
    with picked as tracker:
        found = tracker.collect(x, batch_size=4)["core"]
    assert found.shape == (16, steps, 3)
    torch.testing.assert_close(found[:, -1], model(x))


def test_a_layer_that_puts_out_one_number_is_refused(x):
    class Total(nn.Module):
        def forward(self, x):
            return x.sum()

    with ActivationTracker(Total()) as tracker, pytest.raises(ValueError, match="'total'"):
        tracker.collect(x)


# What a stranger's network has


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_by_default_attention_is_a_layer_and_its_children_are_none():
    model, x = Attention(), torch.randn(6, 5, 4)
    with ActivationTracker(model) as tracker:
        found = tracker.collect(x)
    assert list(found) == ["attention", "head"]
    torch.testing.assert_close(found["attention"], model.attention(x, x, x)[0])


def test_bare_attention_is_its_own_layer():
    model, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(6, 5, 4)
    with ActivationTracker(model) as tracker:
        assert list(tracker.collect((x, x, x), batch_size=4)) == ["multiheadattention"]


@pytest.mark.parametrize("activation", ["relu", nn.GELU()])
def test_the_default_layers_of_a_transformer_are_those_that_it_calls(activation):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation=activation)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with ActivationTracker(model) as tracker:
        found = tracker.collect(torch.randn(6, 5, 4), batch_size=4)
    assert {z.shape[:2] for z in found.values()} == {(6, 5)}
    wanted = "linear1" if activation == "relu" else "activation"
    assert [name for name in found if wanted in name] == [f"layers.{n}.{wanted}" for n in (0, 1)]


@pytest.mark.parametrize("core", [nn.RNN, nn.LSTM])
def test_a_bare_recurrent_network_is_its_own_layer(core):
    model, x = core(4, 3, batch_first=True), torch.randn(6, 5, 4)
    with ActivationTracker(model) as tracker, GradientTracker(model, nn.RNNBase) as gradients:
        found = tracker.collect(x)
        model(x)[0].sum().backward()
    name = core.__name__.lower()
    assert list(found) == [name]
    torch.testing.assert_close(found[name], model(x)[0])
    assert [row["weight"] for row in gradients.statistics()] == [
        f"{name}.weight_ih_l0",
        f"{name}.weight_hh_l0",
    ]


def test_a_module_of_two_names_goes_by_the_one_that_is_asked_for(x):
    model = nn.Sequential()
    model.first = nn.Linear(4, 4)
    model.second = model.first
    assert list(select_layers(model)) == ["first"]
    assert list(select_layers(model, "*")) == ["first"]
    assert list(select_layers(model, ["second", "first"])) == ["first", "second"]
    with ActivationTracker(model, "second") as tracker:
        found = tracker.collect(x)
    assert list(found) == ["second", "second:2"]
    torch.testing.assert_close(found["second"], model.first(x))


# Changes


@pytest.mark.parametrize("core", [nn.GRU, nn.LSTM])
def test_a_change_takes_and_returns_a_tuple_whole(core):
    model, x = Recurrent(core), torch.randn(6, 3, 4)
    with Intervention(model, lambda output: (torch.zeros_like(output[0]), output[1]), "core"):
        assert torch.equal(model(x), model.head.bias.expand(6, 2))
    assert not torch.equal(model(x), model.head.bias.expand(6, 2))


@pytest.mark.parametrize("change", [torch.round, lambda z: z.round(), lambda z: z + torch.ones(1)])
def test_a_change_that_takes_no_tuple_is_told_how(change):
    model, x = Recurrent(nn.LSTM), torch.randn(6, 3, 4)
    told = pytest.raises(TypeError, match=r"'core' puts out a tuple, no tensor: .*output\[0\]")
    with Intervention(model, change, "core"), told:
        model(x)


@pytest.mark.parametrize(
    "change", [lambda z: 2 * z, lambda z: z[0], lambda z: (z[1], z[0]), lambda z: list(z)]
)
def test_a_change_of_a_tuples_form_is_refused(change):
    model, x = Recurrent(nn.GRU), torch.randn(6, 3, 4)
    with Intervention(model, change, "core"), pytest.raises(ValueError, match="'core' must keep"):
        model(x)


def test_an_error_of_a_change_of_a_tensor_is_its_own(model, x):
    with Intervention(model, lambda z: z.no_such_thing), pytest.raises(AttributeError):
        model(x)


# Compiled networks


@pytest.fixture(params=["compile()", "Module.compile", "a part"])
def compiled(request, model, x):
    """A network that was compiled and called, and the same uncompiled."""
    if request.param == "a part":
        other = nn.Sequential(torch.compile(model, backend="eager"))
    elif request.param == "compile()":
        other = torch.compile(model, backend="eager")
    else:
        other = copy.deepcopy(model)
        other.compile(backend="eager")
    other(x)
    yield other, model
    torch.compiler.reset()


def test_a_compiled_network_is_recorded(compiled, x):
    other, model = compiled
    with ActivationTracker(other, "*tanh1") as tracker:
        other(x)
        (seen,) = tracker.activations.values()
        (found,) = tracker.collect(x).values()
    torch.testing.assert_close(seen, torch.tanh(model.linear1(x)))
    torch.testing.assert_close(found, seen)


def test_a_compiled_network_is_changed_inside_the_block_alone(compiled, x):
    other, model = compiled
    before = other(x)
    with Intervention(other, torch.zeros_like, "*tanh2"):
        torch.testing.assert_close(other(x), model.linear3.bias.expand(20, 3))
    torch.testing.assert_close(other(x), before)


def test_a_network_compiled_inside_the_block_is_not_changed_after_it(model, x):
    before = model(x)
    with Intervention(model, torch.zeros_like, "tanh2"):
        other = torch.compile(model, backend="eager")
        torch.testing.assert_close(other(x), model.linear3.bias.expand(20, 3))
    torch.testing.assert_close(other(x), before)
    torch.compiler.reset()


def test_names_of_a_compiled_network_are_those_of_the_network(model):
    other = torch.compile(model, backend="eager")
    assert list(ActivationTracker(other).layers) == ["tanh1", "tanh2"]
    assert list(GradientTracker(other).weights) == list(GradientTracker(model).weights)


# Nothing stays behind


def test_records_need_no_gradient_and_keep_no_graph():
    model, x = Probed(), torch.randn(3, 4)
    with ActivationTracker(model) as tracker:
        output = model(x)
        assert output.requires_grad
        assert len(alive) == 1
        assert not tracker.activations["tanh"].requires_grad
        del output
        gc.collect()
        assert tracker.activations
        assert len(alive) == 0


def test_collected_activations_need_no_gradient():
    model, x = Probed(), torch.randn(3, 4, requires_grad=True)
    with ActivationTracker(model) as tracker:
        found = tracker.collect(x, batch_size=2)
    gc.collect()
    assert len(alive) == 0
    assert not found["tanh"].requires_grad


def test_nothing_that_was_collected_stays_in_the_tracker(model, x):
    with ActivationTracker(model) as tracker:
        tracker.collect(x)
        assert tracker.activations == {}
        with pytest.raises(TypeError):
            tracker.collect(x, "one input too many")
        assert tracker.activations == {}


@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_hooks_live_inside_the_block_alone(model, tracker):
    made = tracker(model)
    assert hooks_of(model) == 0
    with made:
        assert hooks_of(model) > 0
    assert hooks_of(model) == 0


@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_hooks_are_gone_after_an_exception(model, tracker):
    with pytest.raises(ZeroDivisionError), tracker(model):
        raise ZeroDivisionError
    assert hooks_of(model) == 0


def test_hooks_are_gone_when_the_block_cannot_be_entered(model):
    tracker = GradientTracker(model)
    model.linear3.weight.requires_grad_(False)
    with pytest.raises(RuntimeError), tracker:
        pass
    assert hooks_of(model) == 0


@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_a_tracker_serves_once(model, tracker):
    made = tracker(model)
    with made:
        pass
    with pytest.raises(RuntimeError, match="used before"), made:
        pass
    assert hooks_of(model) == 0


@pytest.mark.parametrize("tracker", [ActivationTracker, GradientTracker])
def test_a_tracker_cannot_be_entered_inside_itself(model, tracker):
    with tracker(model) as made, pytest.raises(RuntimeError, match="used before"), made:
        pass
    assert hooks_of(model) == 0


def test_two_trackers_watch_one_model_without_disturbing_each_other(model, x):
    with ActivationTracker(model, "tanh1") as outer:
        with ActivationTracker(model, "tanh2") as inner:
            inner.collect(x)
        found = outer.collect(x)
    torch.testing.assert_close(found["tanh1"], torch.tanh(model.linear1(x)))


def test_collecting_before_the_block_is_refused(model, x):
    with pytest.raises(RuntimeError, match="with"):
        ActivationTracker(model).collect(x)


def test_collecting_after_the_block_is_refused_also_with_an_old_record(model, x):
    with ActivationTracker(model) as tracker:
        model(x)
    with pytest.raises(RuntimeError, match="with"):
        tracker.collect(torch.zeros_like(x))


# Moments in one pass

streams = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1e3, 1e3),
)


@given(streams, st.sampled_from([0.0, 1.0, -1e4, 1e9, 1e14]))
def test_one_pass_gives_mean_and_variance_also_far_from_zero(values, offset):
    values = values + offset
    moments = RunningMoments()
    for value in values:
        moments.update(torch.as_tensor(value))
    exact = values.astype(np.longdouble)
    # Each step rounds by ε max|v|; the sum of squares of the textbook would lose ε max|v|².
    step = 10 * len(values) * np.finfo(float).eps * np.abs(values).max()
    spread = np.ptp(values) + step
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(0).astype(float), atol=step, rtol=0)
    np.testing.assert_allclose(
        moments.variance.numpy(), exact.var(0).astype(float), atol=step * spread, rtol=1e-12
    )
    assert moments.count == len(values)
    assert (moments.variance >= 0).all()


def test_single_precision_values_are_summed_in_double():
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0)) + 1000
    moments = RunningMoments()
    for value in values:
        moments.update(value)
    assert float(moments.variance) == pytest.approx(np.var(values.double().numpy()), rel=1e-9)


# Gradients


def stored(model, batches, weight):
    """Norms of eq. 3.7-3.9 from all gradients, kept."""
    loss = nn.CrossEntropyLoss()
    grads = [torch.autograd.grad(loss(model(x), y), weight)[0].double() for x, y in batches]
    mean = sum(grads) / len(grads)
    deviation = (sum((g - mean) ** 2 for g in grads) / len(grads)).sqrt()
    return [float(v.norm()) for v in (mean, deviation, weight.detach().double())]


def batches_of(count, size=8):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 4, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def backward(model, x, y):
    nn.functional.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("accumulate", [False, True])
def test_streamed_statistics_are_those_of_the_stored_gradients(model, count, accumulate):
    batches = batches_of(count)
    with GradientTracker(model) as tracker:
        for x, y in batches:
            if not accumulate:
                model.zero_grad()
            backward(model, x, y)
        rows = tracker.statistics()
    assert [row["weight"] for row in rows] == [f"linear{n}.weight" for n in (1, 2, 3)]
    for row in rows:
        expected = stored(model, batches, model.get_parameter(row["weight"]))
        measured = [row["mean_norm"], row["deviation_norm"], row["weight_norm"]]
        np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_calls():
    model, x = Shared(), torch.randn(5, 4)
    with GradientTracker(model) as tracker:
        model(x).square().sum().backward()
        (row,) = tracker.statistics()
    assert row["mean_norm"] == pytest.approx(float(model.step.weight.grad.norm()), rel=1e-6)
    assert row["deviation_norm"] == pytest.approx(0, abs=1e-9)


def test_one_batch_has_no_deviation(model):
    with GradientTracker(model) as tracker:
        backward(model, *batches_of(1)[0])
        assert all(row["deviation_norm"] == 0 for row in tracker.statistics())


def test_reset_forgets_the_batches_before(model):
    first, second = batches_of(2)
    with GradientTracker(model) as tracker:
        backward(model, *first)
        tracker.reset()
        backward(model, *second)
        (row, *_) = tracker.statistics()
    expected = stored(model, [second], model.linear1.weight)
    assert row["mean_norm"] == pytest.approx(expected[0], rel=1e-5)


def test_a_paused_tracker_sees_nothing_until_the_next_reset(model):
    first, second = batches_of(2)
    with GradientTracker(model) as tracker:
        tracker.reset(paused=True)
        backward(model, *first)
        assert all(moments.count == 0 for moments in tracker.moments.values())
        assert all(row["mean_norm"] == 0 for row in tracker.statistics())
        tracker.reset()
        backward(model, *second)
        assert all(moments.count == 1 for moments in tracker.moments.values())


def test_norms_of_single_precision_are_taken_in_double():
    weight = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments()
    moments.update(weight)
    found = norms(moments, weight)
    exact = np.linalg.norm(weight.double().numpy())
    # In single precision the norm would be rounded by 6e-8.
    assert float(found["weight_norm"]) == pytest.approx(exact, rel=1e-12)
    assert float(found["mean_norm"]) == pytest.approx(exact, rel=1e-12)


def test_chosen_layers_alone_are_watched(model):
    with GradientTracker(model, ["linear1", "linear3"]) as tracker:
        backward(model, *batches_of(1)[0])
        rows = tracker.statistics()
    assert [row["weight"] for row in rows] == ["linear1.weight", "linear3.weight"]


def test_frozen_weights_and_biases_are_left_out(model):
    model.linear2.weight.requires_grad_(False)
    with GradientTracker(model) as tracker:
        backward(model, *batches_of(1)[0])
        rows = tracker.statistics()
    assert [row["weight"] for row in rows] == ["linear1.weight", "linear3.weight"]
    assert all(math.isfinite(v) for row in rows for k, v in row.items() if k != "weight")


@pytest.mark.parametrize("layers", [None, nn.Tanh])
def test_layers_without_weights_are_refused(layers):
    model = nn.Sequential(nn.Tanh(), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="no weight matrices"):
        GradientTracker(model, layers)
