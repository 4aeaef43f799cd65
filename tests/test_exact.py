import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate
from torch import nn

import ibcore
from ibcore.discrete import quantise
from ibcore.estimators import Exact, MonteCarlo, Noisy, Pairwise
from ibcore.estimators.noise import Proportional
from ibcore.hooks import Intervention


def layer(n=600, dim=3, seed=0):
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z, (z[:, 0] > 0).long()


def test_exact_counts_what_a_discrete_layer_holds():
    z = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1])
    found = Exact()(z, y)["Exact"]
    assert found.i_xz == pytest.approx(1.5)
    assert found.i_zy == pytest.approx(1.0)


def test_exact_of_distinct_samples_is_all_there_is():
    z, y = layer()
    found = Exact()(z, y)["Exact"]
    assert found.i_xz == pytest.approx(math.log2(600))
    assert found.i_zy == pytest.approx(ibcore.discrete.label_entropy(y))


@pytest.mark.parametrize("bits", [1, 2, 5, 16])
def test_quantise_leaves_at_most_so_many_levels_and_keeps_the_limits(bits):
    z, _ = layer()
    found = quantise(z, bits)
    assert len(found.unique()) <= 2**bits
    assert found.min() == pytest.approx(z.min())
    assert found.max() == pytest.approx(z.max())
    assert (found - z).abs().max() <= (z.max() - z.min()) / (2**bits - 1) / 2 + 1e-12


def test_quantise_takes_limits_and_a_constant():
    assert quantise(torch.tensor([-3.0, 0.2, 3.0]), 1, -1.0, 1.0).tolist() == [-1.0, 1.0, 1.0]
    assert quantise(torch.full((4,), 2.0), 8).tolist() == [2.0] * 4


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e38, 1e300, 1.7e308])
@pytest.mark.parametrize("bits", [1, 4, 16])
def test_quantise_has_the_levels_of_any_scale(bits, scale):
    """The scale of the values changes nothing, up to a float's rounding of a level."""
    unit = layer(500)[0].clamp(-1, 1)
    found = quantise(scale * unit, bits) / scale
    assert torch.allclose(found, quantise(unit, bits), rtol=0, atol=1e-15)
    assert len(found.unique()) > 1


def test_quantise_of_single_precision_near_its_limit():
    z = torch.tensor([-3.4e38, -1e38, 1e38, 3.4e38])
    assert quantise(z, 1).tolist() == [z[0], z[0], z[3], z[3]]


def test_quantise_refuses_levels_that_no_float_can_hold():
    with pytest.raises(ValueError, match=r"no 65536 levels of torch\.float64 lie between"):
        quantise(torch.tensor([0.0, 1e-320], dtype=torch.float64), 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bits": 0}, "from 1 to 16, got 0"), ({"bits": 17}, "got 17"),
     ({"bits": 4, "low": 1.0, "high": -1.0}, "low ≤ high"),
     ({"bits": 4, "high": math.inf}, "finite limits")],
)  # fmt: skip
def test_quantise_names_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        quantise(torch.zeros(3), **options)


def test_a_quantised_network_obeys_the_data_processing_inequality():
    ds = ibcore.load("tishby")
    model = ibcore.models.FullyConnected([12, 10, 7, 5, 2], "tanh", seed=0)
    with (
        Intervention(model, lambda z: quantise(z, 3, -1.0, 1.0), "tanh*"),
        ibcore.ActivationTracker(model, "tanh*") as tracker,
    ):
        layers = tracker.collect(ds.x)
    found = [Exact()(z, ds.y)["Exact"] for z in layers.values()]
    assert all(len(z.unique()) <= 8 for z in layers.values())
    assert found[0].i_xz > found[-1].i_xz  # something is lost, or the test says nothing
    for before, after in pairwise(found):
        assert after.i_xz <= before.i_xz + 1e-12
        assert after.i_zy <= before.i_zy + 1e-12


def mixture_information(gap, noise_variance):
    """I(X;T) of two equally likely centres, by integration."""
    sigma = math.sqrt(noise_variance)

    def term(t):
        def density(centre):
            return (
                math.exp(-((t - centre) ** 2) / 2 / noise_variance) / sigma / math.sqrt(2 * math.pi)
            )

        p, both = density(0.0), (density(0.0) + density(gap)) / 2
        return p * math.log2(p / both) if p > 0 else 0.0

    return integrate.quad(term, -12 * sigma, 12 * sigma)[0]


@pytest.mark.parametrize("noise_variance", [0.05, 0.3, 2.0])
def test_monte_carlo_agrees_with_the_integral(noise_variance):
    z = torch.tensor([0.0, 1.0]).repeat(400)[:, None]
    y = torch.tensor([0, 1]).repeat(400)
    x, label = MonteCarlo(noise_variance, draws=20).estimates(z, y)
    truth = mixture_information(1.0, noise_variance)
    # 400 copies of each centre: X has log₂ 400 bits more than T can tell apart, and they are none.
    assert abs(x.bits - truth) < 4 * x.error
    assert label.bits == pytest.approx(x.bits, abs=1e-9)
    assert 0 < x.error < 0.02


@pytest.mark.parametrize("dim", [1, 5])
@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e15, 1e200])
def test_monte_carlo_sees_small_noise_on_points_far_apart(far, dim):
    """Two places of many copies hold one bit, whatever their distance; exp() loses none of it."""
    y = torch.arange(60) % 2
    z = far * (2.0 * y - 1).double()[:, None].expand(-1, dim)
    found = MonteCarlo(1e-4)(z, y)["MonteCarlo"]
    assert found[:4] == pytest.approx((1, 1, 0, 0), abs=1e-9)


@pytest.mark.parametrize("far", [1e4, 1e9, 1e12])
def test_monte_carlo_sees_within_clusters_far_apart(far):
    """Two far copies of a layer hold one bit more than it does, and tell the copy's label."""
    z = (layer(100, 3)[0] * 2**10).round() / 2**10  # exact beside 1e12
    y = torch.arange(200) // 100
    one = MonteCarlo(0.3)(z, y[50:150])["MonteCarlo"]
    two = MonteCarlo(0.3)(torch.cat([z - far, z + far]), y)["MonteCarlo"]
    assert abs(two.i_xz - 1 - one.i_xz) < 4 * math.hypot(one.i_xz_error, two.i_xz_error)
    assert two.i_zy == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("column", [1.0, 1e4, 1e8])
def test_monte_carlo_never_passes_log2_n_where_a_column_is_large(column):
    z, y = layer(300)
    z = z * torch.tensor([column, 1, 1])
    for noise_variance in (1e-4, 1e-2):
        found = MonteCarlo(noise_variance)(z, y)["MonteCarlo"]
        assert found.i_xz <= math.log2(300) + 1e-9
        bounds = Pairwise(noise_variance)(z, y)
        assert bounds["BD"].i_xz - 4 * found.i_xz_error - 1e-9 <= found.i_xz
        assert found.i_xz <= bounds["KL"].i_xz + 4 * found.i_xz_error + 1e-9


@pytest.mark.parametrize("n", [513, 1030])
def test_monte_carlo_is_its_formula_whatever_the_tiles(n):
    z, y = layer(n)
    variance, generator = 0.2, ibcore.checks.stream(0, "MonteCarlo")
    terms = []
    for _ in range(4):
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        t = z + math.sqrt(variance) * noise
        exponents = (t[:, None] - z).square().sum(-1) / (-2 * variance)
        total = exponents.logsumexp(1) - math.log(n)
        same = exponents.masked_fill(y[:, None] != y, -math.inf)
        given_y = same.logsumexp(1) - torch.bincount(y)[y].log()
        terms.append([exponents.diagonal() - total, given_y - total])
    x, label = (torch.stack(part).mean() / math.log(2) for part in zip(*terms, strict=True))
    found = MonteCarlo(variance)(z, y)["MonteCarlo"]
    assert found[:2] == pytest.approx((float(x), float(label)), abs=1e-6)  # what it accepts


@pytest.mark.parametrize("n", [900, 1100])
def test_queries_of_monte_carlo_agree_with_all_within_their_error(n):
    z, y = layer(n)
    whole = MonteCarlo(0.3)(z, y)["MonteCarlo"]
    some = [MonteCarlo(0.3, queries=200, seed=s)(z, y)["MonteCarlo"] for s in range(30)]
    for value, error in (("i_xz", "i_xz_error"), ("i_zy", "i_zy_error")):
        found = torch.tensor([getattr(mi, value) for mi in some])
        given = torch.tensor([getattr(mi, error) for mi in some])
        # The mean of 30 runs is known to 1/√30 of one's error, and their spread to 13 %.
        allowed = 4 * (float(given.mean()) / 30**0.5 + getattr(whole, error))
        assert float(found.mean()) == pytest.approx(getattr(whole, value), abs=allowed)
        assert float(found.std()) == pytest.approx(float(given.mean()), rel=0.5)


@pytest.mark.parametrize("noise_variance", [1e-3, 0.1, 1.0])
def test_monte_carlo_lies_between_the_bounds(noise_variance):
    z, y = layer()
    bounds = Pairwise(noise_variance)(z, y)
    x, _ = MonteCarlo(noise_variance).estimates(z, y)
    assert bounds["BD"].i_xz - 4 * x.error - 1e-9 <= x.bits
    assert x.bits <= bounds["KL"].i_xz + 4 * x.error + 1e-9


def test_monte_carlo_keeps_its_limits():
    z, y = layer()
    tiny = MonteCarlo(1e-9)(z, y)["MonteCarlo"]
    assert tiny.ceiling == math.log2(len(z))
    assert tiny.i_xz == pytest.approx(math.log2(600), abs=1e-6)
    assert tiny.i_zy == pytest.approx(ibcore.discrete.label_entropy(y), abs=1e-6)
    huge = MonteCarlo(1e9)(z, y)["MonteCarlo"]
    assert huge.i_xz == pytest.approx(0, abs=1e-3)


def test_the_standard_error_is_that_of_repeated_runs():
    z, y = layer(300)
    runs = [MonteCarlo(0.3, seed=s).estimates(z, y)[0] for s in range(40)]
    bits, errors = (torch.tensor(v) for v in zip(*runs, strict=True))
    assert bits.std() == pytest.approx(float(errors.mean()), rel=0.4)  # 40 runs know it to 11 %


def test_a_wide_layer_far_from_zero_loses_nothing():
    z, y = layer(200, 2000)
    near = MonteCarlo(500.0, draws=2)(z, y)["MonteCarlo"]
    far = MonteCarlo(500.0, draws=2)(z + 1e5, y)["MonteCarlo"]
    assert 0 < near.i_xz < math.log2(200)
    assert far.i_xz == pytest.approx(near.i_xz, abs=1e-3)


def test_a_policy_chooses_the_noise():
    z, y = layer()
    chosen = MonteCarlo(Proportional(0.1))
    assert chosen(z, y)["MonteCarlo"].i_xz == pytest.approx(
        chosen(7 * z, y)["MonteCarlo"].i_xz, abs=1e-9
    )


def test_one_path_over_and_over_is_the_layer_itself():
    z, y = layer(200)
    x, label = MonteCarlo(0.2).propagated(z.expand(6, -1, -1), y)
    direct_x, direct_label = MonteCarlo(0.2).estimates(z, y)
    assert x.bits == pytest.approx(direct_x.bits, abs=1e-9)
    assert label.bits == pytest.approx(direct_label.bits, abs=1e-9)


def test_propagated_noise_agrees_with_the_sum_of_both_noises():
    # T₂ = (Z + ε₁) + ε₂ is Z with noise of the summed variance, which the direct way measures.
    z, y = layer(300, 2)
    noise = torch.randn(200, *z.shape, generator=torch.Generator().manual_seed(1)).double()
    x, label = MonteCarlo(0.2).propagated(z + math.sqrt(0.1) * noise, y)
    direct_x, direct_label = MonteCarlo(0.3, draws=20).estimates(z, y)
    # 200 paths are biased low, by less than the errors, of which four are allowed.
    for found, direct in ((x, direct_x), (label, direct_label)):
        assert abs(found.bits - direct.bits) < 4 * math.hypot(found.error, direct.error)


def test_few_paths_bias_low():
    z, y = layer(300, 2)
    noise = torch.randn(100, *z.shape, generator=torch.Generator().manual_seed(1)).double()
    paths = z + math.sqrt(0.4) * noise
    few = MonteCarlo(0.1).propagated(paths[:20], y)[0]
    many = MonteCarlo(0.1).propagated(paths, y)[0]
    truth = MonteCarlo(0.5, draws=20).estimates(z, y)[0]  # of the summed noise
    assert few.bits < many.bits < truth.bits
    # The error says so: it is near the bias, and falls with it.
    for found in (few, many):
        assert found.error == pytest.approx(truth.bits - found.bits, rel=0.6)


def test_too_few_paths_are_refused_and_none_pass_the_ceiling():
    z, y = layer(300, 2)
    noise = torch.randn(5, *z.shape, generator=torch.Generator().manual_seed(1)).double()
    for spread in (0.4, 10.0, 1e4, 1e200):
        with pytest.raises(ValueError, match=r"of 5 paths came out as .*take more paths"):
            MonteCarlo(0.1).propagated(z + math.sqrt(spread) * noise, y)
    # Where the samples lie farther apart than their paths, the truth is log₂ N.
    x, label = MonteCarlo(0.1).propagated(1e6 * z + math.sqrt(10.0) * noise, y)
    assert x.bits == pytest.approx(math.log2(300), abs=1e-9)  # the last digit is rounding
    assert label.bits == pytest.approx(ibcore.discrete.label_entropy(y), abs=1e-9)


def test_noise_at_every_layer_obeys_the_data_processing_inequality():
    ds = ibcore.load("tishby")
    rows = torch.arange(0, 4096, 16)
    model = ibcore.models.FullyConnected([12, 6, 4, 3, 2], "tanh", seed=0)
    generator = torch.Generator().manual_seed(0)

    def noisy(z):
        return z + math.sqrt(0.05) * torch.randn(z.shape, generator=generator)

    paths = []
    with (
        ibcore.ActivationTracker(model, "tanh*") as tracker,
        Intervention(model, noisy, "tanh*"),
    ):
        for _ in range(40):
            paths.append(tracker.collect(ds.x[rows]))
    found = [
        MonteCarlo(0.05).propagated(torch.stack([p[name] for p in paths]), ds.y[rows])[0]
        for name in paths[0]
    ]
    for before, after in pairwise(found):
        assert after.bits < before.bits


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: MonteCarlo(0.0), "noise_variance must be positive, got 0.0"),
     (lambda: MonteCarlo(draws=1), "at least 2 draws, got 1"),
     (lambda: MonteCarlo(queries=1), "queries must be at least 2, or None for all samples, got 1"),
     (lambda: MonteCarlo().propagated(torch.zeros(2, 5, 3), torch.arange(5) % 2), "n_paths ≥ 3"),
     (lambda: MonteCarlo(Proportional()).propagated(torch.randn(3, 5, 2), torch.arange(5) % 2),
      "no policy"),
     (lambda: MonteCarlo(Proportional())(torch.ones(5, 2), torch.arange(5) % 2), "constant layer"),
     (lambda: MonteCarlo()(torch.full((5, 2), math.nan), torch.arange(5) % 2), "NaN"),
     (lambda: Exact()(torch.zeros(5, 2), torch.zeros(5).long()), "two classes"),
     (lambda: Noisy(Exact(), -1.0), "noise_variance must be positive")],
)  # fmt: skip
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_constant_layer_holds_nothing():
    z, y = torch.ones(50, 3), torch.arange(50) % 2
    assert Exact()(z, y)["Exact"][:2] == (0.0, 0.0)
    assert MonteCarlo()(z, y)["MonteCarlo"][:2] == pytest.approx((0.0, 0.0), abs=1e-9)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)

    def forward(self, x):
        return self.second(self.first(x))


def test_an_intervention_reaches_the_layers_behind_and_ends_with_the_block():
    model, x = Pair(), torch.randn(5, 3)
    before = model(x)
    with Intervention(model, torch.zeros_like, "first"):
        assert torch.equal(model(x), model.second.bias.expand(5, 2))
    assert torch.equal(model(x), before)


def test_who_enters_first_sees_the_layer_first():
    model, x = Pair(), torch.randn(5, 3)
    with (
        ibcore.ActivationTracker(model, "first") as early,
        Intervention(model, torch.zeros_like, "first"),
        ibcore.ActivationTracker(model, "first") as late,
    ):
        model(x)
        assert torch.equal(early.activations["first"], model.first.forward(x))
        assert (late.activations["first"] == 0).all()


def test_an_intervention_names_what_it_cannot_change():
    with (
        Intervention(model := Pair(), lambda z: z[:, :1], "first"),
        pytest.raises(ValueError, match=r"'first' must keep the shape \(5, 4\), got \(5, 1\)"),
    ):
        model(torch.randn(5, 3))
    with (
        Intervention(model := nn.Sequential(nn.GRU(3, 2)), torch.zeros_like, "0"),
        pytest.raises(TypeError, match="'0' puts out a tuple, no tensor"),
    ):
        model(torch.randn(5, 1, 3))
    with pytest.raises(ValueError, match="no layer matches 'third'"):
        Intervention(Pair(), torch.zeros_like, "third")
    used = Intervention(Pair(), torch.zeros_like)
    with used:
        pass
    with pytest.raises(RuntimeError, match="used before"), used:
        pass


def test_noisy_gives_an_estimator_the_noise_it_lacks():
    z, y = layer()
    found = Noisy(Exact(), 0.1)(z, y)["Exact"]
    assert found.i_xz == pytest.approx(math.log2(600))
    again = Noisy(Pairwise(0.2), Proportional(0.5), seed=3)
    other = Noisy(Pairwise(0.2), Proportional(0.5), seed=4)
    assert again(z, y)["BD"].i_xz == again(z, y)["BD"].i_xz != other(z, y)["BD"].i_xz
    assert again(z, y)["BD"].i_xz != Pairwise(0.2)(z, y)["BD"].i_xz
    assert again(z, y)["BD"].ceiling == math.log2(600)
