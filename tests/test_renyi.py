import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibcore.discrete import label_entropy
from ibcore.estimators import Renyi
from ibcore.trials import distributions as laws


def sample(n=300, dim=3, seed=0):
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z, (z[:, 0] > 0).long()


def by_eigenvalues(kernel, alpha):
    values = torch.linalg.eigvalsh(kernel / len(kernel)).clamp(min=0)
    return math.log2(float(values.pow(alpha).sum())) / (1 - alpha)


def gaussian_kernel(z):
    square = float(z.var(0, unbiased=False).sum()) / 2
    return torch.exp(-torch.cdist(z, z).square() / (2 * square))


@pytest.mark.parametrize("alpha", [0.5, 1.01, 2.0, 3.0])
def test_the_definition_is_that_of_the_eigenvalues(alpha):
    a, y = sample()
    b = a[:, :2] + 0.5 * sample(seed=1)[0][:, :2]
    k_a, k_b, k_y = gaussian_kernel(a), gaussian_kernel(b), (y[:, None] == y).double()
    s_a, s_b, s_y, s_ab, s_by = (
        by_eigenvalues(k, alpha) for k in (k_a, k_b, k_y, k_a * k_b, k_b * k_y)
    )
    # Below 1 the eigenvalues that are mere rounding count for something.
    near = {"abs": 1e-4 if alpha < 1 else 1e-6}
    assert Renyi(alpha).between(a, b).bits == pytest.approx(s_a + s_b - s_ab, **near)
    found = Renyi(alpha)(b, y, x=a)["Renyi"]
    assert found[:2] == pytest.approx((s_a + s_b - s_ab, s_b + s_y - s_by), **near)
    # All eigenvalues: what is left is rounding, less than the difference allowed above.
    assert 0 <= found.i_xz_error < near["abs"]
    assert 0 <= found.i_zy_error < near["abs"]


def test_more_samples_than_a_tile_has_agree_with_one_matrix():
    a, y = sample(1100, 2)
    k_a, k_y = gaussian_kernel(a), (y[:, None] == y).double()
    s_a, s_y, s_ay = (-math.log2(float((k / 1100).square().sum())) for k in (k_a, k_y, k_a * k_y))
    found = Renyi(2.0)(a, y, x=a)["Renyi"]
    assert found.i_zy == pytest.approx(s_a + s_y - s_ay, abs=1e-6)
    assert Renyi(2.0).entropy(a).bits == pytest.approx(s_a, abs=1e-6)


def test_far_samples_have_log_n_bits_and_equal_ones_none():
    z, y = sample()
    assert Renyi(width=1e-6).entropy(z).bits == pytest.approx(math.log2(300))
    assert Renyi(width=1.0).entropy(torch.ones(50, 2)).bits == pytest.approx(0.0, abs=1e-9)
    found = Renyi(width=1e-6)(z, y, x=z)["Renyi"]
    collision = -math.log2(float((y.bincount().double() / 300).square().sum()))
    assert found.i_zy == pytest.approx(collision)
    assert found.i_zy <= label_entropy(y)


@pytest.mark.parametrize("dims", [(1, 1), (5, 5), (12, 3)])
def test_probes_agree_with_all_eigenvalues(dims):
    law = laws.gaussian(max(dims), 0.6)
    a, b = law.sample(900, 0)
    a, b = a[:, : dims[0]], b[:, : dims[1]]
    truth = Renyi(1.01).between(a, b)
    found = Renyi(1.01, limit=512).between(a, b)
    assert 0 < found.error < 0.1
    assert abs(found.bits - truth.bits) < 4 * found.error + 1e-3
    assert found.bits == pytest.approx(truth.bits, rel=0.01, abs=0.02)


def test_sparse_wide_samples_by_probes():
    words = (torch.rand(800, 400, generator=torch.Generator().manual_seed(0)) < 0.02).double()
    truth, found = (Renyi(1.01, limit=n).between(words, words[:, :40] + 0.0) for n in (1024, 512))
    assert found.bits == pytest.approx(truth.bits, rel=0.01, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.7, 1.01, 2.0]), st.floats(0.01, 100))
def test_units_order_and_sides_do_not_matter(seed, alpha, unit):
    z, y = sample(60, 2, seed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    x = z[:, :1] ** 2
    estimator = Renyi(alpha)
    found = estimator(z, y, x=x)["Renyi"]
    again = estimator(unit * z[order], y[order], x=x[order])["Renyi"]
    # Below 1 eigenvalues of rounding's size, 1e-14, count as (1e-14)^α each.
    assert again[:2] == pytest.approx(found[:2], abs=1e-6)
    assert estimator.between(x, z).bits == pytest.approx(found.i_xz, abs=1e-9)
    assert 0 <= estimator.entropy(z).bits <= math.log2(60)
    assert found.i_xz <= min(estimator.entropy(z).bits, estimator.entropy(x).bits) + 1e-9


def test_seeds_reproduce_and_labels_may_be_any_integers():
    a, y = sample(700)
    probed = Renyi(1.01, limit=512)
    first, second = probed.between(a, a[:, :1]), probed.between(a, a[:, :1])
    assert first == pytest.approx(second, abs=1e-9)  # sums may follow where in memory samples lie
    assert first.error == pytest.approx(second.error, abs=1e-9)
    assert first.bits != pytest.approx(
        Renyi(1.01, limit=512, seed=1).between(a, a[:, :1]).bits, abs=1e-6
    )
    assert Renyi()(a, 10 - 7 * y, x=a) == Renyi()(a, y, x=a)


def test_single_precision_and_other_layouts_agree():
    a, y = sample()
    single = a.float()
    of_single, of_double = (Renyi()(z, y, x=z)["Renyi"][:2] for z in (single, single.double()))
    # Distances of float32 samples are formed in float64: rounding of the sums is left.
    assert of_single == pytest.approx(of_double, abs=1e-6)
    columns = a.T.contiguous().T
    # The order of a sum may follow the layout.
    assert Renyi()(columns, y, x=columns)["Renyi"][:2] == pytest.approx(
        Renyi()(a, y, x=a)["Renyi"][:2], abs=1e-9
    )


def test_probes_give_their_error_to_the_estimate():
    a, y = sample(700)
    found = Renyi(1.01, limit=512)(a, y, x=a)["Renyi"]
    truth = Renyi(1.01)(a, y, x=a)["Renyi"]
    assert found.i_xz_error > truth.i_xz_error
    # Four standard errors of the probes.
    assert abs(found.i_xz - truth.i_xz) < 4 * found.i_xz_error
    assert abs(found.i_zy - truth.i_zy) < 4 * found.i_zy_error


@pytest.mark.slow
def test_a_driver_that_stops_does_not_stop_the_estimate(monkeypatch):
    a, y = sample(600)
    estimators = [Renyi(1.01), Renyi(1.01, limit=512)]
    before = [e(a, y, x=a)["Renyi"][:2] for e in estimators]

    def stops(_):
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", stops)
    monkeypatch.setattr(torch.linalg, "eigvalsh", stops)
    for estimator, bits in zip(estimators, before, strict=True):
        # Eigenvectors differ in sign and within clusters, which probes in float32 round otherwise.
        assert estimator(a, y, x=a)["Renyi"][:2] == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize(
    ("work", "message"),
    [(lambda: Renyi(1.0), "take 1.01"),
     (lambda: Renyi(-1.0), "got -1.0"),
     (lambda: Renyi(width=0.0), "width must be positive, got 0.0"),
     (lambda: Renyi(limit=10), "at least 512 samples, got 10"),
     (lambda: Renyi().entropy(torch.ones(50, 2)), "all the same"),
     (lambda: Renyi().entropy(torch.full((5, 2), math.nan)), "NaN"),
     (lambda: Renyi().between(sample(10)[0], sample(20)[0]), "same samples"),
     (lambda: Renyi()(sample(10)[0], torch.zeros(10).long()), "two classes"),
     (lambda: Renyi()(*sample(10)), "Renyi needs the network's inputs")],
)  # fmt: skip
def test_bad_input_is_named(work, message):
    with pytest.raises(ValueError, match=message):
        work()
