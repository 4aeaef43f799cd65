"""Eigenvalues that are found on any machine, and traces of powers by random probes."""

from collections.abc import Callable

import scipy.linalg
import torch
from torch import Tensor

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]

_ACCEPTED = 16  # residual that is accepted, in units of n eps ‖A‖; LAPACK's own is about 1
_NOISE = 1e-6  # rounding of products with a float32 kernel matrix, as a share of its norm
_LANDMARKS = 256  # samples whose kernel rows the search for the largest eigenvalues starts from
_TOP, _TOP_STEPS = 64, 2  # vectors of that search, and its Lanczos steps
_CONVERGED = 0.03  # residual of an eigenvalue that is taken as found, as a share of it
_PROBES, _STEPS = 16, 12  # random vectors for the other eigenvalues, and their Lanczos steps


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of a symmetric matrix, smallest first, and its eigenvectors.

    AV = VΛ with VᵀV = 1. On some processors torch's driver stops on matrices that have nothing
    unusual about them; then LAPACK's others are asked, by SciPy. A result is taken where
    ‖AV − VΛ‖ ≤ 16 n eps ‖A‖ and ‖VᵀV − 1‖ ≤ 16 n eps, in Frobenius norms.

    Args:
        matrix: A, shape (n, n), float32 or float64, on any device. Its lower triangle is read: a
            product such as ZᵀZ need not be symmetric to the last digit.
    Raises:
        torch.linalg.LinAlgError: no driver found them; as where A has NaN or infinite values.
    """
    whole = matrix.tril() + matrix.tril(-1).mT

    def fits(values: Tensor, vectors: Tensor) -> bool:
        residual = torch.linalg.norm(whole @ vectors - vectors * values)
        return bool(residual <= _rounding(matrix)) and _orthonormal(vectors)

    def others(driver: str) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: _by_scipy(matrix, lambda a: scipy.linalg.eigh(a, driver=driver))

    drivers = [lambda: torch.linalg.eigh(matrix), others("evr"), others("ev")]
    values, vectors = _first("eigenvalues", matrix, drivers, fits)
    return values, vectors


def eigvalsh(matrix: Tensor) -> Tensor:
    """Return the eigenvalues of a symmetric matrix, smallest first.

    They are taken where Σ λ = tr A and √Σ λ² = ‖A‖ to within 16 n eps ‖A‖, and those of `eigh`
    otherwise.

    Args:
        matrix: A, shape (n, n), float32 or float64, on any device.
    Raises:
        torch.linalg.LinAlgError: see `eigh`.
    """
    try:
        values = torch.linalg.eigvalsh(matrix)
    except LinAlgError:
        return eigh(matrix)[0]
    trace = (values.sum() - matrix.trace()).abs()
    norm = (values.norm() - torch.linalg.norm(matrix)).abs()
    return values if bool(torch.maximum(trace, norm) <= _rounding(matrix)) else eigh(matrix)[0]


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular value decomposition A = U S Vᵀ as (U, S, Vᵀ), with all of U and V.

    Another driver steps in, and the result is checked, as in `eigh`.

    Args:
        matrix: A, shape (m, n), float32 or float64, on any device.
    Raises:
        torch.linalg.LinAlgError: see `eigh`.
    """

    def fits(left: Tensor, values: Tensor, right: Tensor) -> bool:
        k = len(values)
        residual = torch.linalg.norm(matrix - (left[:, :k] * values) @ right[:k])
        return bool(residual <= _rounding(matrix)) and _orthonormal(left) and _orthonormal(right)

    drivers = [
        lambda: torch.linalg.svd(matrix),
        lambda: _by_scipy(matrix, lambda a: scipy.linalg.svd(a, lapack_driver="gesvd")),
    ]
    left, values, right = _first("singular values", matrix, drivers, fits)
    return left, values, right


def _first(
    what: str,
    matrix: Tensor,
    drivers: list[Callable[[], tuple[Tensor, ...]]],
    fits: Callable[..., bool],
) -> tuple[Tensor, ...]:
    """Return what the first driver finds that does not stop, and whose result fits."""
    for driver in drivers:
        try:
            found = driver()
        except (LinAlgError, ValueError):  # SciPy's LinAlgError is a ValueError
            continue
        if fits(*found):
            return found
    bad = int((~matrix.isfinite()).sum())
    raise LinAlgError(
        f"no driver found the {what} of a {matrix.dtype} matrix of shape {tuple(matrix.shape)}, "
        f"of which {bad} entries are not finite"
    )


def _by_scipy(matrix: Tensor, driver: Callable) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(part).to(matrix) for part in driver(matrix.cpu().numpy()))


def _rounding(matrix: Tensor) -> Tensor:
    """Return the residual that rounding explains: 16 n eps ‖A‖."""
    factor = _ACCEPTED * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    norm: Tensor = factor * torch.linalg.norm(matrix)
    return norm


def _orthonormal(vectors: Tensor) -> bool:
    one = torch.eye(len(vectors)).to(vectors)
    most = _ACCEPTED * len(vectors) * torch.finfo(vectors.dtype).eps
    return bool(torch.linalg.norm(vectors.mT @ vectors - one) <= most)


def power_trace(kernel: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return tr K^α, α > 1, once for each random probe, (n_probes,), and the bound of its error.

    tr f(K) = Σ f(κ) + tr f(K restricted to the complement of the eigenvectors found). For the
    second, a quadratic p that is close to f there has known traces, and ωᵀ(f−p)(K)ω, with ω of
    random signs and without those eigenvectors, has the trace of the remainder as its mean.
    Lanczos quadrature gives ωᵀf(K)ω from one side (Gauss) and from the other (Gauss-Radau).

    The probes' mean is the estimate, and their scatter its random error; the bound is of the rest:
    half the distance of the two rules, and rounding.

    Args:
        kernel: K, float32, (n_samples, n_samples), symmetric, positive, with a diagonal of ones.
        alpha: order above 1.
        generator: of the probes, the same for all kernels of an estimate, whose errors then cancel.
    Source: Gong et al. (2021), algorithm 4, without deflation and control variates; Golub &
        Meurant (2010), chapter 6 [gong2021computationally, golub2010matrices].
    """
    n = len(kernel)
    squares = float(torch.linalg.vector_norm(kernel, dim=1).double().square().sum())
    floor = _NOISE * squares**0.5
    values, space = _largest(kernel, floor, generator)
    probes = 2.0 * torch.randint(2, (n, _PROBES), generator=generator).to(kernel) - 1
    probes -= space @ (space.T @ probes)
    basis, small, _ = _lanczos(kernel, probes, _STEPS, floor)
    first = (basis[:, :_PROBES].T @ probes).double()
    moments = torch.tensor([n, n, squares]).to(small) - _powers(values).sum(0)
    noise = _NOISE * torch.tensor([0.0, n, squares]).to(small)
    known = values.pow(alpha).sum()
    gauss, radau = (
        (known + _quadrature(t, first, moments, noise, alpha)).cpu()
        for t in (small, _with_zero(small))
    )
    traces = _between(gauss, radau)
    return traces, abs(float((gauss - radau).mean())) / 2 + _NOISE * float(traces.mean())


def _between(gauss: Tensor, radau: Tensor) -> Tensor:
    """Return a mean of the two rules; Gauss is exact for one degree more, and the closer one."""
    return (2 * gauss + radau) / 3


def _powers(values: Tensor) -> Tensor:
    """Return the values to the powers 0, 1 and 2, (n_values, 3)."""
    return values[:, None] ** torch.arange(3.0).to(values)


def _largest(kernel: Tensor, floor: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues and their vectors (n_samples, n_values), as far as found.

    The search starts from the Nyström approximation by a few samples.
    """
    rows = torch.randperm(len(kernel), generator=generator)[:_LANDMARKS].to(kernel.device)
    near = kernel[rows]
    vectors = eigh(near[:, rows].double())[1][:, -_TOP:]
    basis, small, residual = _lanczos(kernel, near.T @ vectors.to(kernel), _TOP_STEPS, floor)
    values, vectors = eigh(small)
    error = (residual @ vectors[-_TOP:].to(residual)).norm(dim=0) + floor
    found = error < _CONVERGED * values
    return values[found], basis @ vectors[:, found].to(basis)


def _quadrature(
    small: Tensor, first: Tensor, moments: Tensor, noise: Tensor, alpha: float
) -> Tensor:
    """Return an estimate of the trace of K^α, less the eigenvalues found, for each probe.

    Args:
        small: K in the basis of the Lanczos steps.
        first: the probes in the basis of the first step, (n_probes, n_probes).
        moments: traces of K⁰, K¹ and K², less the eigenvalues found.
        noise: rounding errors of these.
        alpha: order.
    """
    values, vectors = eigh(small)
    weights = (vectors[: len(first)].T @ first).square()
    # Rounding leaves some of the zeros negative; with their sign they cancel.
    f, powers = values.sign() * values.abs().pow(alpha), _powers(values)
    # p with the least sum of the variance over the probes and of the squared errors of its traces.
    root = (weights.mean(1) * 2 / len(first)).sqrt()
    rows = torch.cat([root[:, None] * powers, noise.diag()])
    wanted = torch.cat([root * f, torch.zeros_like(noise)])[:, None]
    # By a factorisation that does not iterate, which a GPU has for full rank only.
    fit = torch.linalg.lstsq(rows.cpu(), wanted.cpu(), driver="gelsy").solution[:, 0].to(small)
    found: Tensor = (f - powers @ fit) @ weights + fit @ moments
    return found


def _with_zero(small: Tensor) -> Tensor:
    """Return K in the basis with its last block changed such that zero is an eigenvalue: Radau."""
    small = small.clone()
    head, side = small[:-_PROBES, :-_PROBES], small[:-_PROBES, -_PROBES:]
    ridge = _NOISE * small.norm() * torch.eye(len(head)).to(small)
    small[-_PROBES:, -_PROBES:] = side.T @ torch.linalg.solve(head + ridge, side)
    return small


def _lanczos(
    kernel: Tensor, start: Tensor, steps: int, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a basis of the block Krylov space, K in it (float64), and what K leads out of it.

    Args:
        kernel: K, (n_samples, n_samples).
        start: the first block, (n_samples, width).
        steps: multiplications by K.
        floor: norm of a direction below which it is rounding; its column is zero.
    """
    width = start.shape[1]
    basis = start.new_zeros(len(start), steps * width)
    small = torch.zeros(steps * width, steps * width, dtype=torch.float64, device=start.device)
    image = start
    for step in range(steps):
        here, known = slice(step * width, (step + 1) * width), basis[:, : (step + 1) * width]
        basis[:, here] = _directions(image, floor if step else 0.0)
        image = kernel @ basis[:, here]
        for _ in range(2):  # what is left can be so small that one pass leaves rounding in it
            part = known.T @ image
            image -= known @ part
            small[: len(part), here] += part
    return basis, small.triu() + small.triu(1).T, image


def _directions(block: Tensor, floor: float) -> Tensor:
    """Return orthonormal columns that span a block; zeros for those below a floor."""
    block = block.double()
    squares, vectors = eigh(block.T @ block)
    keep = squares > max(floor**2, 1e-14 * float(squares[-1]))
    scale = torch.where(keep, squares, torch.inf).rsqrt()
    found: Tensor = block @ (vectors * scale)
    return found.float()
