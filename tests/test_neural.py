import math

import pandas as pd
import pytest
import torch
from torch import nn

from ibcore.estimators import DivergedError, InfoNCE, Mine, Nwj, Smile
from ibcore.estimators.bound import NeuralBound
from ibcore.estimators.critic import Critic, Folds, _axes, components
from ibcore.plane import InformationPlane
from ibcore.trials import distributions as laws

BOUNDS = [Mine, Nwj, InfoNCE, Smile]
QUICK = {"steps": 60, "folds": 2}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_gaussian_is_found(bound):
    law = laws.gaussian(2, 0.7)
    found = bound(**QUICK).between(*law.sample(1000, 0))
    assert found.bits == pytest.approx(law.bits, abs=0.15)  # 3 errors, and the bound's slack
    assert 0 < found.error < 0.05


@pytest.mark.parametrize("bound", BOUNDS)
def test_independence_holds_nothing(bound):
    found = bound(**QUICK).between(*laws.independent(4, 3).sample(500, 0))
    assert 0 <= found.bits < 0.05  # a validation by 75 samples a fold errs by chance


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_network_finds_what_correlations_do_not_show(bound):
    a = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    b = a.abs() + 0.1 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(1))
    # h(B) − ½ log₂(2πe 0.01), about 1.4 bits; the correlation alone shows none of them.
    assert bound(steps=300, folds=2).between(a, b).bits > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_fair_coin_is_one_bit(bound):
    y = torch.arange(600) % 2
    z = 4.0 * y[:, None] + torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    found = bound(steps=300)(z, y, x=z)[bound.__name__]
    assert found.i_zy == pytest.approx(1.0, abs=0.1)  # the critic is not trained to its end


@pytest.mark.parametrize("bound", [Mine, InfoNCE])
def test_monotone_maps_and_units_change_nothing(bound):
    a, b = laws.student(2, 0.5, 2).sample(600, 0)
    before = bound(steps=20).between(a, b)
    after = bound(steps=20).between(a.asinh() * 1000, b.atan())
    assert after == pytest.approx(before, abs=1e-6)  # ranks are the same: rounding alone


def test_seeds_reproduce_and_differ():
    pair = laws.gaussian(3, 0.5).sample(200, 0)
    first, again, other = (InfoNCE(steps=10, seed=s).between(*pair).bits for s in (0, 0, 1))
    assert first == pytest.approx(again, abs=1e-9)  # sums may follow where in memory samples lie
    assert first != pytest.approx(other, abs=1e-6)


def test_the_global_generator_is_left_alone():
    wide = torch.randn(200, 1100, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    InfoNCE(steps=2).between(wide, wide[:, :2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bound", BOUNDS)
def test_one_batched_run_agrees_with_single_ones(bound):
    pairs = [laws.gaussian(d, 0.8).sample(500, d) for d in (1, 3)]
    for found, pair in zip(bound(**QUICK).many(pairs), pairs, strict=True):
        alone = bound(**QUICK).between(*pair)
        assert found.bits == pytest.approx(alone.bits, abs=3 * alone.error)


def test_infonce_cannot_pass_its_ceiling():
    a = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    estimator = InfoNCE(steps=60, folds=4)
    assert estimator.ceiling(400) == pytest.approx(math.log2(100))
    assert 5 < estimator.between(a, a).bits <= math.log2(100)


@pytest.mark.parametrize("bound", [Mine, Nwj])
def test_no_sample_is_read_as_more_than_pairs_of_the_product_can_show(bound):
    """The critic puts samples e^300 above the held-out pairs, and one pair of the validation."""
    generator = torch.Generator().manual_seed(0)
    t, validation = torch.randn(2, 4, 75, 75, generator=generator, dtype=torch.float64)
    t.diagonal(dim1=1, dim2=2).add_(300.0)
    validation[:, 3, 4] = 300.0
    estimator = bound(folds=4)
    read = estimator._read(t, validation[:, :45, :45])
    bits = terms(bound, read) / math.log(2)
    assert estimator.ceiling(300) < 13  # of 433 bits
    assert bool((bits > 4).all())  # about the highest of 5550 normal values, 3.7 nats
    assert bool((bits <= estimator.ceiling(300)).all())


def test_ceilings_count_pairs_of_the_product():
    # Of 300 samples 75 are held out; of the other 225 a fifth decide when to stop.
    assert Mine().ceiling(300) == pytest.approx(math.log2(75 * 74))
    assert Nwj().ceiling(300) == pytest.approx(math.log2(45 * 44) + 1 / math.log(2))
    # 3000 of 12 000 are read in two parts, and at most 1024 decide.
    assert Mine().ceiling(12_000) == pytest.approx(math.log2(1500 * 1499))
    assert Nwj().ceiling(12_000) == pytest.approx(math.log2(1024 * 1023) + 1 / math.log(2))


def layer_without_noise():
    """30 units that tell 300 inputs apart to the last digit: infinite information."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 30, generator=generator)
    return x, torch.tanh(x @ torch.randn(30, 30, generator=generator) / math.sqrt(30))


@pytest.mark.parametrize("bound", [Mine, Nwj])
def test_a_layer_without_noise_is_flagged_as_saturated(bound):
    x, z = layer_without_noise()
    found = bound(steps=60)(z, (x[:, 0] > 0).long(), x)[bound.__name__]
    assert math.log2(300) < found.i_xz <= found.ceiling == bound().ceiling(300)
    row = {"run": 0, "epoch": 0, "layer": "tanh", "estimator": bound.__name__, "finite": True}
    metadata = {"n_samples": 300, "label_entropy": 1.0, "layers": ["tanh"]}
    plane = InformationPlane(pd.DataFrame([row | found._asdict()]), metadata)
    assert plane.flags().set_index("flag").loc["saturated", "count"] == 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_error_sees_a_critic_that_failed(bound, monkeypatch):
    of_fold = torch.tensor([7.0, 7.0, 7.0, 1.0], dtype=torch.float64)[:, None] * math.log(2)
    monkeypatch.setattr(bound, "_terms", lambda self, t: of_fold.expand(4, t.shape[1]))
    monkeypatch.setattr(bound, "_score", lambda self, t: t.sum((1, 2)))
    found = bound(steps=1).between(*laws.gaussian(1, 0.5).sample(400, 0))
    assert found == pytest.approx((5.5, 1.5))  # the folds' standard error, std / √4 = 3 / 2


def test_the_error_covers_the_spread_over_samples():
    law = laws.gaussian(1, 0.75)
    found = InfoNCE(folds=2, steps=50).many([law.sample(300, s) for s in range(16)])
    bits = torch.tensor([f.bits for f in found])
    error = sum(f.error for f in found) / len(found)
    # The spread of 16 estimates is known to 1/√30 = 18 %; folds that share samples add to it.
    assert 0.5 * error < bits.std() < 2 * error


@pytest.mark.parametrize("bound", [Mine, Nwj])
@pytest.mark.parametrize("dim", [1, 5])
def test_strong_dependence_is_found_with_an_error_that_says_how_well(bound, dim):
    law = laws.gaussian(dim, laws.correlation_for(8, dim))
    found = bound(steps=60).many([law.sample(1000, s) for s in range(2)])
    for estimate in found:
        # Finite samples lose up to a bit; uncalibrated, it is 0 with an error of 1e3 and more.
        assert estimate.bits == pytest.approx(law.bits, abs=1.2)
        assert estimate.error < 0.4


@pytest.mark.parametrize("bound", [Mine, Nwj])
def test_no_pair_is_read_as_more_than_the_pairs_of_the_validation_can_show(bound):
    generator = torch.Generator().manual_seed(0)
    t, validation = 5 * torch.randn(2, 3, 20, 20, generator=generator, dtype=torch.float64)
    t[0, 3, 4] = 300.0
    read = bound()._read(t, validation)
    off = ~torch.eye(20, dtype=torch.bool)
    # Among n(n−1) pairs whose mean e^F is 1, the largest is n(n−1).
    assert float(read.max()) <= math.log(20 * 19) + 1e-9
    again = bound()._read(validation, validation)
    assert torch.allclose(again[:, off].exp().mean(1), torch.ones(3).double())
    # A constant that the critic adds is of no account, and what lies below the cap keeps its order.
    assert torch.allclose(bound()._read(t + 100, validation + 100), read)
    assert bool((read.flatten(1).sort(stable=True)[0].diff() >= 0).all())


def test_a_critic_that_overflows_has_finite_gradients():
    for size in (60.0, 700.0, 1e5):
        t = torch.zeros(1, 10, 10, dtype=torch.float64)
        t[0, 1, 2] = size
        t.requires_grad_()
        loss, _ = Nwj()._loss(t, None)
        (slope,) = torch.autograd.grad(loss.sum(), t)
        assert loss.isfinite().all()
        assert slope.isfinite().all()
        assert slope[0, 1, 2] == slope.max() > 0


def test_critics_train_on_one_thread_and_put_the_setting_back(monkeypatch):
    seen = []
    fit = NeuralBound._fit
    monkeypatch.setattr(
        NeuralBound, "_fit", lambda *a: (seen.append(torch.get_num_threads()), fit(*a))
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Mine(steps=1).between(*laws.gaussian(1, 0.5).sample(100, 0))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def terms(bound, t):
    return bound()._terms(t).mean(1)


def test_the_terms_are_the_formulas():
    t = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off = ~torch.eye(20, dtype=torch.bool)
    joint = t.diagonal(dim1=1, dim2=2).mean(1)
    partition = torch.stack([m[off].exp().mean().log() for m in t])
    clipped = torch.stack([m[off].clamp(-5, 5).exp().mean().log() for m in t])
    assert torch.allclose(terms(Mine, t), joint - partition)
    assert torch.allclose(terms(Nwj, t), 1 + joint - partition.exp())
    assert torch.allclose(terms(Smile, t), joint - clipped)
    contrast = t.diagonal(dim1=1, dim2=2) - t.exp().mean(2).log()
    assert torch.allclose(terms(InfoNCE, t), contrast.mean(1))


@pytest.mark.parametrize("bound", [Mine, Nwj, InfoNCE])
def test_what_validation_maximises_is_the_mean_of_the_terms(bound):
    t = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(bound()._score(t), terms(bound, t))


def test_smile_is_trained_by_the_divergence_of_jensen_and_shannon():
    t = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    softplus = nn.functional.softplus
    off = ~torch.eye(6, dtype=torch.bool)
    by_hand = [-softplus(-m.diagonal()).mean() - softplus(m[off]).mean() for m in t]
    assert torch.allclose(Smile()._score(t), torch.stack(by_hand))


def test_mine_takes_the_moving_average_as_its_denominator():
    t = torch.randn(1, 10, 10, dtype=torch.float64, requires_grad=True)
    first, state = Mine()._loss(t, None)
    assert torch.allclose(torch.autograd.grad(first.sum(), t)[0].sum(), torch.tensor(0.0).double())
    loss, _ = Mine()._loss(t, state + 1.0)
    # A denominator e times as large, nine tenths of it kept.
    share = torch.autograd.grad(loss.sum(), t)[0].sum() + 1
    assert float(share) == pytest.approx(1 / (0.9 * math.e + 0.1), abs=1e-9)


def test_the_critic_starts_at_the_gaussian_density_ratio():
    pair = laws.gaussian(1, 0.6).sample(4000, 0)
    a, b = (components(s) for s in pair)
    generator = torch.Generator().manual_seed(0)
    data = Folds([(a, b)], 2, generator)
    critic = Critic(torch.full((2, 1), 0.6, dtype=torch.float64), 1, 1, generator)
    t = critic(data.train[0], data.train[1]).detach()
    u, v = data.train[0][0, :, 0], data.train[1][0, :, 0]
    r = 0.6
    expected = (r * u * v - r * r * (u * u + v * v) / 2) / (1 - r * r) - math.log(1 - r * r) / 2
    assert torch.allclose(t[0].diagonal(), expected)


def test_samples_of_a_fold_are_neither_trained_on_nor_validated_with():
    a = torch.arange(100.0).double()[:, None]
    data = Folds([(a, a)], 4, torch.Generator().manual_seed(0))
    for k in range(4):
        parts = [set(part[0][k, :, 0].abs().round(decimals=6).tolist()) for part in
                 (data.train, data.validation, data._held_out)]  # fmt: skip
        assert len(parts[0]) + len(parts[1]) <= 75
        values = [data.train[0][k, :, 0], data.validation[0][k, :, 0], data._held_out[0][k, :, 0]]
        assert len(torch.cat(values).unique()) == sum(len(v) for v in values)


@pytest.mark.parametrize("bound", BOUNDS)
def test_sparse_wide_inputs_give_a_finite_value(bound):
    generator = torch.Generator().manual_seed(0)
    words = (torch.rand(300, 1433, generator=generator) < 0.01).float()
    z = torch.relu(words @ torch.randn(1433, 50, generator=generator))
    y = (z[:, 0] > z[:, 1]).long()
    found = bound(steps=10)(z, y, x=words)[bound.__name__]
    assert all(math.isfinite(v) and v >= 0 for v in found[:4])
    assert math.isfinite(bound(steps=10).between(words, z).error)


@pytest.mark.parametrize("bound", BOUNDS)
def test_ties_and_constants(bound):
    ties = torch.randint(0, 3, (400, 2), generator=torch.Generator().manual_seed(0)).float()
    assert bound(**QUICK).between(ties, ties[:, :1]).bits > 1.0  # of log₂ 3 = 1.58
    assert bound(**QUICK).between(ties, torch.ones(400, 3)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("work", "message"),
    [(lambda: Mine(folds=1), "folds=1"),
     (lambda: Mine(batch_size=1), "batch_size=1"),
     (lambda: Mine(steps=0), "steps=0"),
     (lambda: Mine().between(torch.randn(39, 2), torch.randn(39, 2)), "40 samples .* got 39"),
     (lambda: Mine().between(torch.randn(50, 2), torch.randn(60, 2)), "same samples"),
     (lambda: Mine().between(torch.full((50, 2), math.nan), torch.randn(50, 2)), "NaN"),
     (lambda: Mine().many([(torch.randn(n, 1),) * 2 for n in (50, 60)]), r"\[50, 60\]"),
     (lambda: InfoNCE()(torch.randn(50, 2), torch.arange(50) % 2), "InfoNCE needs the network"),
     (lambda: Nwj()(torch.randn(50, 2), torch.zeros(50).long(), torch.randn(50, 2)),
      "two classes")],
)  # fmt: skip
def test_bad_input_is_named(work, message):
    with pytest.raises(ValueError, match=message):
        work()


def test_fewer_samples_than_a_batch_are_taken_whole():
    found = InfoNCE(batch_size=4096, **QUICK).between(*laws.gaussian(1, 0.9).sample(200, 0))
    assert found.bits == pytest.approx(laws.gaussian(1, 0.9).bits, abs=0.4)


def test_a_critic_without_a_finite_value_is_a_named_error(monkeypatch):
    monkeypatch.setattr(Mine, "_terms", lambda self, t: torch.full(t.shape[:2], math.nan).double())
    with pytest.raises(DivergedError, match="Mine has no finite value"):
        Mine(steps=1).between(*laws.gaussian(1, 0.5).sample(100, 0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_gpu_agrees(bound):
    a, b = laws.gaussian(2, 0.7).sample(500, 0)
    found = bound(**QUICK).between(a.cuda(), b.cuda())
    assert found.bits == pytest.approx(bound(**QUICK).between(a, b).bits, abs=1e-3)


def test_axes_are_not_turned_by_rounding():
    """Independent bits have no axes of their own; those taken must be the same anywhere."""
    noise = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for covariance in (torch.eye(12), torch.ones(12, 12) + torch.eye(12)):
        exact = covariance.double()
        values, vectors = _axes(exact)
        for sign in (-1, 1):
            again = _axes(exact + sign * 1e-15 * (noise + noise.T))
            torch.testing.assert_close(again[0], values, rtol=0, atol=1e-12)
            # 1e-15 by the 1e-9 that tells neighbours apart, with a reserve
            torch.testing.assert_close(again[1], vectors, rtol=0, atol=1e-4)
