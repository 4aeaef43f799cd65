"""Laws of the shared definitions: entropy, the result, and which room may enter which."""

import ast
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ibcore
from ibcore.checks import check_samples
from ibcore.discrete import entropy, label_entropy
from ibcore.interface import MutualInformation

PACKAGE = Path(ibcore.__file__).parent
counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=30).filter(any)


def local_imports(path):
    """Names of the ibcore modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module} if node.module != "ibcore" else {
                f"ibcore.{alias.name}" for alias in node.names
            }  # fmt: skip
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "ibcore"}


@pytest.mark.parametrize("n", [1, 2, 3, 18, 4096])
def test_entropy_of_a_uniform_distribution_is_log2_n(n):
    assert entropy(torch.full((n,), 7)) == pytest.approx(math.log2(n), abs=1e-12)


def test_entropy_of_a_biased_coin_is_its_closed_form():
    expected = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert entropy(torch.tensor([1, 3])) == pytest.approx(expected, abs=1e-12)


@given(counts)
def test_entropy_lies_between_zero_and_log2_of_the_values_seen(values):
    seen = sum(v > 0 for v in values)
    assert -1e-9 <= entropy(torch.tensor(values)) <= math.log2(seen) + 1e-9


@given(counts, st.integers(2, 50))
def test_entropy_depends_on_shares_only_and_not_on_order_or_unseen_values(values, factor):
    expected = entropy(torch.tensor(values))
    changed = [factor * v for v in reversed(values)] + [0, 0]
    assert entropy(torch.tensor(changed)) == pytest.approx(expected, abs=1e-9)


@given(counts, st.integers(0, 29))
def test_entropy_obeys_the_chain_rule(values, cut):
    parts = [p for p in (values[:cut], values[cut:]) if sum(p)]
    total = sum(values)
    within = sum(sum(p) / total * entropy(torch.tensor(p)) for p in parts)
    between = entropy(torch.tensor([sum(p) for p in parts]))
    assert entropy(torch.tensor(values)) == pytest.approx(between + within, abs=1e-9)


def test_label_entropy_counts_the_labels_whatever_their_values():
    assert label_entropy(torch.tensor([-5, 900, -5, 900])) == pytest.approx(1.0, abs=1e-12)


def test_information_is_a_named_pair():
    information = MutualInformation(2.0, 1.0)
    assert information[:2] == (2.0, 1.0)
    assert math.isnan(information.i_xz_error)
    assert information.ceiling == math.inf
    assert (information.i_xz, information.i_zy) == (2.0, 1.0)


def test_checked_samples_are_a_matrix_beside_int64_labels():
    z, y = check_samples(torch.rand(4, 2, 3), torch.tensor([0, 1, 0, 1], dtype=torch.int8))
    assert z.shape == (4, 6)
    assert y.dtype == torch.int64


def test_checked_samples_may_be_arrays_and_lists():
    z, y = check_samples(np.ones((2, 3)), [0, 1])
    assert (z.shape, y.dtype) == ((2, 3), torch.int64)
    for wrong in (["a", "b"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(
            ValueError, match="z must be a tensor, or an array of numbers, got list"
        ):
            check_samples(wrong, [0, 1])


def test_the_error_counts_the_samples_that_are_not_finite():
    z = torch.zeros(5, 2, 2)
    z[1, 0, 0], z[1, 1, 1], z[4, 0, 1] = math.nan, math.inf, -math.inf
    with pytest.raises(ValueError, match="2 of its 5 samples"):
        check_samples(z, torch.tensor([0, 1, 0, 1, 0]))


def test_the_interface_imports_nothing_local():
    assert local_imports(PACKAGE / "interface.py") == set()


@pytest.mark.parametrize(
    "path", [p for p in (PACKAGE / "estimators").glob("*.py") if p.name != "__init__.py"],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_an_estimator_imports_the_interface_and_what_estimators_share(path):
    shared = {"distances", "critic", "bound", "queries", "spectra", "kernels"}
    shared |= {"exact"}  # what bins hand their codes to
    allowed = {f"ibcore.{room}" for room in ("interface", "checks", "discrete", "threads")}
    assert local_imports(path) <= allowed | {f"ibcore.estimators.{room}" for room in shared}


@pytest.mark.parametrize(
    ("folder", "others"),
    [("ibcore", {"study", "pipeline"}), ("study", {"pipeline", "notebooks"})],
)
def test_the_package_knows_no_study_and_the_study_no_pipeline(folder, others):
    paths = (PACKAGE.parent / folder).rglob("*.py")
    known = {node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8")))}
    names = {n.module for n in known if isinstance(n, ast.ImportFrom) and n.module}
    names |= {alias.name for n in known if isinstance(n, ast.Import) for alias in n.names}
    assert names
    assert not {name.split(".")[0] for name in names} & others


@pytest.mark.parametrize("room", ["models", "hooks"])
def test_models_and_hooks_know_no_estimator_and_no_result(room):
    known = {"ibcore.checks", "ibcore.layers", "ibcore.moments"}
    assert local_imports(PACKAGE / f"{room}.py") <= known


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "data").glob("*.py")), ids=lambda path: path.stem
)
def test_data_know_checks_and_other_data_only(path):
    known = local_imports(path) - {"ibcore.checks"}
    assert all(name.startswith("ibcore.data") for name in known)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "plotting").glob("*.py")), ids=lambda path: path.stem
)
def test_plotting_knows_tables_only(path):
    known = local_imports(path) - {"ibcore.plane"}
    assert all(name.startswith("ibcore.plotting") for name in known)


@pytest.mark.slow  # nothing here hangs on a processor's kernels
def test_the_package_imports_without_matplotlib():
    code = "import sys, ibcore; assert 'matplotlib' not in sys.modules; ibcore.plotting.accuracy"
    subprocess.run([sys.executable, "-c", code], check=True)
