import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from scipy.stats import binom, nbinom, norm
from sklearn.feature_selection._mutual_info import _compute_mi_cc, _compute_mi_cd

from ibcore.discrete import label_entropy, plug_in
from ibcore.estimators import Ksg
from ibcore.trials import distributions as laws


def pair(n=500, seed=0):
    a, b = laws.gaussian(1, 0.7).sample(n, seed)
    return a, b


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_definition_is_that_of_scikit_learn(k, seed):
    a, b = pair(seed=seed)
    found = Ksg(k, ranks=False).between(a, b).bits * math.log(2)
    assert found == pytest.approx(_compute_mi_cc(a[:, 0].numpy(), b[:, 0].numpy(), k), abs=1e-9)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_labels_are_as_in_scikit_learn(k):
    a, b = pair()
    y = (b[:, 0] > 0).long() + (b[:, 0] > 1).long()
    found = Ksg(k, ranks=False).label(a, y).bits * math.log(2)
    assert found == pytest.approx(_compute_mi_cd(a[:, 0].numpy(), y.numpy(), k), abs=1e-9)


def by_hand(a, b, k):
    near_a, near_b = (np.abs(s[:, None] - s[None]).max(2) for s in (a, b))
    both = np.maximum(near_a, near_b)
    radius = np.sort(both, 1)[:, k][:, None]
    n_a, n_b = ((near < radius).sum(1) for near in (near_a, near_b))
    return float(digamma(len(a)) + digamma(k) - (digamma(n_a) + digamma(n_b)).mean())


@pytest.mark.parametrize("dims", [(2, 3), (9, 1), (8, 7)])  # the last without a tree
def test_many_dimensions_agree_with_the_formula(dims):
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((300, d)) for d in dims)
    b[:, 0] += a[:, 0]
    found = Ksg(4, ranks=False).between(torch.tensor(a), torch.tensor(b)).bits * math.log(2)
    assert found == pytest.approx(by_hand(a, b, 4), abs=1e-9)


@pytest.mark.parametrize(
    "law",
    [laws.gaussian(1, 0.75), laws.gaussian(2, 0.6), laws.additive(0.75), laws.student(1, 0.5, 1)],
    ids=lambda w: w.name,
)
def test_laws_are_found(law):
    found = [Ksg().between(*law.sample(2000, s)) for s in range(3)]
    assert np.mean([f.bits for f in found]) == pytest.approx(law.bits, abs=0.06)
    assert 0 < found[0].error < 0.06


@pytest.mark.parametrize("law", [laws.symmetric(0.1), laws.erasure(0.3)], ids=lambda w: w.name)
def test_discrete_channels_get_their_plug_in_information(law):
    a, b = law.sample(3000, 0)
    labels = b.long()[:, 0]
    truth = plug_in(a.long()[:, 0], labels).i_zy
    assert truth == pytest.approx(law.bits, abs=0.04)
    # ψ(n) lies 1/2n below log n: up to 6 cells, 3 and 2 values leave 2/2N nats, 0.0005 bits
    assert Ksg().between(a, b).bits == pytest.approx(truth, abs=0.002)
    assert Ksg().label(a, labels).bits == pytest.approx(truth, abs=0.002)


def test_copies_of_few_values_hold_their_entropy():
    y = torch.arange(600) % 4
    z = y.double()[:, None] * torch.ones(1, 3)
    assert Ksg()(z, y, x=z)["Ksg"][:2] == pytest.approx((2.0, 2.0), abs=0.01)


def test_independence_is_about_zero():
    found = [Ksg().between(*laws.independent(2, 2).sample(1000, s)).bits for s in range(5)]
    assert abs(np.mean(found)) < 0.03


def test_a_constant_layer_holds_nothing():
    a, _ = pair()
    assert Ksg().between(a, torch.ones(500, 2)).bits == pytest.approx(0.0, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 6))
def test_order_side_and_units_do_not_matter(seed, dim, k):
    a, b = laws.gaussian(dim, 0.6).sample(60, seed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    found = Ksg(k).between(a, b).bits
    assert Ksg(k).between(b, a).bits == pytest.approx(found, abs=1e-9)
    assert Ksg(k).between(a[order], b[order]).bits == pytest.approx(found, abs=1e-9)
    assert Ksg(k).between(1e3 * a.exp(), b.atan()).bits == pytest.approx(found, abs=1e-9)


def test_single_precision_and_other_layouts_agree():
    a, b = pair()
    single = a.float()
    assert Ksg().between(single, b) == Ksg().between(single.double(), b)
    wide = torch.cat([a, b], 1)
    assert Ksg().between(wide[:, :1], wide[:, 1:]) == Ksg().between(a, b)


def test_a_class_of_one_is_left_out_and_a_small_one_uses_what_it_has():
    a, b = pair(200)
    y = (b[:, 0] > 0).long()
    y[0], y[1], y[2] = 7, 8, 8
    found = Ksg(5, ranks=False).label(a, y).bits * math.log(2)
    assert found == pytest.approx(_compute_mi_cd(a[:, 0].numpy(), y.numpy(), 5), abs=1e-9)
    assert found / math.log(2) < label_entropy(y)


@pytest.mark.parametrize(
    ("work", "message"),
    [(lambda: Ksg(0), "at least 1, got 0"),
     (lambda: Ksg(5).between(*pair(5)), "5 neighbours need more samples than that, got 5"),
     (lambda: Ksg()(pair()[0], torch.arange(500) % 2), "Ksg needs the network's inputs"),
     (lambda: Ksg().between(pair(10)[0], pair(20)[0]), "same samples"),
     (lambda: Ksg().between(torch.full((9, 1), math.nan), torch.randn(9, 1)), "NaN"),
     (lambda: Ksg().label(torch.randn(9, 1), torch.zeros(9).long()), "two classes"),
     (lambda: Ksg().between(*[torch.arange(6.0)[:, None] // 2] * 2), "got 3 that are no copies"),
     (lambda: Ksg().label(torch.randn(9, 1), torch.arange(9)), "alone in its class")],
)  # fmt: skip
def test_bad_input_is_named(work, message):
    with pytest.raises(ValueError, match=message):
        work()


def draw(seed=0):
    return np.random.default_rng(seed)


def bits(dim, n=1000, seed=0):
    return draw(seed).integers(2, size=(n, dim)).astype(float)


def words(n=600, seed=0):
    return (draw(seed).random((n, 100)) < draw(seed).uniform(0.005, 0.05, 100)).astype(float)


def counts(dim, n=1000, seed=0):
    return draw(seed).poisson(3, (n, dim)).astype(float)


def relu(dim, n=1000, seed=0):
    return np.maximum(draw(seed).standard_normal((n, dim)) - 1, 0)


# Limits: four standard errors of one estimate, measured over seeds: 0.03 to 0.05 bits each.
@pytest.mark.parametrize(
    "draw_side", [lambda s: bits(12, seed=s), lambda s: words(seed=s), lambda s: counts(3, seed=s),
                  lambda s: relu(10, seed=s), lambda s: np.eye(50)[draw(s).integers(50, size=600)]],
    ids=["bits", "words", "counts", "relu", "one-hot"],
)  # fmt: skip
def test_ties_that_know_nothing_of_each_other_hold_nothing(draw_side):
    a, b = (torch.tensor(draw_side(s)) for s in (0, 1))
    normal = torch.tensor(draw(2).standard_normal((len(a), 3)))
    lot = torch.tensor(draw(3).integers(3, size=len(a)))
    for ranks in (True, False):
        estimator = Ksg(ranks=ranks)
        found = [estimator.between(a, b), estimator.between(a, normal), estimator.label(a, lot)]
        assert [f.bits for f in found] == pytest.approx([0.0] * 3, abs=0.2)


def sum_of_bits():
    a, t = bits(6), np.linspace(-3, 9, 12001)
    p = sum(binom.pmf(c, 6, 0.5) * norm.pdf(t, c, 0.25) for c in range(7))
    truth = -(p * np.log2(p)).sum() * (t[1] - t[0]) - norm(0, 0.25).entropy() / math.log(2)
    return a, a.sum(1, keepdims=True) + 0.25 * draw(1).standard_normal((1000, 1)), truth


def parity():
    return bits(6), bits(6).sum(1, keepdims=True) % 2, 1.0


def common_counts():
    """Poisson counts of one rate, which is drawn from a gamma law: negative multinomial."""
    rate, c = draw().gamma(2, 5, (1000, 1)), np.arange(150)
    i, j = np.meshgrid(c, c)
    joint = nbinom.pmf(i + j, 2, 1 / 11) * binom.pmf(i, i + j, 0.5)
    entropies = [-(p[p > 0] * np.log2(p[p > 0])).sum() for p in (joint.sum(0), joint.ravel())]
    return draw(1).poisson(rate), draw(2).poisson(rate), 2 * entropies[0] - entropies[1]


def rectified():
    """A unit of weight 1, noise 0.3 and threshold 1, against its input: E log p(b|a) / p(b)."""
    a, lot = draw().standard_normal((2, 2000, 1))
    h, more = draw(9).standard_normal((2, 200_000))
    b, wide = h - 1 + 0.3 * more, math.sqrt(1.09)
    on = norm.logpdf(b, h - 1, 0.3) - norm.logpdf(b, -1, wide)
    off = norm.logcdf((1 - h) / 0.3) - norm.logcdf(1 / wide)
    return a, np.maximum(a - 1 + 0.3 * lot, 0), np.where(b > 0, on, off).mean() / math.log(2)


def inflated():
    """Both are 0 with probability 0.6: that is one source of information, the rest another."""
    a, b = (s.numpy() for s in laws.gaussian(1, 0.75).sample(1000, 0))
    on = draw(1).random((1000, 1)) < 0.4
    truth = laws.symmetric(0.4)
    return a * on, b * on, (1 - truth.bits) + 0.4 * laws.gaussian(1, 0.75).bits


def one_hot():
    y, t = draw().integers(7, size=1000), np.linspace(-6, 12, 18001)
    each = np.stack([norm.pdf(t, c) for c in range(7)])
    truth = (each / 7 * np.log2(each / each.mean(0))).sum() * (t[1] - t[0])
    return np.eye(7)[y], (y + draw(1).standard_normal(1000))[:, None], truth


def grid():
    a, b = laws.gaussian(1, 0.75).sample(2000, 0)
    return (a * 20).round() / 20, (b * 20).round() / 20, laws.gaussian(1, 0.75).bits


@pytest.mark.parametrize(
    "law", [sum_of_bits, parity, common_counts, rectified, inflated, one_hot, grid]
)
def test_ties_that_know_something_are_found(law):
    a, b, truth = law()
    found = Ksg().between(torch.as_tensor(a).double(), torch.as_tensor(b).double())
    # its own error, and a bias of up to 0.05 bits that k = 3 has here
    assert found.bits == pytest.approx(truth, abs=3 * found.error + 0.05)


def test_labels_of_values_on_a_grid_are_found():
    y, step = draw().integers(3, size=2000), 0.5
    z = draw(1).standard_normal((2000, 3))
    z[:, 0] += y
    edges = np.arange(-30, 40) * step - step / 2
    p = np.diff(norm.cdf(edges - np.arange(3)[:, None])) / 3
    ratio = p / p.sum(0).clip(1e-300) * 3
    truth = (p * np.log2(np.where(p > 0, ratio, 1))).sum()
    found = Ksg().label(torch.tensor(np.round(z / step) * step), torch.tensor(y))
    assert found.bits == pytest.approx(truth, abs=3 * found.error + 0.05)


@pytest.mark.parametrize("times", [2, 3])
def test_a_copied_sample_counts_once(times):
    a, b = pair()
    again = [torch.cat([s] * times) for s in (a, b)]
    assert Ksg().between(*again).bits == pytest.approx(Ksg().between(a, b).bits, abs=1e-9)
    some = [torch.cat([s, s[:50]]) for s in (a, b)]
    # ranks with some samples twice are other ranks
    assert Ksg().between(*some).bits == pytest.approx(Ksg().between(a, b).bits, abs=0.05)


def test_order_and_units_do_not_matter_with_ties():
    a, b, y = (torch.tensor(s) for s in (bits(8), relu(3), draw().integers(3, size=1000)))
    order = torch.tensor(draw().permutation(1000))
    for found, other in (
        (Ksg().between(a, b), Ksg().between(a[order], b[order])),
        (Ksg().between(a, b), Ksg().between(7 * a - 2, b.expm1())),
        (Ksg().between(a, b), Ksg().between(a.float(), b)),
        (Ksg().label(a, y), Ksg().label(a[order], y[order])),
        (Ksg().label(b, y), Ksg().label(10 * b, y)),
        (Ksg(ranks=False).between(a, b), Ksg(ranks=False).between(a * 2**-20, b * 2**-20)),
    ):
        assert other.bits == pytest.approx(found.bits, abs=1e-6)  # the contract's rounding
    assert Ksg().between(b, a).bits == pytest.approx(Ksg().between(a, b).bits, abs=0.1)  # by lot


def test_copies_of_one_side_are_samples_like_others():
    """B determines A, and half of its values come twice, so that A is 0 in two of three samples."""
    low, high = draw().random((2, 500, 1))
    b = torch.tensor(np.concatenate([low - 1, low - 1, high]))
    a, truth = (b > 0).double(), label_entropy(b[:, 0] > 0)
    assert Ksg().between(a, b).bits == pytest.approx(truth, abs=0.02)  # collapsed it would be 1.00
    assert Ksg().between(b, a).bits == pytest.approx(truth, abs=0.02)


def test_one_tie_moves_only_what_is_tied():
    """Values that lie closer than the lot is wide stay where they are, but for the two tied."""
    a = 1e-5 * pair(1000)[0]
    a[:2] = 1.0
    b = a + 1e-7 * torch.tensor(draw().standard_normal((1000, 1)))
    found = Ksg(ranks=False).between(a, b).bits * math.log(2)
    assert found == pytest.approx(by_hand(a.numpy(), b.numpy(), 3), abs=0.05)  # 2 of 1000, by 10


def test_tied_values_that_lie_close_for_their_range_are_told_apart():
    level = draw().integers(20, size=(1000, 1))
    a, b = 1e-4 * level, 1e-4 * (level + 0.1 * draw(1).standard_normal((1000, 1)))
    a[:2] = 1.0
    found = Ksg(ranks=False).between(torch.tensor(a), torch.tensor(b))
    assert found.bits == pytest.approx(math.log2(20), abs=0.1)


def test_wide_sparse_inputs_are_finite():
    words = (torch.rand(400, 1433, generator=torch.Generator().manual_seed(0)) < 0.01).float()
    found = Ksg()(words[:, :50] @ torch.ones(50, 2), torch.arange(400) % 3, x=words)["Ksg"]
    assert all(math.isfinite(v) for v in found[:4])
