"""Weights as whole multiples of steps: what is lost is as little as asked for, and paid for."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from ibcore import codec
from ibcore.codec import Steps, rounding
from ibcore.codec.__main__ import main
from ibcore.codec.quantise import Rounding, _moments
from ibcore.codec.search import _Search
from ibcore.data import Dataset
from ibcore.models import FullyConnected
from ibcore.tolerated import HangsOnRoundingError
from ibcore.training import fit


@pytest.fixture(scope="module")
def trained():
    """Return a network that tells eight clouds apart, and the clouds."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 20, generator=generator)
    y = torch.arange(8).repeat(100)
    x = centres[y] + torch.randn(800, 20, generator=generator)
    x[:, 15:] = 0  # inputs that are never used
    ds = Dataset.from_arrays(x, y)
    model = FullyConnected([20, 64, 8], "relu", seed=0)
    fit(model, ds, epochs=30, learning_rate=5e-3, batch_size=32, snapshots=[30], progress=False)
    return model, x, y


def answers(model, state, x):
    other = copy.deepcopy(model)
    other.load_state_dict({n: w.values() if isinstance(w, Steps) else w for n, w in state.items()})
    with torch.no_grad():
        return other.eval()(x)


def error(model, state, x):
    with torch.no_grad():
        return float((answers(model, state, x) - model(x)).square().mean())


def test_finer_steps_come_closer_and_cost_more(trained):
    model, x, _ = trained
    found = [codec.quantise(model, step, x) for step in (0.3, 0.03, 0.003)]
    errors = [error(model, state, x) for state in found]
    sizes = [len(codec.pack(state)) for state in found]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert sizes[0] < sizes[1] < sizes[2]
    assert all(isinstance(w, Steps) for w in found[0].values())


def test_rounding_that_knows_the_inputs_answers_better_for_its_bytes(trained):
    model, x, _ = trained
    plain = codec.quantise(model, 0.5, trade=0.3)
    size = len(codec.pack(plain))
    steps = [0.02 * 1.3**k for k in range(12)]
    found = [codec.quantise(model, step, x, trade=0.3) for step in steps]
    informed = next(state for state in found if len(codec.pack(state)) <= size)
    assert error(model, informed, x) < 0.6 * error(model, plain, x)


def test_weights_of_inputs_that_are_always_0_are_0(trained):
    model, x, _ = trained
    state = codec.quantise(model, 0.01, x)
    assert not state["linear1.weight"].levels[:, 15:].any()
    assert state["linear1.weight"].levels[:, :15].any()


def test_the_mean_answer_stays(trained):
    model, x, _ = trained
    state = codec.quantise(model, 0.2, x, precise=1e-6)
    with torch.no_grad():
        gap = (answers(model, state, x).mean(0) - model(x).mean(0)).abs().max()
        assert gap < 0.02 * model(x).std()


def test_the_network_is_left_as_it_was_and_whole_numbers_are_kept():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(20, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    state = codec.quantise(model, 0.01, x)
    assert all(w.equal(before[name]) for name, w in model.state_dict().items())
    assert model.training
    assert list(state) == list(before)
    assert state["1.num_batches_tracked"] is not None
    assert not isinstance(state["1.num_batches_tracked"], Steps)
    assert state["1.running_var"].equal(before["1.running_var"])  # norms stay as they are
    assert isinstance(state["3.weight"], Steps)  # a layer in groups, rounded alone
    assert error(model.eval(), state, x) < 1e-2


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    for state in (codec.quantise(model, 0.1, x), codec.quantise(model, 0.1)):
        assert state["0.weight"] is state["2.weight"]
        assert codec.coded_sizes(state)["method"].tolist()[2] == "twin"


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_file_loses_no_more_than_asked_for(trained, calibrated, tmp_path):
    model, x, y = trained
    path = tmp_path / "net.ibc"
    found = codec.compress(model, path, x, y, lost=0.01, calibration=x if calibrated else None)
    assert found.after >= found.before - 0.01
    assert path.stat().st_size == found.size == found.table["bytes"].iloc[-1]
    other = copy.deepcopy(model)
    other.load_state_dict(codec.load(path))
    accuracy = float((other(x).argmax(1) == y).double().mean())
    assert accuracy == pytest.approx(found.after, abs=2e-3)
    lossless = len(codec.pack(model))
    assert found.size < lossless / 5


def test_less_may_be_lost_for_more_bytes(trained):
    model, x, y = trained
    sizes = [
        codec.compress(model, None, x, y, lost=lost, calibration=x).size for lost in (0.1, 0.0)
    ]
    assert sizes[0] < sizes[1]


def test_steps_of_their_own_beat_every_common_one(trained):
    model, x, y = trained
    found = codec.compress(model, None, x, y, lost=0.01)
    common = []
    for step in torch.arange(-4, 2, 0.1).tolist():
        state = codec.quantise(model, 2.0**step, trade=0.3)
        if float((answers(model, state, x).argmax(1) == y).double().mean()) >= found.before - 0.01:
            common.append(int(codec.coded_sizes(state)["bytes"].iloc[-1]))
    assert found.size < min(common)


def test_a_coarse_step_is_found_where_finer_ones_lose_more(trained):
    model, _, y = trained
    tried = []
    right = torch.nn.functional.one_hot(y).double()
    search = _Search(Rounding(model), lambda _: right, y, 0.0, tqdm(disable=True))

    def good(step: float, _: object) -> bool:
        tried.append(step)
        return step <= -3 or 1 <= step <= 1.6

    search.tried = good
    search.coarsest(4.0, -16.0, 1.0, {})
    found = [step for step in tried if 1 <= step <= 1.6]
    assert max(found) == pytest.approx(1.6, abs=1 / 16)
    assert min(tried) == 1


def test_factors_that_find_nothing_smaller_are_forgotten(trained, monkeypatch):
    model, x, y = trained
    searches = []

    def fine(search: _Search) -> dict[str, float]:
        searches.append(search)
        return dict.fromkeys(search.names, -6.0)

    monkeypatch.setattr(_Search, "evened", fine)
    found = codec.compress(model, None, x, y, lost=0.01)
    search = searches[0]
    again = search._state(search.step, search.factors)
    assert int(codec.coded_sizes(again)["bytes"].iloc[-1]) == found.size


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_network_without_a_matrix_to_round_is_written(trained, calibrated):
    _, x, _ = trained
    zeros = nn.Linear(20, 8)
    nn.init.zeros_(zeros.weight)
    with torch.no_grad():
        right = zeros(x).argmax(1)
    found = codec.compress(zeros, None, x, right, calibration=x if calibrated else None)
    assert found.after == found.before == 1
    assert not codec.unpack(codec.pack(found.state))["weight"].any()


def test_one_rounding_serves_many_steps():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 4)
    )
    x = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    one = Rounding(model, x)
    for step in (2.0**-4, 2.0**-7, 2.0**-4):
        state = codec.quantise(model, step, x, trade=0.3)
        for name, found in one(step, 0.3).items():
            assert found.step == state[name].step
            assert found.levels.equal(state[name].levels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0.0}, "step must be positive and finite, got 0"),
        ({"step": 1.0, "trade": -1.0}, "trade must be"),
        ({"step": 1.0, "precise": float("inf")}, "precise must be"),
    ],
)
def test_settings_that_cant_be_are_refused(options, words, trained):
    with pytest.raises(ValueError, match=words):
        codec.quantise(trained[0], **options)


def test_weights_that_are_not_finite_are_refused(trained):
    model, x, y = trained
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.linear1.weight[0, 0] = torch.nan
    for calibration in (x, None):
        with pytest.raises(ValueError, match=r"'linear1\.weight' has NaN"):
            codec.quantise(broken, 0.1, calibration)
    with pytest.raises(ValueError, match="lost is a share"):
        codec.compress(model, None, x, y, lost=1.5)


# The command line


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_packed_and_unpacked_weights_are_the_same(trained, ending, tmp_path, capsys):
    state = trained[0].state_dict()
    source, target = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    (torch.save if ending == "pt" else save_file)(state, source)
    assert main(["pack", str(source), str(tmp_path / "a.ibc")]) == 0
    assert main(["unpack", str(tmp_path / "a.ibc"), str(target)]) == 0
    found = torch.load(target, weights_only=True) if ending == "pt" else load_file(target)
    assert all(found[name].equal(w) for name, w in state.items())
    assert main(["info", str(tmp_path / "a.ibc")]) == 0
    assert main(["compare", str(source)]) == 0
    printed = capsys.readouterr().out
    assert "linear1.weight" in printed
    assert "zstd-19, bytes regrouped" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [source.name, target.name, "a.ibc"]
    )


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    torch.save({"a": [1, 2]}, tmp_path / "lists.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    for name in ("short.pt", "short.safetensors", "short.ibc", "other.txt"):
        (tmp_path / name).write_bytes(b"nothing")
    for name, words in {
        "lists.pt": "save a model's state_dict",
        "pickled.pt": "can't be read",
        "short.pt": "can't be read",
        "short.safetensors": "can't be read",
        "short.ibc": "no weight file",
        "other.txt": "its name must end in",
        "absent.pt": "No such file",
    }.items():
        assert main(["pack", str(tmp_path / name), str(tmp_path / "out.ibc")]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out.ibc").exists()
    codec.save({"w": torch.zeros(3)}, tmp_path / "net.ibc")
    assert main(["unpack", str(tmp_path / "net.ibc"), str(tmp_path / "out.txt")]) == 1
    assert "must end in .pt or .safetensors" in capsys.readouterr().err


def test_only_the_chosen_answers_count(trained):
    model, x, y = trained
    chosen = torch.arange(0, 800, 2)
    wrong = (y + 1) % 8
    wrong[chosen] = y[chosen]
    found = codec.compress(model, None, x, wrong, lost=0.02, chosen=chosen)
    alone = codec.compress(model, None, x[chosen], y[chosen], lost=0.02)
    assert (found.size, found.before) == (alone.size, alone.before)


def test_an_answer_that_hangs_on_rounding_is_an_error_of_its_own(trained):
    model, x, _ = trained
    layer = nn.Linear(64, 8, bias=False).double()
    with torch.no_grad():  # classes that differ by less than the finest step
        layer.weight.copy_(1 + 1e-9 * model.linear2.weight.double())
        z = model.relu1(model.linear1(x)).double()
        right = layer(z).argmax(1)
    assert len(right.unique()) > 1
    with pytest.raises(HangsOnRoundingError, match="`save` loses nothing"):
        codec.compress(layer, None, z, right, lost=0.0)


def test_compiled_rounding_takes_the_level_that_the_plain_one_takes():
    generator = torch.Generator().manual_seed(1)
    exact = 3 * torch.randn(7, 11, generator=generator, dtype=torch.float64)
    costs = rounding._costs(exact.round())
    one = torch.ones(11, dtype=torch.float64)
    arrays = [w.numpy() for w in (exact, torch.eye(11, dtype=torch.float64), one, one[:7])]
    found = rounding._columns(*arrays, 1.0, 0.2, costs.numpy())
    assert torch.from_numpy(found).equal(rounding._cheapest(exact, 0.2, costs))


def test_errors_of_a_column_are_made_good_in_the_next():
    upper = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)  # both inputs alike
    weight = torch.tensor([[0.4, 0.4]], dtype=torch.float64)
    ones, free = torch.ones(2, dtype=torch.float64), torch.zeros(2, 48, dtype=torch.float64)
    arrays = [w.numpy() for w in (weight, upper, ones, ones[:1])]
    # 0.4 becomes 0; what is missing makes the next 0.4 - 0.4 = 0
    assert rounding._columns(*arrays, 1.0, 0.0, free.numpy()).tolist() == [[0.0, 0.0]]
    upper[0, 1] = -1.0
    assert rounding._columns(*arrays, 1.0, 0.0, free.numpy()).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("seed", range(4))
def test_inputs_that_never_change_can_be_rounded_by(seed):
    draw = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 2)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
        model[0].weight.zero_()  # as coarse steps leave it
    x = torch.randint(0, 2, (3481, 12), generator=draw).float()
    for size in (2.0**-6, 0.5, 8.0):
        state = codec.quantise(model, size, x, trade=0.3)
        assert set(state) == set(model.state_dict())
    means = _moments(model[2], torch.tanh(model[0](x)).detach())
    assert means[0] == pytest.approx(torch.tanh(model[0].bias.detach()).double())
    assert torch.equal(means[1], means[1].T)
    assert float(torch.linalg.eigvalsh(means[1]).min()) > -1e-12
