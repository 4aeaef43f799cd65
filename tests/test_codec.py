"""A weight file: what goes in comes out, other machines read it, damage has a name."""

import base64
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
import weight_file_reader
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from ibcore import codec
from ibcore.codec import WeightFileError, mixing
from ibcore.codec.container import MAGIC, VERSION, _varint
from ibcore.codec.mixing import LARGEST, NEXT, Coder
from ibcore.codec.rounding import _cheapest_path, plain, trellis
from ibcore.codec.tensors import DTYPES, EXPONENT, Steps
from ibcore.models import FullyConnected

FLOATS = list(EXPONENT)
OLD = (
    "j2liYw0KGgFeBwABdwECAgQKBQN/ewgICA0YCQ4AAWgCAgIECgUDFREICA8YEwABbgQBATwrNwABcwEDAgQKBQAAgD4S"
    "AAFyCQEBAgABAAF0AQQAAAFmAQICKCgAAwAACAgIAQUFBYG846c5j5zd5wcWSCaffv///7+GBG+gRSTCzwqiX1N78UWS"
    "1L7////+///////+/37/8SlJ/JS6Szm00WSYKFM79etQtfAci1K2PezTUyUlE70eo885nVpZfmPiu6C3OiM5EN//X//h"
    "3w6H49k3rUAYAZk8HhAAAA++OzFPsC2HvoQoL5JSoHxAA/sAIAP8afFdMwRd4XeOXavBM9SK7nzCtgelX9EbKsugXHY5"
    "BreVHgJalGOxygBeTlQOVVAXf//////+//////7//////v+tVa99"
)  # of a writer that had methods 0 to 4


def same(a, b):
    """Whether two tensors agree in every bit."""
    a, b = a.contiguous(), b.contiguous()
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))


def back(state):
    """Return the state from its file's bytes, which the plain reader must understand alike."""
    data = codec.pack(state)
    found = codec.unpack(data)
    assert list(found) == list(state)
    for name, (dtype, shape, value) in weight_file_reader.read(data).items():
        tensor = found[name]
        assert (dtype, shape) == (str(tensor.dtype)[6:], tuple(tensor.shape))
        if isinstance(value, tuple):
            levels, step = torch.tensor(value[0], dtype=torch.float64), value[1]
            assert same((levels * step).to(tensor.dtype).reshape(shape), tensor)
        else:
            assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == value
    return found


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# Nothing is lost


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (7,), (9, 31), (4, 3, 5, 5)])
def test_every_dtype_and_shape_comes_back(dtype, shape):
    drawn = 20 * normal(*shape, dtype=torch.float64)
    tensor = drawn > 0 if dtype == torch.bool else drawn.abs().to(dtype)
    assert same(back({"w": tensor})["w"], tensor)


@given(st.data(), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_any_pattern_of_bits_comes_back(data, dtype):
    kind = f"u{dtype.itemsize}"
    words = data.draw(hnp.arrays(kind, hnp.array_shapes(max_dims=3, max_side=9)))
    tensor = torch.from_numpy(words.view(np.uint8)).view(dtype).reshape(words.shape)
    assert same(back({"w": tensor})["w"], tensor)


@given(
    hnp.arrays("i8", hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.sampled_from([torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]),
)
def test_any_whole_numbers_come_back(values, dtype):
    tensor = torch.from_numpy(values).to(dtype)
    assert same(back({"w": tensor})["w"], tensor)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_payloads_infinities_denormals_and_signed_zeros_come_back(dtype):
    size = dtype.itemsize
    bits = np.arange(2**16, dtype="u2") if size == 2 else np.random.default_rng(0).integers(
        0, 2**63, 3000
    ).astype(f"u{size}")  # fmt: skip
    exponents = 2 ** EXPONENT[dtype] - 1
    special = np.array(exponents, f"u{size}") << np.array(
        8 * size - 1 - EXPONENT[dtype], f"u{size}"
    )
    words = np.concatenate([bits, bits | special, bits & ~special])[: 2**17]
    tensor = torch.from_numpy(words.view(np.uint8)).view(dtype)
    assert tensor.isnan().any()
    assert same(codec.unpack(codec.pack({"w": tensor}))["w"], tensor)


def test_views_come_back_and_tied_tensors_are_one():
    base = normal(40, 30)
    state = {"a": base, "b": base.T, "c": base[:, ::2], "d": base, "e": base[:20]}
    found = back(state)
    assert all(same(found[name], tensor) for name, tensor in state.items())
    assert found["d"].data_ptr() == found["a"].data_ptr()
    assert found["b"].data_ptr() != found["a"].data_ptr()
    assert codec.coded_sizes(state)["bytes"].iloc[3] < 10


def test_a_network_comes_back_from_its_file(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    size = codec.save(model, tmp_path / "net.ibc")
    assert (tmp_path / "net.ibc").stat().st_size == size
    assert [path.name for path in tmp_path.iterdir()] == ["net.ibc"]
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    other.load_state_dict(codec.load(tmp_path / "net.ibc"))
    x = normal(3, 1, 8, 8)
    assert model.eval()(x).equal(other.eval()(x))


def test_gaussian_weights_take_what_they_hold():
    for dtype, most in ((torch.float32, 27.0), (torch.bfloat16, 10.9)):
        size = len(codec.pack({"w": normal(300, 300, dtype=dtype)}))
        assert 8 * size / 90_000 < most  # bits: sign and mantissa, and 2.6 of the exponent


def test_what_can_be_left_out_is_left_out():
    rounded = normal(200, 200).bfloat16().float()
    assert len(codec.pack({"w": rounded})) < 1.02 * len(codec.pack({"w": rounded.bfloat16()}))
    pruned = normal(200, 200).where(normal(200, 200, seed=1) > 1.5, 0)
    share = float((pruned != 0).float().mean())
    assert 8 * len(codec.pack({"w": pruned})) / 40_000 < 32 * share + 0.5
    assert len(codec.pack({"w": torch.zeros(1000, 1000)})) < 3000


# Whole numbers and steps


@pytest.mark.parametrize("scale", [0.05, 0.5, 3, 1e3, 1e8])
@pytest.mark.parametrize("coder", [Coder(37), Coder(37, 5), Coder(37, 37, 3), Coder(1), Coder(999)])
def test_whole_numbers_come_back(scale, coder):
    values = np.round(np.random.default_rng(0).normal(0, scale, 999)).astype(np.int64)
    data, _ = mixing.encode(values, coder, 10**5)
    assert mixing.decode(data, 999, coder).tolist() == values.tolist()


def test_independent_numbers_cost_their_entropy_and_the_parts_add_up():
    values = np.random.default_rng(0).choice([0, 1, -1, 2, -2], 60_000, p=[0.6, *[0.1] * 4])
    entropy = -(0.6 * np.log2(0.6) + 0.4 * np.log2(0.1))
    data, spent = mixing.encode(values, Coder(300), 10**5)
    assert 8 * len(data) / 60_000 == pytest.approx(entropy, rel=0.02)
    assert spent.sum() == pytest.approx(8 * len(data), rel=0.002)
    assert spent[0] / 60_000 == pytest.approx(-0.6 * np.log2(0.6) - 0.4 * np.log2(0.4), rel=0.02)


def test_columns_that_differ_cost_less_than_their_order_0_entropy():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(0, 1, (200, 300)) * rng.choice([0.1, 3], 300)).ravel()
    _, counts = np.unique(values, return_counts=True)
    order_0 = -(counts * np.log2(counts / counts.sum())).sum() / 8
    assert len(mixing.encode(values, Coder(300), 10**5)[0]) < 0.85 * order_0


def test_rows_of_pictures_are_recognised():
    rng = np.random.default_rng(0)
    rows = np.tile(np.r_[np.full(14, 3), np.zeros(14)], 28)
    values = np.round(rng.normal(0, 1, (50, 784)) * rows).astype(int).ravel()
    assert mixing.repeats(values, 784) == 28
    assert mixing.repeats(np.zeros(784, int), 784) == 0


def test_the_reader_without_numba_finds_the_same_bytes():
    code = (
        "import sys, hashlib; sys.modules['numba'] = None\n"
        "import numpy as np; from ibcore.codec import mixing as m\n"
        "v = np.round(np.random.default_rng(0).normal(0, 3, 600)).astype(int)\n"
        "k = m.Coder(30, 5); d, _ = m.encode(v, k, 9999); assert (m.decode(d, 600, k) == v).all()\n"
        "b, c = (v & 255).astype('u1'), (v & 15).astype('u1'); e = m.encode_bytes(b, c, 5, 9999)\n"
        "assert (m.decode_bytes(e, c, 5) == b).all(); print(hashlib.sha256(d + e).hexdigest())\n"
    )
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    compiled = subprocess.run(
        [sys.executable, "-c", code.split("\n", 1)[1].join(["import hashlib\n", ""])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert len(plain.stdout) == 65, plain.stderr
    assert plain.stdout == compiled.stdout


def test_files_of_version_1_stay_as_they_are():
    data = codec.pack({"w": Steps(torch.arange(-20, 20).reshape(5, 8) % 7, 0.25, torch.float32)})
    assert zlib.crc32(data) == 558161692


def test_a_file_written_before_levels_could_depend_is_read():
    found = codec.unpack(base64.b64decode(OLD))
    w = (torch.arange(40).reshape(4, 10) * 37 % 23 - 11) / 8  # the same on every processor
    old = {"w": w, "h": (w * 100).half(), "n": torch.arange(-30, 30)}
    old |= {"s": torch.round(3 * w).long() / 4, "r": torch.tensor([True, False]), "t": w}
    old["f"] = torch.zeros(40, 40)
    assert list(found) == list(old)
    assert all(same(found[name], tensor) for name, tensor in old.items())


def test_steps_are_whole_multiples_of_a_step():
    levels = torch.round(2 * normal(30, 40)).long()
    steps = Steps(levels, 0.125, torch.float16)
    found = back({"w": steps, "n": torch.tensor(3)})
    assert same(found["w"], steps.values())
    table = codec.coded_sizes({"w": steps, "n": torch.tensor(3)}).set_index("tensor")
    assert table["bytes"]["file"] == len(codec.pack({"w": steps, "n": torch.tensor(3)}))
    spent = table.loc["w", ["mask", "signs", "magnitudes"]].sum()
    assert 0 < spent / 8 < table["bytes"]["w"] < spent / 8 + 20


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"w": [1.0]}, TypeError, "'w' is no tensor but of type list"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, ValueError, "complex64"),
        ({"w": torch.zeros(2, 2).to_sparse()}, ValueError, "sparse"),
        ({"w": Steps(torch.ones(2), 0.0, torch.float32)}, ValueError, "a step above 0"),
        ({"w": Steps(torch.ones(2), 0.1, torch.float32)}, ValueError, "a float32"),
        ({"w": Steps(torch.tensor([2**40]), 1.0, torch.float32)}, ValueError, "larger step"),
        ({"w": Steps(torch.tensor([1]), 1.0, torch.float32, True)}, ValueError, "the trellis"),
        ({"w": Steps(torch.tensor([2, 2, 2]), 1.0, torch.float32, True)}, ValueError, "trellis"),
    ],
)
def test_what_has_no_form_is_refused_and_nothing_is_written(state, error, words, tmp_path):
    (tmp_path / "net.ibc").write_bytes(b"before")
    with pytest.raises(error, match=words):
        codec.save(state, tmp_path / "net.ibc")
    assert (tmp_path / "net.ibc").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


# Levels that depend on those before


def follow(numbers):
    """Return the levels that numbers tell, one after the other, by the page's two lines."""
    node, levels = 0, []
    for number in numbers:
        levels.append(2 * number - node % 2 * int(np.sign(number)))
        node = NEXT[node][number % 2]
    return levels


def cost_of(exact, numbers, price, costs):
    """Return the error and the price of numbers that follow the trellis."""
    node, total = 0, 0.0
    for i, (e, number, level) in enumerate(zip(exact, numbers, follow(numbers), strict=True)):
        total += (level - e) ** 2 + price * costs[node % 2, i % costs.shape[1], abs(number)]
        node = NEXT[node][number % 2]
    return total


def greedy(exact, price, costs):
    """Return the numbers that are cheapest one by one."""
    node, numbers = 0, []
    for i, e in enumerate(exact):
        tried = range(-40, 41)
        paid = [
            (2 * t - node % 2 * np.sign(t) - e) ** 2
            + price * costs[node % 2, i % costs.shape[1], abs(t)]
            for t in tried
        ]
        numbers.append(tried[int(np.argmin(paid))])
        node = NEXT[node][numbers[-1] % 2]
    return numbers


def bits(columns, seed=0):
    """Return costs that rise with the magnitude, shape (2, columns, 48)."""
    rises = np.random.default_rng(seed).uniform(0.2, 2, (2, columns, 48))
    return np.cumsum(rises, 2)


@given(hnp.arrays("f8", st.integers(1, 40), elements=st.floats(-60, 60)), st.floats(0, 3))
def test_the_path_is_never_dearer_than_a_greedy_one(exact, price):
    costs = bits(3)
    numbers, odd = _cheapest_path(exact, price, costs)
    numbers = numbers.astype(int).tolist()
    assert (2 * np.array(numbers) - odd * np.sign(numbers)).tolist() == follow(numbers)
    found = cost_of(exact, numbers, price, costs)
    assert found <= cost_of(exact, greedy(exact, price, costs), price, costs) + 1e-9


def test_the_path_is_the_best_of_all():
    exact, costs = np.random.default_rng(1).normal(0, 1.5, 6), bits(2)
    tried = np.stack(np.meshgrid(*[range(-2, 3)] * 6, indexing="ij"), -1).reshape(-1, 6)
    least = min(cost_of(exact, numbers, 0.4, costs) for numbers in tried.tolist())
    numbers = _cheapest_path(exact, 0.4, costs)[0].astype(int).tolist()
    assert cost_of(exact, numbers, 0.4, costs) == pytest.approx(least)


@given(
    hnp.arrays("i8", hnp.array_shapes(max_dims=3, max_side=9), elements=st.integers(-20, 20)),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_any_path_comes_back(numbers, dtype):
    levels = torch.tensor(follow(numbers.ravel().tolist())).reshape(numbers.shape)
    steps = Steps(levels, 0.25, dtype, True)
    assert same(back({"w": steps})["w"], steps.values())


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (1,), (1, 1)])
@pytest.mark.parametrize("number", [0, 1, LARGEST // 2, -LARGEST // 2])
def test_the_ends_come_back(shape, number):
    levels = torch.full(shape, 2 * number)
    steps = Steps(levels, 1.0, torch.float64, True)
    assert same(back({"w": steps})["w"], steps.values())


def test_large_numbers_come_back_at_odd_nodes():
    levels = torch.tensor(follow([LARGEST // 2 - 1, 16, LARGEST // 2, -LARGEST // 2, 15, 14]))
    steps = Steps(levels.reshape(2, 3), 1.0, torch.float64, True)
    assert same(back({"w": steps})["w"], steps.values())
    with pytest.raises(ValueError, match="larger step"):
        codec.pack({"w": Steps(torch.tensor([LARGEST + 2]), 1.0, torch.float32, True)})


@given(st.binary(max_size=60), st.integers(1, 40), st.integers(1, 9))
def test_any_bytes_are_some_path(data, count, columns):
    levels = mixing.decode(data, count, Coder(columns, dependent=True))
    assert levels.shape == (count,)
    node = 0
    for level in levels.tolist():
        number, left = divmod(abs(level) + node % 2, 2)
        assert level == 0 or not left
        node = NEXT[node][number % 2]


def test_a_flipped_byte_behind_a_right_length_is_other_numbers():
    levels = trellis(normal(20, 30, dtype=torch.float64), 0.5).numpy().ravel()
    coder = Coder(30, 0, 0, True)
    data, _ = mixing.encode(levels, coder, 10**4)
    assert mixing.decode(data, 600, coder).tolist() == levels.tolist()
    for place in range(0, len(data) - 8, 5):
        flipped = bytearray(data)
        flipped[place] ^= 255
        assert mixing.decode(bytes(flipped), 600, coder).tolist() != levels.tolist()


def test_a_trellis_takes_fewer_bytes_of_equal_error():
    exact = normal(150, 300, dtype=torch.float64)

    def points(rounding, steps, dependent):
        for step in steps:
            levels = rounding(exact / step, 0.6)
            size = len(codec.pack({"w": Steps(levels, 1.0, torch.float32, dependent)}))
            yield size, float((levels * step - exact).square().mean())

    sizes, errors = zip(*points(plain, (0.5, 0.7, 1.0, 1.4, 1.9), False), strict=True)
    for size, error in points(trellis, (0.35, 0.5, 0.8), True):
        assert size < 0.94 * np.interp(error, errors, sizes)


def test_without_a_price_the_error_is_that_of_a_trellis():
    exact = 30 * normal(100, 100, dtype=torch.float64)
    error = float((trellis(exact, 0.0) - exact).square().mean())
    assert 0.24 < error < 0.27  # independent levels of twice the step: 1/3


def test_a_network_is_rounded_by_the_trellis_where_it_is_asked_for(tmp_path):
    model = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(16, 12), nn.LayerNorm(12))
    state = codec.quantise(model, 0.5, dependent=True)
    depends = {name: w.dependent for name, w in state.items() if isinstance(w, Steps)}
    assert depends == {"0.weight": True, "2.weight": True, "2.bias": False}
    size = codec.save(state, tmp_path / "net.ibc")
    found = codec.load(tmp_path / "net.ibc")
    assert all(same(found[name], state[name].values()) for name in depends)
    table = codec.coded_sizes(state).set_index("tensor")
    assert table["bytes"]["file"] == size
    assert table["method"]["2.weight"] == "dependent"
    spent = table.loc["2.weight", ["mask", "signs", "magnitudes"]].sum()
    assert 0 < spent / 8 < table["bytes"]["2.weight"] < spent / 8 + 40
    listed = codec.contents((tmp_path / "net.ibc").read_bytes()).set_index("tensor")
    assert listed["method"]["0.weight"] == "dependent"
    assert listed["step"]["0.weight"] == state["0.weight"].step
    assert not any(w.dependent for w in codec.quantise(model, 0.5).values() if type(w) is Steps)


def test_layers_that_have_inputs_are_rounded_by_them():
    model = nn.Sequential(nn.Linear(6, 4))
    state = codec.quantise(model, 0.5, normal(50, 6), dependent=True)
    assert not state["0.weight"].dependent


def test_compiled_and_plain_find_the_same_levels_and_bytes():
    code = (
        "import sys, hashlib; sys.modules['numba'] = None\n"
        "import torch; from ibcore import codec; from ibcore.codec.rounding import trellis\n"
        "w = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).double() * 3\n"
        "l = trellis(w, 0.5); d = codec.pack({'w': codec.Steps(l, 1.0, torch.float64, True)})\n"
        "assert codec.unpack(d)['w'].equal(l.double()); print(hashlib.sha256(d).hexdigest())\n"
    )
    found = [
        subprocess.run([sys.executable, *rest], capture_output=True, text=True)
        for rest in (
            ("-W", "error", "-c", code),
            ("-c", code.replace("sys.modules['numba'] = None", "")),
        )
    ]
    assert len(found[0].stdout) == 65, found[0].stderr
    assert found[0].stdout == found[1].stdout


# Damage


def example():
    model = FullyConnected([6, 5, 3], seed=0)
    state = dict(
        model.state_dict(), steps=Steps(torch.arange(12).reshape(3, 4), 0.5, torch.float32)
    )
    levels = trellis(2 * normal(3, 5, dtype=torch.float64), 0.5)
    state["dependent"] = Steps(levels, 0.5, torch.float32, True)
    return codec.pack(state | {"count": torch.tensor([1, 2]), "twin": state["linear1.bias"]})


def test_cut_off_anywhere_it_is_refused():
    data = example()
    for length in range(len(data)):
        with pytest.raises(WeightFileError):
            codec.unpack(data[:length])


def test_any_flipped_bit_is_noticed():
    data = example()
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(WeightFileError):
            codec.unpack(bytes(flipped))


@given(st.binary(max_size=200), st.data())
def test_any_change_behind_a_right_checksum_is_read_or_refused(noise, data):
    changed = bytearray(example()[:-4])
    for byte in noise[:8]:
        changed[data.draw(st.integers(9, len(changed) - 1))] = byte
    read_or_refused(bytes(changed))
    read_or_refused(MAGIC + bytes([VERSION]) + noise)


def read_or_refused(body):
    """Read a body with a right checksum; an error must be of its class."""
    try:
        found = codec.unpack(body + struct.pack("<I", zlib.crc32(body)), limit=2**20)
    except WeightFileError:
        return
    assert sum(t.numel() * t.element_size() for t in found.values()) <= 2**24


def hostile(header, payload=b""):
    body = MAGIC + bytes([VERSION]) + _varint(len(header)) + header + payload
    return body + struct.pack("<I", zlib.crc32(body))


def entry(name=b"w", dtype=1, method=0, shape=(1,), rest=b"", shared=0):
    head = _varint(shared) + _varint(len(name)) + name + bytes([dtype, method])
    return head + b"".join(map(_varint, (len(shape), *shape))) + rest


HUGE = 2**40
ONE = b"\0\0\0\x80\x3f"  # no period, a step of 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no weight file"),
        (b"PK\3\4" + bytes(30), "no weight file"),
        (MAGIC, "the header ends"),
        (MAGIC + bytes([9]) + bytes(20), "version 9; this reads version 1"),
        (hostile(b"\1" + entry(shape=(HUGE, HUGE))), "declares .* bytes of streams, there are 0"),
        (hostile(b"\1" + entry(shape=(0, HUGE, HUGE))), "too large"),
        (hostile(b"\1" + entry(shape=(9,) * 65)), "at most 64"),
        (hostile(b"\1" + entry(method=3, shape=(2**28,), rest=ONE + b"\4"), bytes(4)), "can't be"),
        (hostile(b"\1" + entry(method=1, dtype=7, shape=(HUGE,), rest=b"\0\4"), bytes(4)), "limit"),
        (hostile(b"\2" + 2 * entry(dtype=8), b"\0\0"), "more than once"),
        (hostile(b"\1" + entry(dtype=10)), "byte 10"),
        (hostile(b"\1" + entry(method=6)), "byte 6"),
        (hostile(b"\1" + entry(method=1, rest=b"\0\4"), b"\0" * 4), "don't fit"),
        (hostile(b"\1" + entry(method=3, dtype=5, rest=b"\0"), b"\0" * 4), "don't fit"),
        (hostile(b"\1" + entry(method=5, dtype=5, rest=b"\0"), b"\0" * 4), "don't fit"),
        (hostile(b"\1" + entry(method=5, shape=(2**28,), rest=ONE + b"\4"), bytes(4)), "can't be"),
        (hostile(b"\1" + entry(method=5, rest=b"\0\0\0\xc0\x7f\1"), b"\0"), "step of nan"),
        (hostile(b"\1" + entry(method=3, rest=b"\0\0\0\0\0\1"), b"\0"), "step of 0"),
        (hostile(b"\1" + entry(method=3, rest=b"\0\0\0\x80\x7f\1"), b"\0"), "step of inf"),
        (hostile(b"\1" + entry(method=3, rest=b"\2\0\0\x80\x3f\1"), b"\0"), "at most 1 is allowed"),
        (hostile(b"\1" + entry(dtype=9), b"\7"), "bytes other than 0 and 1"),
        (hostile(b"\1" + entry(name=b"\xff", dtype=8), b"\7"), "no text"),
        (hostile(b"\1" + entry(shared=1, dtype=8), b"\7"), "at most 0"),
        (hostile(b"\1\0\1w\1\4\0"), "is the first"),
        (hostile(b"\2" + entry(dtype=8) + b"\0\1v\1\4\0", b"\0"), "another dtype"),
        (hostile(b"\2" + entry(dtype=8) + b"\0\1v\1\4\5", b"\0"), "at most 0"),
        (hostile(b"\1" + entry(dtype=8), b"\0\0"), "declares 1 bytes of streams, there are 2"),
        (hostile(b"\1" + entry(dtype=8) + b"\0", b"\0"), "left over"),
        (hostile(b"\1" + b"\xff" * 9 + b"\1"), "more than nine bytes"),
        (hostile(b"\7" + entry(dtype=8), b"\0"), "the header ends"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_refused_before_memory_is_taken(data, words):
    with pytest.raises(WeightFileError, match=words):
        codec.unpack(data)
    assert issubclass(WeightFileError, ValueError)


def test_more_than_the_limit_is_refused_and_less_is_read():
    data = codec.pack({"w": torch.zeros(100, 100)})
    with pytest.raises(WeightFileError, match="tensors of 40000 bytes, more than limit=39999"):
        codec.unpack(data, limit=39_999)
    assert codec.unpack(data, limit=40_000)["w"].shape == (100, 100)


def test_the_same_levels_with_other_steps_are_other_tensors():
    levels = torch.arange(-6, 7, 2).reshape(1, -1)
    states = {
        "one": Steps(levels, 0.5, torch.float32),
        "same": Steps(levels, 0.5, torch.float32),
        "larger": Steps(levels, 2.0, torch.float32),
    }
    found = codec.unpack(codec.pack(states))
    assert all(found[name].equal(state.values()) for name, state in states.items())
    assert codec.coded_sizes(states)["method"].tolist() == ["steps", "twin", "steps", ""]
