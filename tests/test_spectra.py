"""Laws of eigenvalues: the definition, whichever driver finds them; and of traces of powers."""

import math

import pytest
import scipy.linalg
import torch

from ibcore.estimators import spectra
from ibcore.estimators.critic import components

EPS = torch.finfo(torch.float64).eps


def symmetric(n=60, seed=0):
    m = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return m + m.T


def stops(*_, **__):
    raise torch.linalg.LinAlgError("failed to converge")


def rubbish(function):
    """The driver, with a result in which nothing but shapes is right."""

    def wrong(*args, **kwargs):
        found = function(*args, **kwargs)
        parts = [found] if isinstance(found, torch.Tensor) else found
        parts = [torch.linspace(0, 1, p.numel(), dtype=p.dtype).reshape(p.shape) for p in parts]
        return parts[0] if isinstance(found, torch.Tensor) else tuple(parts)

    return wrong


def scaled(function):
    """The driver, with vectors of the wrong length: AV = VΛ holds for them too."""

    def wrong(*args, **kwargs):
        found = function(*args, **kwargs)
        if isinstance(found, torch.Tensor):
            return found
        return tuple(2 * part if part.ndim == 2 else part for part in found)

    return wrong


def is_the_decomposition(matrix, values, vectors):
    # A norm of n rounding errors for each of the n columns.
    near = 10 * len(matrix) * EPS * float(torch.linalg.norm(matrix))
    assert (values.diff() >= 0).all()
    torch.testing.assert_close(vectors * values @ vectors.T, matrix, rtol=0, atol=near)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(matrix)).double())


@pytest.mark.parametrize("n", [1, 2, 60, 192])
def test_eigenvalues_and_vectors_give_the_matrix_again(n):
    matrix = symmetric(n)
    is_the_decomposition(matrix, *spectra.eigh(matrix))
    torch.testing.assert_close(spectra.eigvalsh(matrix), spectra.eigh(matrix)[0])


@pytest.mark.parametrize("matrix", [torch.zeros(5, 5), torch.eye(5), 1e-200 * torch.eye(5)])
def test_matrices_that_no_driver_could_object_to(matrix):
    is_the_decomposition(matrix.double(), *spectra.eigh(matrix.double()))
    assert torch.equal(spectra.eigvalsh(matrix.double()), matrix.double().diagonal())


@pytest.mark.parametrize("fault", [lambda _: stops, rubbish, scaled])
def test_another_driver_steps_in(monkeypatch, fault):
    matrix = symmetric()
    for name in ("eigh", "eigvalsh"):
        monkeypatch.setattr(torch.linalg, name, fault(getattr(torch.linalg, name)))
    is_the_decomposition(matrix, *spectra.eigh(matrix))
    torch.testing.assert_close(spectra.eigvalsh(matrix).sum(), matrix.trace())


def test_a_product_that_rounding_left_lopsided_is_read_below_its_diagonal():
    whole = symmetric()
    lopsided = whole + torch.full_like(whole, 1e-10).triu(1)
    values, vectors = spectra.eigh(lopsided)
    is_the_decomposition(whole, values, vectors)
    assert torch.allclose(spectra.eigvalsh(lopsided), values, rtol=0, atol=1e-11)


def test_the_last_driver_is_enough(monkeypatch):
    matrix, driver = symmetric(), scipy.linalg.eigh
    asked = []

    def one_works(a, driver_=driver, **kwargs):
        asked.append(kwargs["driver"])
        if kwargs["driver"] != "ev":
            raise scipy.linalg.LinAlgError("did not converge")
        return driver_(a, **kwargs)

    monkeypatch.setattr(torch.linalg, "eigh", stops)
    monkeypatch.setattr(scipy.linalg, "eigh", one_works)
    is_the_decomposition(matrix, *spectra.eigh(matrix))
    assert asked == ["evr", "ev"]


@pytest.mark.parametrize("fault", [lambda _: stops, rubbish, scaled])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_singular_values_too(monkeypatch, fault, shape):
    matrix = symmetric()[: shape[0], : shape[1]]
    monkeypatch.setattr(torch.linalg, "svd", fault(torch.linalg.svd))
    left, values, right = spectra.svd(matrix)
    k = min(shape)
    assert (left.shape, right.shape) == ((shape[0],) * 2, (shape[1],) * 2)
    torch.testing.assert_close((left[:, :k] * values) @ right[:k], matrix)
    torch.testing.assert_close(left.T @ left, torch.eye(shape[0]).double())
    torch.testing.assert_close(right @ right.T, torch.eye(shape[1]).double())


@pytest.mark.parametrize("find", [spectra.eigh, spectra.eigvalsh, spectra.svd])
def test_where_no_driver_can_the_error_says_what_the_matrix_is(find):
    matrix = symmetric()
    matrix[3, 4] = matrix[4, 3] = math.nan
    with pytest.raises(torch.linalg.LinAlgError, match=r"\(60, 60\), of which 2 entries"):
        find(matrix)


def test_all_drivers_failing_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", stops)
    monkeypatch.setattr(scipy.linalg, "eigh", rubbish_by_scipy)
    with pytest.raises(torch.linalg.LinAlgError, match="no driver found the eigenvalues"):
        spectra.eigh(symmetric())


def rubbish_by_scipy(a, **_):
    return a[0], a


def test_wide_samples_have_the_components_of_all_their_eigenvectors(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(400, 3, generator=generator).double()
    wide = few @ torch.randn(3, 1030, generator=generator).double()
    wide += 0.01 * torch.randn(400, 1030, generator=generator).double()
    found = components(wide)[:, :3]
    monkeypatch.setattr("ibcore.estimators.critic._WIDE", 2000)
    exact = components(wide)[:, :3]
    # Directions are found up to their sign.
    torch.testing.assert_close((found * exact).mean(0).abs(), torch.ones(3).double())


def kernel(n, dim):
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.exp(-torch.cdist(z, z).square() / dim)


@pytest.mark.parametrize("alpha", [1.01, 1.5, 3.0])
@pytest.mark.parametrize("dim", [2, 10])
def test_traces_by_probes_are_those_of_all_eigenvalues(alpha, dim):
    matrix = kernel(700, dim)
    truth = float(torch.linalg.eigvalsh(matrix).clamp(min=0).pow(alpha).sum())
    generator = torch.Generator().manual_seed(0)
    traces, bound = spectra.power_trace(matrix.float(), alpha, generator)
    error = float(traces.std()) / len(traces) ** 0.5
    # Four standard errors of the probes, besides the bound of what is not random.
    assert abs(float(traces.mean()) - truth) < 4 * error + bound
    assert error + bound < 0.01 * truth


@pytest.mark.parametrize("alpha", [1.01, 1.5, 1.8])
def test_the_rules_enclose_the_trace_and_their_mean_is_closer_than_either(monkeypatch, alpha):
    matrix = kernel(700, 10)
    truth = float(torch.linalg.eigvalsh(matrix).clamp(min=0).pow(alpha).sum())
    monkeypatch.setattr(spectra, "_STEPS", 3)  # so few that the rules differ by more than noise
    mean = spectra._between

    def off(rule):
        monkeypatch.setattr(spectra, "_between", rule)
        found = spectra.power_trace(matrix.float(), alpha, torch.Generator().manual_seed(0))
        return float(found[0].mean()) - truth, found[1]

    (gauss, _), (radau, _), (both, bound) = off(lambda g, r: g), off(lambda g, r: r), off(mean)
    # The derivatives of x^α, 1 < α < 2, alternate in sign from the second one on.
    assert gauss < 0 < radau
    # Gauss gains a degree, and so has about half of Radau's error; equal shares leave more.
    assert abs(both) < min(-gauss, radau) / 3
    assert abs(both) < bound
