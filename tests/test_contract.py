import pytest
import torch

from ibcore.interface import MutualInformation, apply
from ibcore.trials.contract import LAWS, Subject, check, layer, subjects


@pytest.mark.slow
@pytest.mark.parametrize("name", subjects())
def test_every_promise_is_kept(name):
    found = check(subjects()[name]).set_index("law")
    assert list(found.index) == list(LAWS)
    broken = found[found["promised"] & ~found["holds"]]
    assert broken.empty, broken.to_string()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", subjects())
def test_a_gpu_gives_the_same(name):
    estimator, found = subjects()[name].estimator, layer()
    here = apply(estimator, found.t, found.y, found.x)
    there = apply(estimator, found.t.cuda(), found.y.cuda(), found.x)
    for bound, mi in here.items():
        assert there[bound] == pytest.approx(mi, abs=1e-3, nan_ok=True)


def test_every_law_is_promised_by_someone():
    everyone = subjects().values()
    assert all(any(promise(s) for s in everyone) for _, promise in LAWS.values())


class InNats:
    """An estimator with the usual mistakes."""

    def __call__(self, z, y):
        information = 0.69 * float((z[:, 0] > 0).eq(y.bool()).double().mean())
        return {"BD": MutualInformation(12.0 + z.std().item() + z[0, 0].item(), information)}


def test_mistakes_are_caught():
    found = check(Subject(InNats(), scale_free=True, below=["BD"])).set_index("law")
    for law in (
        "independent labels: 0 bits",
        "one bit is one bit",
        "order of the samples does not matter",
        "I(X;T) ≤ log₂N",
        "stated side of the truth",
        "unit of the layer does not matter",
    ):
        assert found.loc[law, "promised"], law
        assert not found.loc[law, "holds"], law


def test_a_seed_that_is_not_kept_is_caught():
    class Restless:
        def __call__(self, z, y):
            return {"lot": MutualInformation(float(torch.rand(())), 0.0)}

    found = check(Subject(Restless(), exact=False)).set_index("law")
    assert not found.loc["same seed, same value", "holds"]
