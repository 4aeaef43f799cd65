"""Laws of the policies that read σ² off a representation, and of the histogram of distances."""

import math
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist
from scipy.special import logsumexp
from torch.utils._python_dispatch import TorchDispatchMode

from ibcore.estimators.distances import distance_histogram
from ibcore.estimators.noise import (
    MaximumLikelihood,
    Percentile,
    Proportional,
)

POLICIES = [Percentile(), Percentile(0.5, 10.0, 2), Proportional(), MaximumLikelihood()]
EXACT = 1e-4  # what the policies promise, as a share of σ²


def named(policy):
    """A name that is the same in every process: str() of a function has its address."""
    return getattr(policy, "__name__", str(policy))


every_policy = pytest.mark.parametrize("policy", POLICIES, ids=str)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(value, tolerance=EXACT):
    return pytest.approx(value, rel=tolerance)


@st.composite
def representations(draw):
    """Few samples of few dimensions that do not all agree, with ties."""
    shape = draw(st.tuples(st.integers(2, 25), st.integers(1, 4)))
    values = st.floats(-1, 1).map(lambda v: round(v, 6)) | st.sampled_from([-1.0, 0.0, 0.5])
    z = draw(hnp.arrays(np.float64, shape, elements=values).filter(lambda z: (z != z[0]).any()))
    return torch.from_numpy(z)


# Every policy


@every_policy
def test_it_returns_a_positive_python_float(policy):
    found = policy(normal(40, 3))
    assert type(found) is float
    assert found > 0


@every_policy
def test_the_order_of_samples_and_of_units_changes_nothing(policy):
    z = normal(60, 4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert policy(z[order].flip(1)) == same(policy(z))


@every_policy
def test_moving_and_turning_the_representation_changes_nothing(policy):
    z, turn = normal(60, 4), torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert policy(z @ turn + 100) == same(policy(z))


@every_policy
@pytest.mark.parametrize("factor", [1e-8, 0.3, 1e5])
def test_it_grows_as_the_square_of_the_unit_but_for_the_percentile_of_distances(policy, factor):
    z = normal(60, 4)
    assert policy(factor * z) == same(factor ** getattr(policy, "power", 2) * policy(z))


@every_policy
def test_further_dimensions_are_flattened(policy):
    z = normal(30, 12)
    assert policy(z.reshape(-1, 3, 2, 2)) == policy(z)
    assert policy(z[:, 0]) == policy(z[:, :1])


@every_policy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_float_type_gives_what_its_values_give_in_double(policy, dtype):
    z = normal(50, 3).to(dtype)
    assert policy(z) == policy(z.double())


@every_policy
def test_the_input_is_left_as_it_was_and_its_gradient_aside(policy):
    z = normal(50, 3).requires_grad_()
    before = z.detach().clone()
    assert policy(z) == policy(before)
    assert torch.equal(z, before)


@every_policy
def test_tight_clusters_far_apart_lose_no_digits(policy):
    """The likelihood and the median see within the clusters, the others across."""
    tight = 1e-3 * normal(40, 3)
    z = torch.cat([tight, tight.flip(1) + 1e4])
    reference = {
        Percentile: lambda: np.quantile(pdist(z), policy.share, method="inverted_cdf")
        ** policy.power / policy.divisor,
        Proportional: lambda: policy.fraction * np.trace(np.cov(z.T, bias=True)),
        MaximumLikelihood: lambda: best_variance(z),
    }[type(policy)]()  # fmt: skip
    assert policy(z) == same(reference)


@every_policy
@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_layer_is_refused(policy, value, dtype):
    with pytest.raises(ValueError, match=r"all 7 samples agree.*constant layer"):
        policy(torch.full((7, 3), value, dtype=dtype))


Z = torch.linspace(-1, 1, 6)[:, None]


@pytest.mark.parametrize("read", [*POLICIES, distance_histogram], ids=named)
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (Z[:0], "at least two samples, got 0"),
        (Z[:1], "at least two samples, got 1"),
        (torch.tensor(0.5), "at least two samples"),
        (Z[:, :0], r"\(6, 0\)"),
        ((10 * Z).long(), "float dtype, got torch.int64"),
        (torch.where(Z > 0, Z, torch.nan), "NaN or infinite values in 3 of its 6"),
        (torch.where(Z > 0.9, torch.inf, Z), "NaN or infinite values in 1 of its 6"),
        (torch.zeros(6, 2), "all 6 samples agree"),
    ],
)
def test_what_has_no_distances_is_refused(read, z, message):
    with pytest.raises(ValueError, match=message):
        read(z)


@every_policy
def test_it_is_frozen_and_equal_to_its_equals(policy):
    with pytest.raises(FrozenInstanceError):
        setattr(policy, next(iter(vars(policy))), 1)
    assert policy == type(policy)(**vars(policy))
    assert eval(repr(policy)) == policy


@pytest.mark.parametrize(
    ("policy", "bad"),
    [
        *((Percentile, {"share": v}) for v in (0.0, 1.0, -0.1, 90, math.nan)),
        *((Percentile, {"divisor": v}) for v in (0.0, -1.0, math.nan, math.inf)),
        *((Percentile, {"power": v}) for v in (0, 3, 1.5, -1)),
        *((Proportional, {"fraction": v}) for v in (0.0, -0.01, math.nan, math.inf)),
        *((MaximumLikelihood, {"limit": v}) for v in (1, 0, -5)),
    ],
    ids=str,
)
def test_settings_that_give_no_variance_are_refused(policy, bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name}.*{re.escape(str(value))}"):
        policy(**bad)


# Percentile


@given(representations(), st.floats(0.01, 0.99), st.sampled_from([1, 2]))
def test_the_percentile_is_a_distance_that_occurs(z, share, power):
    distances = np.sort(pdist(z))
    expected = distances[math.ceil(share * len(distances)) - 1] ** power / 1000
    if expected == 0:
        with pytest.raises(ValueError, match="of the pairs is zero"):
            Percentile(share, power=power)(z)
    else:
        assert Percentile(share, power=power)(z) == same(expected)


@pytest.mark.parametrize("n", [1023, 1025, 2500])
def test_the_percentile_counts_each_pair_once_whatever_the_tiles(n):
    z = normal(n, 5)
    expected = np.quantile(pdist(z), 0.9, method="inverted_cdf") / 1000
    assert Percentile()(z) == same(expected, 1e-5)


def test_one_sample_far_away_leaves_the_percentile_as_fine_as_before():
    z = normal(200, 3)
    z[0] = 1e9
    expected = np.quantile(pdist(z), 0.9, method="inverted_cdf") / 1000
    assert 1e-4 < expected < 1e-2
    assert Percentile()(z) == same(expected)


def test_the_divisor_divides():
    z = normal(50, 2)
    assert Percentile(divisor=0.5)(z) == pytest.approx(2000 * Percentile()(z), rel=1e-12)
    assert Percentile(divisor=10.0)(z) == pytest.approx(100 * Percentile()(z), rel=1e-12)
    assert Percentile(power=2)(z) == same(1000 * Percentile()(z) ** 2, 1e-12)


def test_where_nearly_all_samples_agree_the_percentile_says_so():
    z = torch.zeros(100, 2)
    z[0] = 1.0  # 2 % of the pairs are apart
    with pytest.raises(ValueError, match="90% of the pairs is zero"):
        Percentile()(z)
    assert Percentile(0.99)(z) == same(2**0.5 / 1000)


# Proportional


@given(representations())
def test_the_total_variance_is_half_the_mean_squared_distance(z):
    pairs = 2 * (pdist(z) ** 2).sum() / len(z) ** 2
    assert Proportional(0.2)(z) == same(0.2 * pairs / 2, 1e-9)


@pytest.mark.parametrize("times", [2, 5])
def test_repeating_every_unit_multiplies_variance_and_squares_alike(times):
    z = normal(40, 3)
    assert Proportional()(z.repeat(1, times)) == same(times * Proportional()(z), 1e-12)
    assert Percentile(power=2)(z.repeat(1, times)) == same(times * Percentile(power=2)(z))


# Maximum likelihood


def log_likelihood(squares, dim, variance):
    """Σᵢ ln (1/(N−1)) Σ_{j≠i} N(zᵢ; zⱼ, σ² I), from the squares with infinity on the diagonal."""
    exponents = -squares / (2 * variance) - dim / 2 * math.log(2 * math.pi * variance)
    return (logsumexp(exponents, axis=1) - math.log(len(squares) - 1)).sum()


def best_variance(z):
    """The maximum, from a fine grid and then Brent's method between its neighbours."""
    z = z.double().flatten(1)
    squares = (z[:, None] - z).square().sum(-1).fill_diagonal_(math.inf).numpy()
    finite = squares[(squares > 0) & np.isfinite(squares)] / z.shape[1]
    grid = np.linspace(math.log(finite.min()) - 5, math.log(finite.max()) + 1, 400)

    def loss(log_variance):
        return -log_likelihood(squares, z.shape[1], math.exp(log_variance))

    best = int(np.argmin([loss(x) for x in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp(
        minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    )


def clusters(n, dim, tight, apart):
    """Pairs of near copies whose places are drawn widely: two scales."""
    places = apart * normal(n // 2, dim)
    return torch.cat([places, places + tight * normal(n // 2, dim, seed=1)])


@pytest.mark.parametrize(
    "z",
    [
        normal(2, 1), normal(3, 2), normal(120, 1), normal(120, 10), normal(120, 300),
        normal(120, 2) ** 3, clusters(60, 2, 1e-2, 1.0), clusters(60, 2, 1e-5, 1.0),
        torch.cat([normal(30, 2), normal(30, 2)[:29]]), torch.relu(normal(60, 2) - 1),
        torch.arange(40.0)[:, None], 1e-9 * normal(50, 3), 1e9 * normal(50, 3),
    ],
    ids=[
        "two", "three", "one dimension", "ten", "three hundred", "long tails", "near copies",
        "nearer copies", "all but one copied", "mostly zero", "a grid", "tiny", "huge",
    ],
)  # fmt: skip
def test_no_other_variance_is_more_likely(z):
    assert MaximumLikelihood()(z) == same(best_variance(z))


def test_of_two_maxima_it_takes_the_higher():
    """Ten pairs: one maximum at the distance within a pair, one at that between their places."""
    tight, loose = clusters(20, 1, 0.1, 1.0), clusters(20, 1, 0.105, 1.0)
    small, large = MaximumLikelihood()(tight), MaximumLikelihood()(loose)
    assert small == same(best_variance(tight))
    assert large == same(best_variance(loose))
    assert large > 50 * small


def test_two_samples_have_their_closed_form():
    """ln N(d; 0, σ² I) is highest at σ² = ‖d‖² / dim."""
    z = torch.tensor([[0.0, 0.0, 1.0], [2.0, 1.0, 1.0]])
    assert MaximumLikelihood()(z) == same(5 / 3)


def test_samples_that_are_equally_far_apart_have_their_closed_form():
    """The corners of a simplex: each squared distance is 2, whatever the weights."""
    assert MaximumLikelihood()(torch.eye(20)) == same(2 / 20)


def test_the_kernel_of_a_normal_density_has_the_order_of_the_known_rule():
    """Least mean squared error is at σ = 1.06 N^(−1/5) (Silverman); likelihood lies near it."""
    found = [MaximumLikelihood()(normal(1000, 1, seed=seed)) ** 0.5 for seed in range(3)]
    assert 0.5 < np.mean(found) / (1.06 * 1000**-0.2) < 2


def test_more_samples_take_less_noise():
    found = [MaximumLikelihood()(normal(n, 2)) for n in (50, 200, 800)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.5 * found[2]


def test_above_the_limit_evenly_spaced_rows_stand_for_all():
    z = normal(1001, 2)
    assert MaximumLikelihood(limit=101)(z) == MaximumLikelihood()(z[::10])
    assert MaximumLikelihood(limit=1001)(z) == MaximumLikelihood(limit=5000)(z)


@pytest.mark.parametrize("dim", [1, 3, 100])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_copies_of_every_sample_have_no_maximum(dim, offset):
    z = (normal(30, dim) + offset).repeat(2, 1)
    with pytest.raises(ValueError, match="each of the 60 samples has an exact copy"):
        MaximumLikelihood()(z)
    assert MaximumLikelihood()(z[:-1]) > 0


# The histogram of distances


@given(representations(), st.integers(1, 50), st.sampled_from([1, 2]))
def test_the_shares_are_those_of_all_pairs_and_sum_to_one(z, bins, power):
    shares, edges = distance_histogram(z, bins, power)
    distances = pdist(z) ** power
    assert shares.shape == (bins,)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert edges == pytest.approx(np.linspace(0, distances.max(), bins + 1), rel=1e-6)
    # Values on an edge may fall to either side of it.
    slack = 1e-6 * edges[-1]
    for k, edge in enumerate(edges[1:-1], 1):
        below = shares[:k].sum() + 1e-12
        assert (distances < edge - slack).mean() <= below
        assert (distances <= edge + slack).mean() >= below - 2e-12


@pytest.mark.parametrize("power", [1, 2])
def test_the_histogram_counts_each_pair_once_whatever_the_tiles(power):
    z = normal(1500, 3)
    shares, edges = distance_histogram(z, power=power)
    counts, expected = np.histogram(pdist(z) ** power, 100)[0], len(z) * (len(z) - 1) // 2
    distances = pdist(z) ** power
    counts = np.histogram(distances, np.linspace(0, distances.max(), 101))[0]
    assert np.abs(shares * expected - counts).max() <= 2  # rounding at the edges
    assert len(edges) == 101


def test_the_histogram_of_three_samples_is_known():
    z = torch.tensor([0.0, 1.5, 4.0])  # distances 1.5, 2.5 and 4
    shares, edges = distance_histogram(z, bins=4)
    assert shares.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert edges.tolist() == pytest.approx([0, 1, 2, 3, 4])
    shares, edges = distance_histogram(z, bins=4, power=2)
    assert shares.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert edges.tolist() == pytest.approx([0, 4, 8, 12, 16])


@pytest.mark.parametrize(("bins", "power"), [(0, 1), (-3, 1), (10, 0), (10, 3)])
def test_no_bins_and_other_powers_are_refused(bins, power):
    with pytest.raises(ValueError, match=f"bins.*power.*got {bins} and {power}"):
        distance_histogram(normal(5, 2), bins, power)


class LargestTensor(TorchDispatchMode):
    """Watches the size of every tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize(
    "read", [Percentile(), Proportional(), MaximumLikelihood(100), distance_histogram], ids=named
)
def test_never_are_all_distances_held(read):
    z = normal(5000, 2)
    with LargestTensor() as largest:
        read(z)
    assert 0 < largest.numel < 5000**2 / 20
