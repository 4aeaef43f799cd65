"""Laws of training: it learns, it repeats, it stops, and many seeds at once are the same."""

import copy
import math
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from ibcore import (
    ActivationTracker,
    Dataset,
    GradientTracker,
    fit,
    fit_ensemble,
    snapshot_epochs,
    training,
)
from ibcore.models import FullyConnected
from ibcore.training import TrainingDivergedError

SCORES = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
NORMS = ["mean_norm", "deviation_norm", "weight_norm"]
SETTINGS = {"epochs": 4, "learning_rate": 0.05, "batch_size": 8, "progress": False}


def blobs(n=40, n_train=30, seed=0, dtype=torch.float64):
    """Two far clusters in three dimensions: an easy task."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=generator, dtype=dtype) + 4 * y[:, None]
    order = torch.randperm(n, generator=generator)
    parts = {"train": order[:n_train], "test": order[n_train:]}
    return Dataset("blobs", x, y, **parts, classes=("a", "b"), source="original", sha256="")


def net(seed):
    return FullyConnected([3, 6, 4, 2], seed=seed).double()


def with_buffers(seed):
    """Batch norm (buffers that training changes) and a ReLU that works in place."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2)
    ).double()


def with_frozen_layer(seed):
    model = net(seed)
    model.linear1.requires_grad_(False)
    return model


def with_loose_buffer(seed):
    """A buffer that is not part of the state dict."""
    model = net(seed)
    model.linear1.register_buffer("note", torch.full((1,), float(seed)), persistent=False)
    return model


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.one, self.tanh = nn.Linear(3, 3), nn.Tanh()
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.tanh(self.one(x)))


def with_tied_weights(seed):
    torch.manual_seed(seed)
    return Tied().double()


def with_unused_layer(seed):
    model = net(seed)
    torch.manual_seed(seed)
    model.linear1.spare = nn.Linear(2, 2).double()
    return model


class DenseGraph(nn.Module):
    """Each node sees the mean of its neighbours and itself, by a dense matrix."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.linear1, self.tanh = nn.Linear(inputs, hidden), nn.Tanh()
        self.linear2 = nn.Linear(hidden, outputs)

    def forward(self, x, edge_index):
        mixed = torch.eye(len(x), dtype=x.dtype)
        mixed[edge_index[0], edge_index[1]] = 1
        mixed = mixed / mixed.sum(1, keepdim=True)
        return self.linear2(mixed @ self.tanh(self.linear1(mixed @ x)))


@pytest.fixture
def graph():
    """Two rings of ten nodes; the ring is the class, and few nodes alone tell it."""
    step = torch.arange(10)
    edges = torch.stack([step, (step + 1) % 10])
    edges = torch.cat([edges, edges.flip(0)], 1)
    x = 3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ds = blobs(20)
    return replace(
        ds,
        x=x,
        y=torch.arange(20) // 10,
        train=torch.arange(0, 20, 2),
        test=torch.arange(1, 20, 2),
        edge_index=torch.cat([edges, edges + 10], 1),
    )


# Snapshot epochs


@given(st.integers(1, 20_000), st.integers(2, 400))
def test_snapshots_run_from_1_to_the_last_epoch_none_twice(epochs, count):
    found = list(snapshot_epochs(epochs, count))
    assert found[0] == 1
    assert found[-1] == epochs
    assert all(a < b for a, b in pairwise(found))
    assert len(found) <= count
    assert all(int(e) == e for e in found)


@given(st.integers(2, 20_000), st.integers(2, 400))
def test_snapshots_are_even_on_a_log_axis_up_to_rounding(epochs, count):
    found = np.array(snapshot_epochs(epochs, count))
    grid = np.exp(np.linspace(0, math.log(epochs), count))
    assert np.abs(grid[:, None] - found).min(1).max() <= 0.5 + 1e-6
    assert np.abs(grid[:, None] - found).min(0).max() <= 0.5 + 1e-6


@given(st.integers(1, 300))
def test_with_room_for_all_every_early_epoch_is_seen(epochs):
    found = snapshot_epochs(epochs, 5000)
    assert list(found) == list(range(1, epochs + 1))


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_also_the_fewest_snapshots_hold_the_first_epoch_and_the_last(epochs):
    assert snapshot_epochs(epochs, 1) == sorted({1, epochs})


@pytest.mark.parametrize(("epochs", "count"), [(0, 10), (-1, 10), (10, 0), (10, -2)])
def test_no_epochs_and_no_snapshots_are_refused(epochs, count):
    with pytest.raises(ValueError, match="at least 1"):
        snapshot_epochs(epochs, count)


# One network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [None, 11])
def test_training_lowers_the_loss_and_learns_an_easy_task(dtype, batch_size):
    model = FullyConnected([3, 6, 2], seed=0).to(dtype)
    table = fit(
        model, blobs(80, 60, dtype=dtype), epochs=40, learning_rate=0.05, batch_size=batch_size,
        progress=False,
    ).table  # fmt: skip
    first, last = table.iloc[0], table.iloc[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["test_loss"] < first["test_loss"]
    assert last["train_accuracy"] == 1
    assert last["test_accuracy"] >= 0.95


def test_losses_are_in_bits():
    model = net(0)
    nn.init.zeros_(model.linear3.weight)  # says one half to every class
    table = fit(model, blobs(), **{**SETTINGS, "epochs": 1, "learning_rate": 1e-12}).table
    assert table.loc[0, "train_loss"] == pytest.approx(1.0, abs=1e-9)
    assert table.loc[0, "test_loss"] == pytest.approx(1.0, abs=1e-9)


def test_the_scores_are_those_of_the_network_at_the_epochs_end():
    model, ds = with_buffers(0), blobs()
    row = fit(model, ds, **SETTINGS).table.iloc[-1]
    outputs = model.eval()(ds.x).detach()
    for part, index in (("train", ds.train), ("test", ds.test)):
        logits = outputs[index]
        loss = float(cross_entropy(logits, ds.y[index])) / math.log(2)
        assert row[f"{part}_loss"] == pytest.approx(loss, rel=1e-12)
        right = (logits.argmax(1) == ds.y[index]).double().mean()
        assert row[f"{part}_accuracy"] == pytest.approx(float(right), rel=1e-12)


def test_the_table_has_a_row_a_snapshot_and_the_promised_columns():
    model = net(0)
    with GradientTracker(model) as gradients:
        history = fit(model, blobs(), seed=3, snapshots=[1, 3], gradients=gradients, **SETTINGS)
    assert list(history.table.columns) == ["run", "epoch", *SCORES]
    assert history.table[["run", "epoch"]].to_numpy().tolist() == [[3, 1], [3, 3]]
    assert list(history.gradients.columns) == ["run", "epoch", "weight", *NORMS]
    weights = [f"linear{n}.weight" for n in (1, 2, 3)]
    assert history.gradients["weight"].tolist() == 2 * weights


def test_snapshots_are_by_default_those_of_the_schedule():
    table = fit(net(0), blobs(), **{**SETTINGS, "epochs": 30}).table
    assert table["epoch"].tolist() == list(snapshot_epochs(30))


def test_every_epoch_takes_each_training_sample_once_in_a_new_order():
    ds = blobs()
    ds = replace(ds, x=torch.arange(40.0, dtype=torch.float64)[:, None].expand(-1, 3))
    seen, model = [], net(0)
    model.register_forward_pre_hook(
        lambda m, inputs: seen.append(inputs[0][:, 0].long().tolist()) if m.training else None
    )
    fit(model, ds, **{**SETTINGS, "epochs": 2})
    assert [len(batch) for batch in seen] == 2 * [8, 8, 8, 6]
    epochs = [list(chain(*seen[:4])), list(chain(*seen[4:]))]
    assert all(sorted(epoch) == sorted(ds.train.tolist()) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_held_out_labels_have_no_influence_on_the_weights():
    ds = blobs()
    other = ds.y.clone()
    other[ds.test] = 1 - other[ds.test]
    one, two = net(0), net(0)
    fit(one, ds, **SETTINGS)
    fit(two, replace(ds, y=other), **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_seed_decides_the_order_and_the_same_seed_repeats_the_run():
    def run(seed, state):
        torch.manual_seed(state)
        model = net(0)
        return model, fit(model, blobs(), seed=seed, **SETTINGS).table.drop(columns="run")

    (one, first), (two, again), (_, other) = run(1, 10), run(1, 11), run(2, 10)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not first.equals(other)


def test_watching_a_run_does_not_change_it():
    plain, watched = with_buffers(0), with_buffers(0)
    fit(plain, blobs(), **{**SETTINGS, "snapshots": [4]})
    with ActivationTracker(watched) as tracker, GradientTracker(watched) as gradients:
        fit(watched, blobs(), tracker=tracker, gradients=gradients, **SETTINGS)
    state = watched.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


def test_snapshots_hold_the_activations_of_every_sample_in_evaluation_mode():
    model, ds = with_buffers(0), blobs()
    with ActivationTracker(model) as tracker:
        history = fit(model, ds, seed=5, tracker=tracker, **SETTINGS)
        last = tracker.collect(ds.x)
    assert [(s.run, s.epoch) for s in history.snapshots] == [(5, e) for e in (1, 2, 3, 4)]
    assert torch.equal(history.snapshots[-1].activations["2"], last["2"])
    assert not torch.equal(history.snapshots[0].activations["2"], last["2"])


def test_on_snapshot_takes_the_snapshots_instead_of_the_history():
    model, taken = net(0), []
    with ActivationTracker(model) as tracker:
        history = fit(model, blobs(), tracker=tracker, on_snapshot=taken.append, **SETTINGS)
    assert history.snapshots == []
    assert [s.epoch for s in taken] == [1, 2, 3, 4]


def test_gradient_statistics_are_those_of_the_epochs_batches_and_last_weights():
    model, seen, weights = net(0), [], []
    weight = model.linear2.weight
    weight.register_hook(lambda g: seen.append(g.clone()))
    with GradientTracker(model, "linear2") as gradients, ActivationTracker(model) as tracker:
        history = fit(
            model, blobs(), gradients=gradients, tracker=tracker,
            on_snapshot=lambda _: weights.append(weight.detach().clone()), **SETTINGS,
        )  # fmt: skip
    assert len(seen) == 16
    for epoch, row in history.gradients.groupby("epoch"):
        batches = torch.stack(seen[4 * (epoch - 1) : 4 * epoch])
        expected = [batches.mean(0), batches.std(0, correction=0), weights[epoch - 1]]
        np.testing.assert_allclose(row[NORMS].iloc[0], [v.norm() for v in expected], rtol=1e-9)


def test_plain_descent_moves_a_weight_by_the_mean_gradient():
    model = net(0)
    before = model.linear1.weight.detach().clone()
    with GradientTracker(model) as gradients:
        history = fit(
            model, blobs(), gradients=gradients, optimizer=torch.optim.SGD,
            **{**SETTINGS, "epochs": 1},
        )  # fmt: skip
    moved = float((model.linear1.weight.detach() - before).norm())
    steps, rate = math.ceil(30 / 8), SETTINGS["learning_rate"]
    assert history.gradients.loc[0, "mean_norm"] == pytest.approx(moved / (steps * rate), rel=1e-9)


def test_one_batch_an_epoch_has_no_deviation():
    model = net(0)
    with GradientTracker(model) as gradients:
        history = fit(model, blobs(), gradients=gradients, **{**SETTINGS, "batch_size": None})
    assert (history.gradients["deviation_norm"] == 0).all()
    assert (history.gradients["mean_norm"] > 0).all()


def test_a_gradient_tracker_works_on_after_the_run():
    model, ds = net(0), blobs()
    with GradientTracker(model) as gradients:
        fit(model, ds, gradients=gradients, **SETTINGS)
        gradients.reset()
        model.zero_grad()
        cross_entropy(model(ds.x), ds.y).backward()
        row = gradients.statistics()[0]
    assert row["mean_norm"] == pytest.approx(float(model.linear1.weight.grad.norm()))


def test_the_progress_bar_is_drawn_only_when_asked_for(capsys):
    fit(net(0), blobs(), **SETTINGS)
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    fit(net(0), blobs(), **{**SETTINGS, "progress": True})
    assert "4/4" in capsys.readouterr().err


# Trackers of another model


@pytest.mark.parametrize("kind", [ActivationTracker, GradientTracker])
def test_a_tracker_of_another_model_is_refused_before_anything_trains(kind):
    model, other = net(0), net(1)
    before = copy.deepcopy(model.state_dict())
    name = "tracker" if kind is ActivationTracker else "gradients"
    for watched in (other, copy.deepcopy(model), model.linear1):
        with kind(watched) as tracker, pytest.raises(ValueError, match="watches another model"):
            fit(model, blobs(), **{name: tracker}, **SETTINGS)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("kind", [ActivationTracker, GradientTracker])
def test_a_tracker_outside_its_block_is_refused_before_anything_trains(kind):
    model = net(0)
    before = copy.deepcopy(model.state_dict())
    name = "tracker" if kind is ActivationTracker else "gradients"
    with pytest.raises(RuntimeError, match=rf"{kind.__name__} watches nothing.*with"):
        fit(model, blobs(), **{name: kind(model)}, **SETTINGS)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_a_compiled_network_is_trained_and_watched_as_the_network_itself():
    def run(model):
        with ActivationTracker(model) as tracker, GradientTracker(model) as gradients:
            return fit(model, blobs(), tracker=tracker, gradients=gradients, **SETTINGS)

    other = torch.compile(net(0), backend="eager")
    other(blobs().x)
    plain, compiled = run(net(0)), run(other)
    torch.compiler.reset()
    pd.testing.assert_frame_equal(plain.table, compiled.table)
    pd.testing.assert_frame_equal(plain.gradients, compiled.gradients)
    assert list(plain.snapshots[-1].activations) == list(compiled.snapshots[-1].activations)


# Optimiser, loss and a stop of one's own


def test_momentum_and_decay_are_those_of_the_optimiser_by_hand():
    model, ds = net(0), blobs()
    by_hand = copy.deepcopy(model)
    optimizer = partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1)
    settings = {**SETTINGS, "batch_size": None, "epochs": 3}
    fit(model, ds, optimizer=optimizer, **settings)
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    for _ in range(3):
        loss = cross_entropy(by_hand(ds.x[ds.train]), ds.y[ds.train])
        found = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for v, g, p in zip(velocity, found, by_hand.parameters(), strict=True):
                v.mul_(0.9).add_(g + 0.1 * p)
                p -= 0.05 * v
    # The samples come in another order, which rounds otherwise, in float64.
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_loss_is_what_is_trained_on_and_the_table_shows_bits_of_cross_entropy():
    def run(loss):
        model = net(0)
        return model, fit(model, blobs(), loss=loss, optimizer=torch.optim.SGD, **SETTINGS)

    (plain, table), (twice, _) = run(cross_entropy), run(lambda z, y: 2 * cross_entropy(z, y))
    still, history = run(lambda logits, y: 0 * logits.sum())
    start = net(0)
    assert all(
        torch.equal(a, b) for a, b in zip(still.parameters(), start.parameters(), strict=True)
    )
    assert not torch.equal(plain.linear1.weight, twice.linear1.weight)
    ds, logits = blobs(), start(blobs().x).detach()
    bits = float(cross_entropy(logits[ds.test], ds.y[ds.test]))
    assert history.table["test_loss"].iloc[-1] == pytest.approx(bits / math.log(2), rel=1e-12)
    assert table.table["train_loss"].iloc[-1] < history.table["train_loss"].iloc[-1]


@pytest.mark.parametrize("last", [2, 3])
def test_a_callback_stops_the_training_and_the_last_epoch_is_looked_at_once(last):
    seen, model = [], net(0)

    def stop(epoch, history):
        seen.append((epoch, len(history.scores)))
        return epoch == last

    settings = {**SETTINGS, "snapshots": [1, 2, 4]}
    with ActivationTracker(model) as tracker, GradientTracker(model) as gradients:
        found = fit(model, blobs(), tracker=tracker, gradients=gradients, on_epoch=stop, **settings)
    assert seen == [(1, 1), (2, 2), (3, 2)][:last]
    assert found.table["epoch"].tolist() == [1, 2, 3][:last]
    assert [s.epoch for s in found.snapshots] == [1, 2, 3][:last]
    whole, other = net(0), {**SETTINGS, "epochs": last, "snapshots": [1, 2, last]}
    with ActivationTracker(whole) as tracker, GradientTracker(whole) as gradients:
        expected = fit(whole, blobs(), tracker=tracker, gradients=gradients, **other)
    pd.testing.assert_frame_equal(found.table, expected.table)
    pd.testing.assert_frame_equal(found.gradients, expected.gradients)
    assert torch.equal(
        found.snapshots[-1].activations["tanh2"], expected.snapshots[-1].activations["tanh2"]
    )


def test_a_callback_that_returns_nothing_stops_nothing():
    seen = []
    history = fit(net(0), blobs(), on_epoch=lambda epoch, _: seen.append(epoch), **SETTINGS)
    assert seen == [1, 2, 3, 4]
    assert history.table["epoch"].tolist() == seen


def test_the_history_holds_the_trained_network_in_evaluation_mode():
    model = with_buffers(0)
    (trained,) = fit(model, blobs(), **{**SETTINGS, "snapshots": [1]}).models
    assert trained is model
    assert not model.training


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="Tanh has no weights to train"):
        fit(nn.Tanh(), blobs(), **SETTINGS)


# Graphs


def test_a_graph_network_learns_from_its_training_nodes(graph):
    torch.manual_seed(0)
    model = DenseGraph(2, 16, 2).double()
    with ActivationTracker(model) as tracker:
        history = fit(model, graph, epochs=80, learning_rate=0.05, tracker=tracker, progress=False)
    assert history.table["train_loss"].iloc[-1] < 0.1 * history.table["train_loss"].iloc[0]
    assert history.table["train_accuracy"].iloc[-1] == 1
    assert history.snapshots[-1].activations["tanh"].shape == (20, 16)


def test_a_graph_network_is_scored_with_its_graph(graph):
    torch.manual_seed(0)
    model = DenseGraph(2, 4, 2).double()
    row = fit(model, graph, epochs=3, learning_rate=0.05, progress=False).table.iloc[-1]
    logits = model(graph.x, graph.edge_index)[graph.test].detach()
    loss = float(cross_entropy(logits, graph.y[graph.test])) / math.log(2)
    assert row["test_loss"] == pytest.approx(loss, rel=1e-12)


def test_labels_of_held_out_nodes_have_no_influence(graph):
    def weights(y):
        torch.manual_seed(0)
        model = DenseGraph(2, 4, 2).double()
        fit(model, replace(graph, y=y), epochs=5, learning_rate=0.05, progress=False)
        return model.linear1.weight

    other = graph.y.clone()
    other[graph.test] = 1 - other[graph.test]
    assert torch.equal(weights(graph.y), weights(other))


def test_the_loss_of_a_batch_is_taken_on_its_nodes_and_the_model_sees_all(graph):
    torch.manual_seed(0)
    model = DenseGraph(2, 4, 2).double()
    by_hand = copy.deepcopy(model)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    settings = {"epochs": 1, "learning_rate": 0.1, "batch_size": 4, "progress": False}
    fit(model, graph, seed=5, optimizer=torch.optim.SGD, **settings)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    for batch in graph.train[order].split(4):
        loss = cross_entropy(by_hand(graph.x, graph.edge_index)[batch], graph.y[batch])
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(by_hand.parameters(), gradients, strict=True):
                weight -= 0.1 * gradient
    for ours, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert seen == [20] * 4  # three steps and one look


def test_a_look_at_many_samples_comes_in_parts_that_change_nothing(monkeypatch):
    def run(samples):
        monkeypatch.setattr(training, "_SAMPLES", samples)
        model = net(0)
        with ActivationTracker(model) as tracker:
            return fit(model, blobs(), tracker=tracker, **SETTINGS)

    whole, parts = run(10_000), run(7)
    pd.testing.assert_frame_equal(whole.table, parts.table)
    for a, b in zip(whole.snapshots, parts.snapshots, strict=True):
        for layer, z in a.activations.items():
            torch.testing.assert_close(z, b.activations[layer], rtol=1e-12, atol=1e-12)


# A loss that is not finite


def poisoned():
    ds = blobs()
    ds.x[3, 0] = torch.nan  # after it was checked
    return ds


def test_a_loss_that_is_not_finite_stops_the_run_and_names_seed_and_epoch():
    with pytest.raises(TrainingDivergedError, match=r"seed \[7\].*epoch 1 .*0\.05"):
        fit(net(0), poisoned(), seed=7, **SETTINGS)
    with pytest.raises(TrainingDivergedError, match=r"seed \[7, 9\].*epoch 1 "):
        fit_ensemble(net, poisoned(), seeds=[7, 9], **{**SETTINGS, "batch_size": None})


def far_too_fast(epochs):
    """One step makes weights of 1e200, whose product is infinite in the pass after it."""
    settings = {"epochs": epochs, "learning_rate": 1e200, "snapshots": [epochs]}
    return {**SETTINGS, **settings, "batch_size": None, "optimizer": torch.optim.SGD}


def linear_net(seed):
    return FullyConnected([3, 6, 4, 2], activation="identity", seed=seed).double()


def test_the_epoch_named_is_the_one_of_the_bad_loss():
    with pytest.raises(TrainingDivergedError, match=r"seed \[3\].*epoch 2 "):
        fit(linear_net(3), blobs(), seed=3, **far_too_fast(epochs=3))
    with pytest.raises(TrainingDivergedError, match=r"seed \[3\].*epoch 2 "):
        fit_ensemble(linear_net, blobs(), seeds=[3], **far_too_fast(epochs=3))


def test_in_an_ensemble_the_bad_seeds_alone_are_named():
    def build(seed):
        model = net(seed)
        if seed == 2:
            nn.init.constant_(model.linear3.weight, math.nan)
        return model

    with pytest.raises(TrainingDivergedError, match=r"seed \[2\]"):
        fit_ensemble(build, blobs(), seeds=[1, 2, 3], **SETTINGS)


def test_no_run_ends_with_a_loss_that_is_not_finite():
    with pytest.raises(TrainingDivergedError, match=r"seed \[0\]"):
        fit(linear_net(0), blobs(), **far_too_fast(epochs=1))


def test_no_ensemble_ends_with_a_loss_that_is_not_finite():
    with pytest.raises(TrainingDivergedError, match=r"seed \[0, 1\]"):
        fit_ensemble(linear_net, blobs(), seeds=[0, 1], **far_too_fast(epochs=1))


# Many seeds at once


def one_by_one(build, data, seeds, layers, **settings):
    """Scores, gradient rows and snapshots of fit, seed by seed."""
    scores, gradient_rows, snapshots = [], [], []
    for ds, seed in zip(data, seeds, strict=True):
        model = build(seed)
        with ActivationTracker(model, layers) as tracker, GradientTracker(model) as gradients:
            history = fit(model, ds, seed=seed, tracker=tracker, gradients=gradients, **settings)
        scores.append(history.table)
        gradient_rows.append(history.gradients)
        snapshots += history.snapshots
    return pd.concat(scores), pd.concat(gradient_rows), snapshots


def in_order(table, keys):
    return table.sort_values(keys).reset_index(drop=True)


def assert_same_runs(build, data, seeds, layers="*", **settings):
    scores, gradient_rows, snapshots = one_by_one(build, data, seeds, layers, **settings)
    taken = []
    history = fit_ensemble(
        build, data, seeds=seeds, layers=layers, on_snapshot=taken.append, **settings
    )
    tight = {"rtol": 1e-7, "atol": 1e-10}
    for keys, ours, theirs in (
        (["run", "epoch"], history.table, scores),
        (["run", "epoch", "weight"], history.gradients, gradient_rows),
    ):
        pd.testing.assert_frame_equal(in_order(ours, keys), in_order(theirs, keys), **tight)
    for found in (taken, snapshots):
        found.sort(key=lambda s: (s.run, s.epoch))
    assert [(s.run, s.epoch) for s in taken] == [(s.run, s.epoch) for s in snapshots]
    for ours, theirs in zip(taken, snapshots, strict=True):
        assert list(ours.activations) == list(theirs.activations)
        for name, z in theirs.activations.items():
            torch.testing.assert_close(ours.activations[name], z, **tight)


@pytest.mark.parametrize("build", [net, with_buffers])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_an_ensemble_gives_what_fit_gives_seed_by_seed(build, optimizer):
    assert_same_runs(build, 3 * [blobs()], [4, 0, 7], **{**SETTINGS, "optimizer": optimizer})


@pytest.mark.parametrize("batch_size", [None, 7, 10, 1000])
def test_an_ensemble_gives_what_fit_gives_also_where_the_last_batch_is_smaller(batch_size):
    assert_same_runs(net, 2 * [blobs()], [1, 2], **{**SETTINGS, "batch_size": batch_size})


def test_an_ensemble_gives_what_fit_gives_with_a_split_a_seed():
    ds = blobs()
    assert_same_runs(net, [ds.split(0.6, s) for s in (1, 2, 3)], [1, 2, 3], **SETTINGS)


@pytest.mark.parametrize(
    "build", [with_frozen_layer, with_unused_layer, with_tied_weights, with_loose_buffer]
)
def test_an_ensemble_gives_what_fit_gives_for_unusual_modules(build):
    assert_same_runs(build, 2 * [blobs()], [0, 1], layers=nn.Tanh, **SETTINGS)


def test_in_an_ensemble_a_seed_does_not_see_the_others():
    alone = fit_ensemble(net, blobs(), seeds=[5], **SETTINGS).table
    among = fit_ensemble(net, blobs(), seeds=[1, 5, 9], **SETTINGS).table
    among = among[among["run"] == 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among, rtol=1e-9)


def test_an_ensemble_of_one_data_set_is_that_of_copies_of_it():
    one = fit_ensemble(net, blobs(), seeds=[0, 1], **SETTINGS)
    two = fit_ensemble(net, [blobs(), blobs()], seeds=[0, 1], **SETTINGS)
    pd.testing.assert_frame_equal(one.table, two.table)


def test_an_ensemble_records_the_layers_that_are_asked_for():
    taken = []
    fit_ensemble(
        net, blobs(), seeds=[0], layers="linear2", on_snapshot=taken.append, snapshots=[2],
        **SETTINGS,
    )  # fmt: skip
    assert [(s.run, s.epoch, list(s.activations)) for s in taken] == [(0, 2, ["linear2"])]


# Bad settings

BAD = [
    {"epochs": 0},
    {"epochs": -3},
    {"learning_rate": 0.0},
    {"learning_rate": -0.1},
    {"learning_rate": math.nan},
    {"batch_size": 0},
    {"batch_size": -8},
    {"snapshots": [0, 1]},
    {"snapshots": [1, 5]},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_setting_out_of_range_is_refused_with_its_value(bad):
    (value,) = bad.values()
    shown = str(value[0] if value == [0, 1] else value[1] if isinstance(value, list) else value)
    with pytest.raises(ValueError, match=shown.replace(".", r"\.")):
        fit(net(0), blobs(), **{**SETTINGS, **bad})
    with pytest.raises(ValueError, match=shown.replace(".", r"\.")):
        fit_ensemble(net, blobs(), seeds=[0, 1], **{**SETTINGS, **bad})


@pytest.mark.parametrize(
    ("seeds", "data"),
    [
        ([], blobs()),
        ([], []),
        ([0, 1], [blobs()]),
        ([0], [blobs(), blobs()]),
        ([0, 1], [blobs(), blobs(n_train=20)]),
        ([0, 1], [blobs(), blobs(n=38)]),
    ],
    ids=["no seed", "nothing", "too few", "too many", "unequal splits", "unequal sizes"],
)
def test_data_sets_that_do_not_fit_the_seeds_are_refused(seeds, data):
    with pytest.raises(ValueError, match="data sets"):
        fit_ensemble(net, data, seeds=seeds, **SETTINGS)


@pytest.mark.parametrize("part", ["x", "y"])
def test_data_sets_with_other_values_are_refused(part):
    ds = blobs()
    other = replace(ds, **{part: getattr(ds, part).flip(0)})
    with pytest.raises(ValueError, match="data sets"):
        fit_ensemble(net, [ds, other], seeds=[0, 1], **SETTINGS)


def test_an_ensemble_takes_no_graph(graph):
    with pytest.raises(ValueError, match="graph"):
        fit_ensemble(lambda _: DenseGraph(2, 4, 2).double(), graph, seeds=[0], **SETTINGS)


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"no layer matches 'conv1'.*linear1"):
        fit_ensemble(
            net, blobs(), seeds=[0], layers="conv1", on_snapshot=lambda _: None, **SETTINGS
        )


def test_a_watcher_without_a_tracker_is_refused_rather_than_never_called():
    with pytest.raises(ValueError, match="tracker"):
        fit(net(0), blobs(), on_snapshot=print, **SETTINGS)
