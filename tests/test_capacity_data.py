"""What data hold: laws of known entropy, and code lengths against what they must not pass."""

import math

import pytest
import torch
from torch import nn

from ibcore.capacity import (
    data_bits,
    intrinsic_dimension,
    label_information,
    memorised_bits,
    prequential_by_blocks,
    prequential_by_rehearsal,
)
from ibcore.data import load
from ibcore.models import FullyConnected


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def by_method(x, y, **options):
    table = data_bits(x, y, **options)
    return table[table["of"] == "inputs"].set_index("method")["bits"]


def test_the_twelve_bits_hold_twelve():
    ds = load("tishby")
    table = data_bits(ds.x, ds.y)
    labels = table[table["of"] == "labels"]["bits"].item()
    share = ds.y.double().mean().item()
    assert labels == pytest.approx(-share * math.log2(share) - (1 - share) * math.log2(1 - share))
    found = by_method(ds.x, ds.y)
    assert found["plug-in"] == pytest.approx(12)
    assert found["Miller-Madow"] == pytest.approx(12 + 4095 / 4096 / math.log(4))
    assert 12 <= found["zstd"] < 17  # four of sixteen bits a sample are filling
    assert 12 <= found["xz"] < 17
    assert "png" not in found
    # ½ log₂(2πe(¼ + 1/12)) is what an even bit costs a Gaussian.
    assert found["Gaussian"] == pytest.approx(6 * math.log2(2 * math.pi * math.e / 3), rel=0.01)
    assert set(table["kind"]) == {"estimate", "upper bound"}


def test_a_gaussian_on_a_grid_costs_its_entropy():
    n, sigma = 20_000, 9.0
    draw = torch.randn(n, 3, generator=drawn(), dtype=torch.float64)
    mixed = draw @ torch.tensor([[1.0, 0.8, 0.2], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]).double()
    x = (sigma * mixed).round()
    true = 3 * math.log2(sigma * math.sqrt(2 * math.pi * math.e))  # the matrix has determinant 1
    # Ranks stand for values, and leave out the few levels at the ends that none has.
    assert by_method(x, torch.arange(n) % 2)["Gaussian"] == pytest.approx(true, abs=0.03)


def test_bounds_lie_above_what_pictures_hold():
    coins = torch.randint(0, 2, (2000, 9), generator=drawn())
    blocks = coins.reshape(-1, 3, 3).repeat_interleave(4, 1).repeat_interleave(4, 2).float()
    found = by_method(blocks, coins[:, 0])
    assert found["plug-in"] == pytest.approx(9, abs=0.3)  # 2000 samples of 512 pictures
    assert found["plug-in"] < found["Miller-Madow"] == pytest.approx(9, abs=0.03)
    for method in ("zstd", "xz", "png", "Gaussian"):
        assert found[method] > 9
    assert found["png"] < 144  # of the pixels
    colour = blocks[:, None].expand(-1, 3, -1, -1)
    assert by_method(colour, coins[:, 0])["png"] < 3 * 144


def test_levels_alone_count_and_not_their_values():
    x = torch.randint(0, 5, (500, 4), generator=drawn())
    y = x[:, 0] % 2
    values = torch.tensor([-3.0, 0.1, 0.5, 7.0, 1e9])
    assert by_method(values[x], y).to_dict() == pytest.approx(by_method(x, y).to_dict())


def test_fewer_samples_may_be_compressed():
    x = torch.randint(0, 256, (900, 8), generator=drawn())
    some, same, other = (by_method(x, x[:, 0], limit=300, seed=seed) for seed in (0, 0, 1))
    assert some["zstd"] == same["zstd"]
    assert some["zstd"] == pytest.approx(64, abs=2)  # even bytes can't be made smaller
    assert some["Gaussian"] != other["Gaussian"]
    assert some["plug-in"] == pytest.approx(math.log2(900))  # of all samples, whatever the limit


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.rand(70_000, 1), "70000 different|different values"),
        (torch.tensor([[0.0], [1.0], [math.nan], [1.0]]), "finite"),
        (torch.eye(3), "two halves"),
    ],
)
def test_inputs_that_hold_no_such_number_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        data_bits(x, torch.arange(len(x)) % 2)


def test_an_answer_shows_what_it_knows_of_the_label():
    y = torch.arange(400) % 4
    sure = 50.0 * nn.functional.one_hot(y).double()
    assert label_information(sure, y) == pytest.approx(2)
    assert label_information(torch.zeros(400, 4), y) == pytest.approx(0)
    halves = 50.0 * nn.functional.one_hot(y // 2 * 2, 4).double()
    halves += 50.0 * nn.functional.one_hot(y // 2 * 2 + 1, 4).double()
    assert label_information(halves, y) == pytest.approx(1)
    assert label_information(-sure, y) < -10
    with pytest.raises(ValueError, match=r"\(400, 4\) and \(399,\)"):
        label_information(sure, y[1:])
    with pytest.raises(ValueError, match="finite logits"):
        label_information(sure * math.inf, y)


# Code lengths of labels


class Frequencies(nn.Module):
    """Answers with the frequencies of the labels that it saw, one more of each."""

    def __init__(self, classes):
        super().__init__()
        self.log_counts = nn.Parameter(torch.zeros(classes))

    def forward(self, x):
        return self.log_counts.expand(len(x), -1)


def count(model, x, y):
    with torch.no_grad():
        model.log_counts.exp_().add_(torch.bincount(y, minlength=len(model.log_counts))).log_()


def test_blocks_are_sent_by_what_was_learned_from_those_before():
    y = torch.tensor([0, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    table = prequential_by_blocks(lambda: Frequencies(2), torch.zeros(10, 1), y, count, first=2)
    assert table["seen"].tolist() == [0, 2, 4, 8]
    assert table["samples"].tolist() == [2, 2, 4, 2]
    by_hand = [
        2,  # a bit each
        -2 * math.log2(2 / 4),
        -3 * math.log2(4 / 6) - math.log2(2 / 6),
        -math.log2(7 / 10) - math.log2(3 / 10),
    ]
    assert table["bits"].tolist() == pytest.approx(by_hand)
    one = prequential_by_blocks(lambda: Frequencies(4), torch.zeros(10, 1), y, count, first=10)
    assert one.to_dict("list") == {"seen": [0], "samples": [10], "bits": [20.0]}


def rehearsed(x, y, **options):
    model = FullyConnected((x.shape[1], 16, int(y.max()) + 1), activation="relu", seed=0).double()
    return prequential_by_rehearsal(model, x, y, progress=False, **options)["bits"].sum()


def test_rehearsal_sends_what_can_be_learned_in_fewer_bits():
    x = torch.randn(800, 4, generator=drawn(), dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    learned = rehearsed(x, y, learning_rate=1e-2)
    assert learned < 500  # of 800 bits
    assert rehearsed(x, y, learning_rate=1e-2, replays=0) > learned + 50
    assert rehearsed(x, y, learning_rate=1e-2) == pytest.approx(learned, abs=1e-6)
    assert rehearsed(x, y, learning_rate=1e-2, seed=1) != pytest.approx(learned, abs=1e-3)


def test_calibration_keeps_labels_by_chance_near_a_bit_each():
    x = torch.randn(640, 8, generator=drawn(), dtype=torch.float64)
    y = torch.randint(0, 2, (640,), generator=drawn(1))
    calibrated = rehearsed(x, y, learning_rate=1e-2)
    free = rehearsed(x, y, learning_rate=1e-2, calibration_rate=0)
    assert 600 < calibrated < free  # no code may win against chance by much
    assert calibrated < 1.6 * 640


def test_a_block_is_sent_before_it_is_learned():
    model = Frequencies(2)
    x, y = torch.zeros(8, 1), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])
    table = prequential_by_rehearsal(model, x, y, block=4, learning_rate=0.5, progress=False)
    assert table["bits"][0] == pytest.approx(4)
    assert table["bits"][1] > 8  # four of a label not yet seen
    assert table["seen"].tolist() == [0, 4]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"block": 0}, ValueError, "1 to 20"),
        ({"block": 21}, ValueError, "1 to 20"),
        ({"block": 2, "replays": -1}, ValueError, "replays"),
        ({"block": 2, "learning_rate": 0}, ValueError, "learning_rate"),
        ({"learning_rate": 1e200, "block": 2}, ArithmeticError, "a lower one"),
    ],
)
def test_streams_that_can_not_be_sent_are_refused(options, error, words):
    x = torch.randn(20, 3, generator=drawn(), dtype=torch.float64)
    with pytest.raises(error, match=words):
        rehearsed(x, torch.arange(20) % 2, **options)


def test_labels_must_be_one_a_sample():
    with pytest.raises(ValueError, match="as many labels"):
        rehearsed(torch.zeros(5, 2), torch.zeros(4).long())
    with pytest.raises(ValueError, match="1 to 5"):
        prequential_by_blocks(
            lambda: Frequencies(2), torch.zeros(5, 1), torch.zeros(5).long(), count, first=6
        )


# Dimension


def test_a_bent_surface_has_its_own_dimension():
    angles = torch.rand(3000, 2, generator=drawn(), dtype=torch.float64)
    bent = torch.cat([angles, angles.square(), (3 * angles).sin()], 1)
    x = torch.cat([bent, bent[:50]])  # copies count once
    found = intrinsic_dimension(x)
    assert found["two-NN"] == pytest.approx(2, abs=0.15)
    assert found["maximum likelihood"] == pytest.approx(2, abs=0.15)
    assert intrinsic_dimension(x, limit=1000) != found


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (load("tishby").x, "equally far"),
        (torch.zeros(100, 3), "at least 30 different samples are needed, got 1"),
        (torch.full((1, 3), math.inf) * torch.arange(1, 41)[:, None], "got 1"),
        (torch.cat([torch.randn(50, 3), torch.full((1, 3), math.inf)]), "finite"),
    ],
)
def test_inputs_without_a_dimension_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        intrinsic_dimension(x)


# Random labels


class Table(nn.Module):
    """Holds the logits of the first few samples, and guesses on the rest."""

    def __init__(self, rows, classes):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, classes))

    def forward(self, x):
        known = self.logits[: len(x)]
        return torch.cat([known, torch.zeros(len(x) - len(known), known.shape[1])])


def fill(model, x, y):
    with torch.no_grad():
        rows = min(len(x), len(model.logits))
        model.logits[torch.arange(rows), y[:rows]] = 40.0


@pytest.mark.parametrize("classes", [2, 8])
def test_what_is_memorised_grows_up_to_the_capacity(classes):
    x = torch.arange(60.0)[:, None]
    table = memorised_bits(
        lambda: Table(20, classes), x, fill, [40, 10, 20], classes=classes, progress=False
    )
    assert table["samples"].tolist() == [10, 20, 40]
    bits = math.log2(classes)
    assert table["bits"].tolist() == pytest.approx([10 * bits, 20 * bits, 20 * bits])
    assert table["loss"].tolist() == pytest.approx([0, 0, bits / 2], abs=1e-9)
    assert table["per_parameter"].tolist() == pytest.approx(table["bits"] / (20 * classes))


def test_a_network_that_learns_nothing_holds_nothing():
    def spoil(model, x, y):
        fill(model, x, 1 - y)

    table = memorised_bits(lambda: Table(9, 2), torch.eye(9), spoil, [9], progress=False)
    assert table["bits"].item() == 0
    labels = []
    for seed in (0, 0, 1):
        memorised_bits(
            lambda: Table(9, 2),
            torch.eye(9),
            lambda model, x, y: labels.append(y.tolist()),
            [9],
            seed=seed,
            progress=False,
        )
    assert labels[0] == labels[1] != labels[2]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"counts": [0, 3]}, ValueError, "from 1 to 9"),
        ({"counts": [10]}, ValueError, "from 1 to 9"),
        ({"counts": []}, ValueError, "from 1 to 9"),
        ({"classes": 1}, ValueError, "two classes"),
        ({"x": torch.ones(9, 2)}, ValueError, "some inputs agree"),
        ({"train": lambda model, x, y: model.logits.data.fill_(math.nan)}, ArithmeticError, "nan"),
    ],
)
def test_labels_that_can_not_be_memorised_are_refused(options, error, words):
    given = {"x": torch.eye(9), "train": fill, "counts": [9], **options}
    with pytest.raises(error, match=words):
        memorised_bits(lambda: Table(9, 2), progress=False, **given)
