"""Each law has the information that it states, and draws what it says."""

import math
from dataclasses import FrozenInstanceError
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from ibcore.checks import check_samples
from ibcore.trials import distributions as laws

every_law = pytest.mark.parametrize("law", laws.STANDARD, ids=lambda law: law.name)


def joint_matrix(dim, correlation):
    """The covariance, or scale, of (A, B) as one vector."""
    return np.kron([[1, correlation], [correlation, 1]], np.eye(dim))


def integrated_bits(joint, marginal):
    """I(A;B) of one plus one dimension from log densities, by the double exponential rule.

    A sum over x = sinh(π/2 sinh s), s evenly spaced: tails of any weight fall off fast in s.
    """
    s = np.linspace(-3.6, 3.6, 721)
    x = np.sinh(np.pi / 2 * np.sinh(s))
    weight = np.pi / 2 * np.cosh(s) * np.cosh(np.pi / 2 * np.sinh(s)) * (s[1] - s[0])
    both = joint(np.stack(np.meshgrid(x, x, indexing="ij"), -1))
    ratio = both - marginal(x)[:, None] - marginal(x)[None, :]
    return float(np.einsum("i,j,ij->", weight, weight, np.exp(both) * ratio)) / math.log(2)


def drawn_bits(law, joint, marginal, n=20_000):
    """The mean of log₂ p(a,b) / p(a) p(b) over samples of the law, and its standard error."""
    a, b = (x.numpy() for x in law.sample(n, seed=0))
    bits = (joint(np.hstack([a, b])) - marginal(a) - marginal(b)) / math.log(2)
    return bits.mean(), bits.std() / math.sqrt(n)


def counted_bits(a, b):
    """Plug-in information of two discrete samples, and the standard error of its mean."""
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    table.index_put_((a[:, 0].long(), b[:, 0].long()), torch.tensor(1.0 / len(a)).double(), True)
    ratio = table / table.sum(1, keepdim=True) / table.sum(0)
    each = ratio[a[:, 0].long(), b[:, 0].long()].log2()
    return float(each.mean()), float(each.std()) / math.sqrt(len(a))


# What each law states


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.75, 0.99])
def test_gaussian_states_the_integral_of_its_density(correlation):
    joint = stats.multivariate_normal(cov=joint_matrix(1, correlation)).logpdf
    bits = integrated_bits(joint, stats.norm.logpdf)
    assert laws.gaussian(1, correlation).bits == pytest.approx(bits, abs=1e-9)


@given(st.integers(1, 100), st.floats(-0.999, 0.999))
def test_information_of_independent_pairs_adds_up(dim, correlation):
    one = laws.gaussian(1, correlation).bits
    assert laws.gaussian(dim, correlation).bits == pytest.approx(dim * one, rel=1e-12)


@given(st.floats(1e-6, 100), st.integers(10, 100))
def test_correlation_for_gives_the_bits_that_were_asked_for(bits, dim):
    correlation = laws.correlation_for(bits, dim)
    assert laws.gaussian(dim, correlation).bits == pytest.approx(bits, rel=1e-6)


def test_twenty_dimensions_hold_four_nats():
    law = laws.STANDARD[-1]
    assert law.name == "Gaussian, d = 20"
    assert law.bits * math.log(2) == pytest.approx(4, abs=1e-12)
    assert laws.correlation_for(law.bits, 20) == pytest.approx(math.sqrt(1 - math.exp(-0.4)))
    assert laws.correlation_for(0, 20) == 0


@pytest.mark.parametrize("freedom", [1, 2, 3, 7.5])
@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.9])
def test_student_states_the_integral_of_its_density(freedom, correlation):
    joint = stats.multivariate_t(shape=joint_matrix(1, correlation), df=freedom).logpdf
    bits = integrated_bits(joint, stats.t(freedom).logpdf)
    assert laws.student(1, correlation, freedom).bits == pytest.approx(bits, abs=1e-9)


@given(st.integers(1, 10), st.floats(0.1, 50))
def test_student_without_correlation_holds_information_and_more_with_heavier_tails(dim, freedom):
    assert laws.student(dim, 0, freedom).bits > laws.student(dim, 0, 1.1 * freedom).bits > 0


def test_student_of_many_degrees_of_freedom_is_gaussian():
    assert laws.student(3, 0.6, 1e7).bits == pytest.approx(laws.gaussian(3, 0.6).bits, abs=1e-6)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.4, 0.5, 0.6, 0.75, 3.0])
def test_additive_states_the_integral_of_its_density(width):
    """B has the density of the part of (b − ε, b + ε) that lies in (0, 1), over 2ε."""

    def surprise(b):
        p = (min(b + width, 1) - max(b - width, 0)) / (2 * width)
        return -p * math.log2(p) if p > 0 else 0.0

    corners = sorted({-width, min(width, 1 - width), max(width, 1 - width), 1 + width})
    h_b = sum(integrate.quad(surprise, *piece)[0] for piece in pairwise(corners))
    assert laws.additive(width).bits == pytest.approx(h_b - math.log2(2 * width), abs=1e-9)


@given(st.floats(0.001, 0.999))
def test_the_channels_state_what_their_matrices_give(p):
    flips = np.array([[1 - p, p], [p, 1 - p]]) / 2
    losses = np.array([[1 - p, 0, p], [0, 1 - p, p]]) / 2
    for law, joint in ((laws.symmetric(p), flips), (laws.erasure(p), losses)):
        both = stats.entropy(joint.ravel(), base=2)
        bits = stats.entropy(joint.sum(1), base=2) + stats.entropy(joint.sum(0), base=2) - both
        assert law.bits == pytest.approx(bits, abs=1e-12)


def test_sure_channels():
    assert laws.symmetric(0).bits == laws.symmetric(1).bits == laws.erasure(0).bits == 1
    assert laws.symmetric(0.5).bits == laws.erasure(1).bits == 0


# What each law draws


@pytest.mark.parametrize(
    ("dim", "correlation"), [(1, 0.75), (5, -0.5), (20, laws.correlation_for(5.77, 20))]
)
def test_samples_of_the_gaussian_hold_what_it_states(dim, correlation):
    law = laws.gaussian(dim, correlation)
    joint = stats.multivariate_normal(cov=joint_matrix(dim, correlation)).logpdf
    bits, error = drawn_bits(law, joint, lambda x: stats.norm.logpdf(x).sum(1))
    assert abs(law.bits - bits) < 4 * error
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("dim", "correlation", "freedom"), [(1, 0.5, 1), (2, 0.5, 2), (2, 0, 3), (5, -0.3, 4)]
)
def test_samples_of_student_hold_what_it_states(dim, correlation, freedom):
    law = laws.student(dim, correlation, freedom)
    joint = stats.multivariate_t(shape=joint_matrix(dim, correlation), df=freedom).logpdf
    marginal = stats.multivariate_t(shape=np.eye(dim), df=freedom).logpdf
    bits, error = drawn_bits(law, joint, lambda x: marginal(x).reshape(len(x)))
    assert abs(law.bits - bits) < 4 * error
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("law", "radius"),
    [
        (laws.gaussian(4, 0.6), lambda square: stats.chi2(8).cdf(square)),
        (laws.student(4, 0.6, 2), lambda square: stats.f(8, 2).cdf(square / 8)),
    ],
    ids=["gaussian", "student"],
)
def test_the_radius_of_a_sample_has_the_law_that_it_should(law, radius):
    """xᵀ Σ⁻¹ x of x = (A, B) is χ² for a Gaussian, and F times the dimension for Student-t."""
    x = torch.cat(law.sample(20_000, seed=0), 1).numpy()
    square = np.einsum("ni,ij,nj->n", x, np.linalg.inv(joint_matrix(4, 0.6)), x)
    assert stats.kstest(radius(square), "uniform").pvalue > 0.001


@pytest.mark.parametrize("correlation", [0.75, 0.0, -0.3])
def test_each_pair_of_the_gaussian_has_its_correlation_and_no_other(correlation):
    x = torch.cat(laws.gaussian(3, correlation).sample(100_000, seed=0), 1)
    assert x.mean(0).abs().max() < 4 / math.sqrt(len(x))
    off = x.T.cov() - torch.from_numpy(joint_matrix(3, correlation))
    assert off.abs().max() < 4 * math.sqrt(2 / len(x))


@pytest.mark.parametrize("width", [0.1, 0.75])
def test_additive_draws_two_uniform_variables(width):
    a, b = (x[:, 0].numpy() for x in laws.additive(width).sample(20_000, seed=0))
    noise = (b - a) / (2 * width) + 0.5
    for uniform in (a, noise):
        assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(a, noise)[0, 1]) < 4 / math.sqrt(len(a))


@pytest.mark.parametrize(
    "law",
    [*map(laws.symmetric, (0.0, 0.1, 0.9, 1.0)), *map(laws.erasure, (0.0, 0.3, 0.95))],
    ids=lambda law: law.name,
)
def test_samples_of_a_channel_hold_what_it_states(law):
    a, b = law.sample(200_000, seed=0)
    bits, error = counted_bits(a, b)
    assert abs(law.bits - bits) <= 4 * error + 1e-4  # a fair bit's entropy is counted too


@pytest.mark.parametrize(("law", "values"), [(laws.symmetric(0.1), 2), (laws.erasure(0.3), 3)])
def test_a_channel_draws_whole_numbers_that_serve_as_labels(law, values):
    a, b = law.sample(1000, seed=0)
    assert a.unique().tolist() == [0, 1]
    assert b.unique().tolist() == list(range(values))
    _, y = check_samples(a, b[:, 0].long())
    assert torch.equal(y.double(), b[:, 0])


def test_a_symmetric_channel_flips_as_often_as_it_says():
    a, b = laws.symmetric(0.1).sample(10_000, seed=0)
    assert float((a != b).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(a.mean()) == pytest.approx(0.5, abs=0.02)


def test_an_erasure_keeps_the_bit_or_loses_it():
    a, b = laws.erasure(0.3).sample(10_000, seed=0)
    kept = b != 2
    assert torch.equal(a[kept], b[kept])
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=0.02)


def test_independent_variables_have_no_correlation():
    law = laws.independent(2, 3)
    x = torch.cat(law.sample(100_000, seed=0), 1)
    assert law.bits == 0
    assert (x.T.cov() - torch.eye(5)).abs().max() < 4 * math.sqrt(2 / len(x))


# Maps that keep the information


@pytest.mark.parametrize(
    ("transform", "back"),
    [
        (laws.half_cube, lambda x: x.sign() * x.abs() ** (2 / 3)),
        (laws.asinh, torch.sinh),
    ],
)
def test_a_map_of_each_coordinate_rises_and_can_be_undone(transform, back):
    law = laws.student(2, 0.5, 2)
    for before, after in zip(law.sample(500, 1), transform(law).sample(500, 1), strict=True):
        torch.testing.assert_close(back(after), before, rtol=1e-12, atol=0)
        assert torch.equal(before.argsort(0), after.argsort(0))
    assert transform(law).bits == law.bits


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_a_spiral_keeps_norms_and_can_be_turned_back(dim):
    law = laws.gaussian(dim, 0.75)
    turned = laws.spiral(law, 1.5)
    a, b = law.sample(500, seed=1)
    a_turned, b_turned = turned.sample(500, seed=1)
    torch.testing.assert_close(a_turned.norm(dim=1), a.norm(dim=1), rtol=1e-13, atol=0)
    assert (a_turned[:, :2] - a[:, :2]).norm(dim=1).median() > 0.5
    assert torch.equal(a_turned[:, 2:], a[:, 2:])
    assert torch.equal(b_turned, b)
    assert turned.bits == law.bits
    torch.testing.assert_close(laws.spiral(turned, -1.5).sample(500, seed=1)[0], a)


def test_a_spiral_turns_by_the_squared_norm_of_all_coordinates():
    law = laws.Law("a point", 0.0, lambda n, random: (torch.tensor([[2.0, 0.0, 1.0]] * n),) * 2)
    a, _ = laws.spiral(law, math.pi / 10).sample(1, seed=0)
    torch.testing.assert_close(a, torch.tensor([[0.0, 2.0, 1.0]]))


def test_a_map_adds_its_name():
    law = laws.asinh(laws.half_cube(laws.spiral(laws.gaussian(3, 0.5), 1)))
    assert law.name == "Gaussian, d = 3, spiral, half-cube, asinh"


# Every law


@every_law
def test_samples_are_two_matrices_of_doubles(law):
    a, b = law.sample(50, seed=0)
    assert a.dtype == b.dtype == torch.float64
    assert a.ndim == b.ndim == 2
    assert len(a) == len(b) == 50
    assert a.isfinite().all()
    assert b.isfinite().all()


@pytest.mark.parametrize(
    ("law", "dim_a", "dim_b"),
    [
        (laws.gaussian(7, 0.5), 7, 7),
        (laws.student(2, 0.5, 3), 2, 2),
        (laws.additive(0.1), 1, 1),
        (laws.symmetric(0.1), 1, 1),
        (laws.erasure(0.1), 1, 1),
        (laws.independent(5, 2), 5, 2),
        (laws.spiral(laws.gaussian(3, 0.5), 1), 3, 3),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_samples_have_the_dimensions_of_the_law(law, dim_a, dim_b):
    for n in (1, 10):
        a, b = law.sample(n, seed=0)
        assert a.shape == (n, dim_a)
        assert b.shape == (n, dim_b)


@every_law
def test_a_seed_draws_the_same_again_and_another_draws_other_samples(law):
    (a, b), (a_again, b_again) = law.sample(100, seed=3), law.sample(100, seed=3)
    assert torch.equal(a, a_again)
    assert torch.equal(b, b_again)
    other_a, other_b = law.sample(100, seed=4)
    assert not torch.equal(a, other_a)
    assert not torch.equal(b, other_b)


@every_law
def test_a_sample_leaves_the_global_generators_alone(law):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    law.sample(10, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_standard_laws_have_short_names_of_their_own():
    names = [law.name for law in laws.STANDARD]
    assert len(set(names)) == len(names) == 12
    assert max(map(len, names)) <= 26


@every_law
def test_a_law_cannot_be_changed(law):
    assert math.isfinite(law.bits)
    assert law.bits >= 0
    with pytest.raises(FrozenInstanceError):
        law.bits = 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: laws.gaussian(0, 0.5), "dim .* got 0"),
        (lambda: laws.gaussian(2, 1.0), "correlation .* got 1.0"),
        (lambda: laws.gaussian(2, -1), "correlation .* got -1"),
        (lambda: laws.gaussian(2, math.nan), "correlation .* got nan"),
        (lambda: laws.correlation_for(-0.5, 2), "bits .* got -0.5"),
        (lambda: laws.correlation_for(math.inf, 2), "bits .* got inf"),
        (lambda: laws.correlation_for(1, 0), "dim .* got 0"),
        (lambda: laws.student(2, 0.5, 0), "freedom .* got 0"),
        (lambda: laws.student(2, 0.5, math.inf), "freedom .* got inf"),
        (lambda: laws.student(2, 2, 3), "correlation .* got 2"),
        (lambda: laws.student(-1, 0.5, 3), "dim .* got -1"),
        (lambda: laws.additive(0), "width .* got 0"),
        (lambda: laws.additive(math.inf), "width .* got inf"),
        (lambda: laws.symmetric(1.1), "flip .* got 1.1"),
        (lambda: laws.symmetric(math.nan), "flip .* got nan"),
        (lambda: laws.erasure(-0.1), "loss .* got -0.1"),
        (lambda: laws.independent(0, 3), "dimensions .* got 0"),
        (lambda: laws.independent(3, -2), "dimensions .* got -2"),
        (lambda: laws.spiral(laws.gaussian(1, 0.5), 1), "'Gaussian, d = 1', got 1"),
        (lambda: laws.spiral(laws.gaussian(2, 0.5), math.nan), "speed .* got nan"),
        (lambda: laws.additive(1).sample(0, seed=0), "n of at least 1, got 0"),
        (lambda: laws.additive(1).sample(5, seed=-1), "seed .* got -1"),
    ],
)
def test_what_makes_no_law_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
