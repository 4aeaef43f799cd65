"""Chapter 05: each estimator meets a truth: laws, the noisy 12-bit network, wide inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study import laws, noisy, wide
from study.measures import Tables

MAY_BE_EMPTY = frozenset({"promises"})
MAY_BE_ZERO: frozenset[str] = frozenset()
MAY_REPEAT: frozenset[str] = frozenset()
ESTIMATORS = frozenset({"promises", "flag_estimators"})
_LEAST = 40  # samples that a critic needs


@dataclass(frozen=True)
class Settings:
    """What the chapter can be asked for; the defaults are those of the record."""

    promises: tuple[str, ...] = ()  # estimators whose promises are checked; none takes all of them
    runs: int = 10  # seeds of each law
    sizes: tuple[int, ...] = (500, 2000, 10000)  # samples of each law
    law_steps: int = 500  # most steps of a critic on a law
    flag_runs: int = 3  # seeds of each law, to try the flags
    flag_estimators: tuple[str, ...] = ("Ksg", "Mine", "InfoNCE")  # whose flags are tried
    plane_runs: int = 2  # networks (seeds) on the 12-bit data
    epochs: int = 8000  # passes of these networks over the training samples
    snapshots: int = 4  # epochs looked at, even on a log axis
    steps: int = 1000  # most steps of a critic on a layer
    check: bool = True  # whether to check floors and settling: critics train seven times more
    noise_variance: float = 0.1  # sigma squared, squared activation
    variances: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)  # sigma squared
    bins: tuple[int, ...] = (5, 10, 20, 30, 50, 100, 200, 500)  # edges on [-1, 1], to compare
    quantised_bits: int = 4  # bits of an activation in the quantised network
    paths: int = 200  # passes through the network with noise at every layer
    source: str = (
        "original"  # of Cora, names and MNIST: "original", "stand-in", or "any" of the two
    )
    images: int = 4000  # of MNIST
    hard_epochs: int = 60  # passes over the training samples of these three
    mine_steps: int = 3000  # steps of MINE as it is printed in the thesis
    seed: int = 0  # first seed
    dtype: str = "float32"  # float type of data and weights


def check(settings: Settings) -> None:
    """Raise ValueError where settings don't fit one another, or an estimator can't take them."""
    s = settings
    if other := sorted(set(s.flag_estimators) - {*laws.FLAGGED}):
        known = ", ".join(laws.FLAGGED)
        raise ValueError(f"estimators: flag_estimators are of {known}; got {', '.join(other)}")
    least = {"sizes": (min(s.sizes), _LEAST), "images": (s.images, _LEAST), "paths": (s.paths, 3)}
    least |= {"bins": (min(s.bins), 2), "mine_steps": (s.mine_steps, wide.LOOKS)}
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"estimators: {name} must be at least {low}, got {value}")
    if s.quantised_bits > 16:
        raise ValueError(f"estimators: quantised_bits is at most 16, got {s.quantised_bits}")


def jobs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the jobs: promises, laws and flags; the 12-bit networks; wide and sparse inputs."""
    return {**_of_laws(settings), **_of_networks(settings), **_of_wide_inputs(settings)}


def _of_laws(s: Settings) -> dict[str, dict[str, Any]]:
    asked = [name for name in laws.PROMISING if not s.promises or name in s.promises]
    quick = [name for name in asked if name not in laws.CRITICS]
    found: dict[str, dict[str, Any]] = {}
    if quick:
        found["promises-quick"] = {"part": "promises", "estimators": quick}
    for name in asked:
        if name in laws.CRITICS:
            found[f"promises-{name.lower()}"] = {"part": "promises", "estimators": [name]}
    for size in s.sizes:
        for seed in range(s.seed, s.seed + s.runs):
            given = {"size": size, "seed": seed, "steps": s.law_steps}
            found[f"laws-{size}-{seed}"] = {"part": "laws", **given}
    for seed in range(s.seed, s.seed + s.flag_runs):
        for name in s.flag_estimators:
            found |= _flags(s, name, seed)
    return found


def _flags(s: Settings, name: str, seed: int) -> dict[str, dict[str, Any]]:
    """Return the jobs that try an estimator's flags: a critic takes minutes for each size."""
    given: dict[str, Any] = {"part": "flags", "estimator": name, "seed": seed}
    sizes, name = list(s.sizes[:2]), name.lower()
    if given["estimator"] not in laws.CRITICS:
        return {f"flags-{name}-{seed}": {**given, "sizes": sizes}}
    given["steps"] = s.law_steps
    return {f"flags-{name}-{size}-{seed}": {**given, "sizes": [size]} for size in sizes}


def _of_networks(s: Settings) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for seed in range(s.seed, s.seed + s.plane_runs):
        network = {"seed": seed, "epochs": s.epochs, "dtype": s.dtype}
        noise = network | {"noise_variance": s.noise_variance}
        for critic in (None, *laws.CRITICS):
            name, given = (critic or "quick").lower(), noise | {"critic": critic}
            given |= {"steps": s.steps} if critic else {}
            looks = {"part": "plane", "snapshots": s.snapshots}
            found[f"plane-{name}-{seed}"] = given | looks
            if s.check and seed == s.seed:
                found[f"floors-{name}-{seed}"] = given | {"part": "floors"}
        chains = {"quantised_bits": s.quantised_bits, "paths": s.paths}
        scales = {"variances": s.variances, "bins": s.bins}
        found[f"last-{seed}"] = noise | chains | scales | {"part": "last"}
        if seed == s.seed:
            first = {"steps": s.steps, "mine_steps": s.mine_steps}
            found[f"first-layer-{seed}"] = noise | first | {"part": "first layer"}
    return found


def _of_wide_inputs(s: Settings) -> dict[str, dict[str, Any]]:
    names = ["source", "images", "hard_epochs", "steps", "mine_steps", "seed", "dtype"]
    shared = {name: getattr(s, name) for name in names}
    return {
        f"wide-{name.lower()}-{s.seed}": {**shared, "part": "wide", "data": name}
        for name in wide.DATA
    }


def run(arguments: Mapping[str, Any]) -> Tables:
    """Return the tables of one job.

    facts: see `measures.facts`, of a run; `data` is the name that figures use.
    promises: `contract.check`, estimator.
    laws: estimator, law, size, run, i_ab and truth (bits).
    flags: `trials.flags.measure`.
    scores: `History.table` of the 12-bit networks.
    planes: rows of their planes; checks: floors and settling of the first, where asked.
    chains: construction, run, layer, i_xz, i_zy (bits): the noise or rounding is passed on.
    scales: estimator, scale, run, layer, i_xz (bits); the scale is σ² of Pairwise, MonteCarlo and
        Ksg, edges of Binning, and widths of Renyi's kernel in total deviations of the layer.
    seconds: estimator, seconds of one layer.
    wide: data, samples, layer, side, estimator, i_xz, i_xz_error (bits).
    printed: data, samples, run, step, series, estimator, i_xz (bits): MINE as printed.
    """
    return _PARTS[arguments["part"]](arguments)


_PARTS = {
    "promises": laws.promises,
    "laws": laws.estimates,
    "flags": laws.flags,
    "plane": noisy.planes,
    "floors": noisy.floors,
    "last": noisy.last,
    "first layer": noisy.first_layer,
    "wide": wide.estimates,
}
