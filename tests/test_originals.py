"""Laws of the original files: nothing is read before its hash was checked, and readers read."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import ibcore
from ibcore.data import originals
from ibcore.data.originals import (
    LETTERS,
    DataUnavailableError,
    fetch,
    one_hot,
    parse_idx,
    parse_names,
)
from ibcore.discrete import label_entropy

FOLDER = Path(os.environ.get("IBCORE_DATA", Path(__file__).parents[2] / "shared" / "data"))
with_files = pytest.mark.skipif(not (FOLDER / "mnist").is_dir(), reason=f"no files in {FOLDER}")
CONTENT = {"a.bin": b"first file", "b.bin": b"second file" * 1000}


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, or what `answer` makes of it; cut = bytes promised and not sent."""

    answer = staticmethod(lambda data: data)
    cut = 0
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        data = self.answer(CONTENT[Path(self.path).name])
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + self.cut))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Server,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}/"
        monkeypatch.setitem(originals.ADDRESSES, "small", address)
        yield handler
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """An empty cache, no folder, and a data set of two small files at a closed address."""
    monkeypatch.delenv("IBCORE_DATA", raising=False)
    cache = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda _: cache)
    small = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    known = originals.hashes
    monkeypatch.setattr(originals, "hashes", lambda f: small if f == "small" else known(f))
    for name in ("small", *originals.ADDRESSES):
        monkeypatch.setitem(originals.ADDRESSES, name, "http://127.0.0.1:9/")
    return cache


def folder(tmp_path, monkeypatch, **content):
    place = tmp_path / "data" / "small"
    place.mkdir(parents=True)
    for name, data in content.items():
        (place / f"{name}.bin").write_bytes(data)
    monkeypatch.setenv("IBCORE_DATA", str(tmp_path / "data"))
    return place


def kept(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


# Places


def test_a_download_is_kept_and_not_repeated(server, places):
    assert fetch("small") == CONTENT
    assert kept(places) == ["a.bin", "b.bin"]
    assert fetch("small") == CONTENT
    assert server.asked == ["/a.bin", "/b.bin"]


def test_the_folder_comes_first_and_what_it_lacks_is_fetched(server, tmp_path, monkeypatch):
    folder(tmp_path, monkeypatch, a=CONTENT["a.bin"])
    assert fetch("small") == CONTENT
    assert server.asked == ["/b.bin"]


def test_a_damaged_file_in_the_cache_is_fetched_again(server, places):
    fetch("small")
    (places / "small" / "a.bin").write_bytes(b"damaged")
    assert fetch("small") == CONTENT


def test_a_damaged_file_in_the_cache_is_named_where_no_other_can_be_had(places):
    (places / "small").mkdir(parents=True)
    (places / "small" / "a.bin").write_bytes(b"damaged")
    with pytest.raises(DataUnavailableError, match=r"cache/small/a\.bin holds is damaged"):
        fetch("small")


def test_a_file_that_changes_after_its_download_is_refused(server, places, monkeypatch):
    changed = places.parent / "a.bin"
    changed.write_bytes(b"changed")
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: changed)
    with pytest.raises(ValueError, match=r"a\.bin is not the original file"):
        fetch("small")


@pytest.mark.parametrize("limit", ["_LARGEST", "_TOTAL"])
def test_a_download_has_a_limit_and_leaves_nothing(limit, server, places, monkeypatch):
    monkeypatch.setattr(originals, limit, 5 if limit == "_LARGEST" else -1)
    with pytest.raises(DataUnavailableError, match="gave up after"):
        fetch("small")
    assert not [path for path in places.rglob("*") if path.is_file()]


def test_a_server_that_drips_is_given_up_after_the_time(server, places, monkeypatch):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(20):
                handler.wfile.write(b"a")
                time.sleep(0.1)

    monkeypatch.setattr(originals, "_TOTAL", 0.3)
    monkeypatch.setattr(server, "do_GET", drip)
    start = time.monotonic()
    with pytest.raises(DataUnavailableError, match=r"gave up after 0\.3 s"):
        fetch("small")
    assert time.monotonic() - start < 1.5  # the server needs 2 s, pooch alone waits for its end
    assert kept(places) == []


def test_a_huge_file_in_the_cache_is_refused_unread(places):
    (places / "small").mkdir(parents=True)
    with (places / "small" / "a.bin").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ValueError, match=r"cache/small/a\.bin has 1099511627776 bytes.*remove it"):
        fetch("small")


@with_files
def test_a_full_disk_for_the_copies_of_cora_is_named(files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: set TMPDIR.*Cora/raw"):
        originals.cora()


def test_a_pipe_is_refused_and_not_read(places, tmp_path, monkeypatch):
    own = tmp_path / "own" / "small"
    for pipe in (own / "a.bin", places / "small" / "a.bin"):
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"cache/small/a\.bin is no regular file"):
        fetch("small")
    monkeypatch.setenv("IBCORE_DATA", str(own.parent))
    with pytest.raises(ValueError, match=r"own/small/a\.bin is no regular file"):
        fetch("small")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    place = folder(tmp_path, monkeypatch, a=b"")
    with (place / "a.bin").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ValueError, match=r"a\.bin has 1099511627776 bytes"):
        fetch("small")


def test_a_full_disk_is_named(monkeypatch, places):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.retrieve", full)
    with pytest.raises(OSError, match="no space left") as caught:
        fetch("small")
    assert str(places) in str(caught.value)


def test_an_array_that_unpacks_to_more_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr(originals, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes when unpacked"):
        parse_idx(gzip.compress(b"\x00\x00\x08\x01" + bytes(2000)))


def test_a_folder_that_does_not_exist_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("IBCORE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ibcore.load("mnist")


@pytest.mark.parametrize("content", [b"", CONTENT["a.bin"][:-1], b"another"])
def test_a_file_with_another_hash_is_refused_and_left_alone(content, tmp_path, monkeypatch):
    place = folder(tmp_path, monkeypatch, a=content)
    with pytest.raises(ValueError, match=r"a\.bin.*expected [0-9a-f]{64}"):
        fetch("small")
    assert (place / "a.bin").read_bytes() == content


@pytest.mark.parametrize(
    "answer", [lambda data: b"", lambda data: data[:-1], lambda data: b"<html>"]
)
def test_a_wrong_download_leaves_nothing(answer, server, places):
    server.answer = staticmethod(answer)
    with pytest.raises(ValueError, match="IBCORE_DATA"):
        fetch("small")
    assert kept(places) == []


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(server, places):
    server.cut = 100
    with pytest.raises(DataUnavailableError, match=r"a\.bin"):
        fetch("small")
    assert kept(places) == []
    server.cut = 0
    assert fetch("small") == CONTENT


def test_without_a_network_the_error_says_what_to_do(places):
    with pytest.raises(DataUnavailableError, match=r"IBCORE_DATA.*stand-in"):
        fetch("small")
    assert kept(places) == []


@pytest.mark.parametrize("name", ["cora", "names"])
def test_without_a_network_any_source_is_the_stand_in_with_a_warning(name):
    with pytest.warns(UserWarning, match=f"takes the place of {name}.*IBCORE_DATA"):
        ds = ibcore.load(name)
    assert ds.source != "original"
    with pytest.raises(DataUnavailableError):
        ibcore.load(name, source="original")


def test_nothing_unpickles_a_file_whose_hash_is_wrong(tmp_path, monkeypatch):
    place = tmp_path / "data" / "cora"
    place.mkdir(parents=True)
    for name in originals.hashes("cora"):
        # A pickle that would write a file.
        trap = f"cposix\nsystem\n(S'touch {tmp_path}/sprung'\ntR."
        (place / name).write_bytes(trap.encode())
    monkeypatch.setenv("IBCORE_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match="not the original"):
        ibcore.load("cora")
    assert not (tmp_path / "sprung").exists()


def test_every_file_has_a_hash_and_an_address():
    counts = {name: len(originals.hashes(name)) for name in ("cora", "names", "mnist")}
    assert counts == {"cora": 8, "names": 18, "mnist": 4}
    assert set(counts) <= set(originals.ADDRESSES)


# Readers


@given(arrays(np.uint8, array_shapes(max_dims=3, max_side=6)))
def test_idx_round_trip(values):
    head = bytes([0, 0, 8, values.ndim])
    head += b"".join(side.to_bytes(4, "big") for side in values.shape)
    np.testing.assert_array_equal(parse_idx(gzip.compress(head + values.tobytes())), values)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_an_array_or_a_clear_error(data, zipped):
    try:
        found = parse_idx(gzip.compress(data) if zipped else data)
    except ValueError as error:
        assert "IDX" in str(error)  # noqa: PT017
    else:
        assert found.size == len(data) - 4 - 4 * found.ndim


@given(st.integers(0, 40))
def test_a_truncated_idx_file_is_refused(length):
    whole = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes(range(20)))
    assert length < len(whole)
    with pytest.raises(ValueError, match="IDX"):
        parse_idx(whole[:length])


def test_dimensions_that_multiply_beyond_any_memory_are_refused():
    with pytest.raises(ValueError, match="needs"):
        parse_idx(gzip.compress(bytes([0, 0, 8, 4]) + b"\xff" * 16))


@given(st.binary(max_size=200))
def test_random_bytes_are_names_or_a_clear_error(data):
    try:
        found = parse_names(data)
    except ValueError as error:
        assert "UTF-8" in str(error)  # noqa: PT017
    else:
        assert len(set(found)) == len(found)
        assert all(1 <= len(name) <= 12 and set(name) <= set(LETTERS) for name in found)


@given(st.lists(st.text(LETTERS.replace(" ", ""), min_size=1, max_size=12), unique=True))
def test_plain_names_come_back_in_order(names):
    assert parse_names("\n".join(names).encode()) == names


def test_names_are_folded_and_the_long_ones_left_out():
    text = "Ślusàrski\nO'Néàl\nSlusarski\nAbcdefghijklm\n\n北京\nAb-cd\n"
    assert parse_names(text.encode()) == ["Slusarski", "O'Neal", "Abcd"]


def test_one_hot_letters_can_be_read_back():
    words = ["Ab", "O'Neal", "abcdefghijkl"]
    x = one_hot(words)
    assert x.shape == (3, 12, 57)
    read = ["".join(LETTERS[row.argmax()] for row in word if row.any()) for word in x]
    assert read == words
    assert torch.equal(x.sum((1, 2)), torch.tensor([2.0, 6.0, 12.0]))


# The originals


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setenv("IBCORE_DATA", str(FOLDER))


@with_files
def test_cora(files):
    ds = ibcore.load("cora", source="original")
    assert ds.source == "original"
    assert ds.x.shape == (2708, 1433)
    assert set(ds.x.unique().tolist()) == {0.0, 1.0}
    assert ds.edge_index.shape == (2, 10556)
    assert torch.unique(ds.edge_index.sort(0).values, dim=1).shape == (2, 5278)
    assert ds.y.bincount().tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert ds.y[ds.train].bincount().tolist() == [20] * 7
    assert (len(ds.train), len(ds.test)) == (140, 1000)
    assert not set(ds.train.tolist()) & set(ds.test.tolist())


@with_files
def test_names(files):
    ds = ibcore.load("names", source="original", seed=3)
    assert ds.x.shape == (1080, 12, 57)
    assert label_entropy(ds.y) == pytest.approx(np.log2(18))
    assert (len(ds.train), len(ds.test)) == (864, 216)
    assert {"Arabic", "Vietnamese"} <= set(ds.classes)
    other = ibcore.load("names", source="original", seed=4)
    again = ibcore.load("names", source="original", seed=3)
    assert torch.equal(ds.x, again.x)
    assert torch.equal(ds.train, again.train)
    assert not torch.equal(ds.x, other.x)


@with_files
def test_mnist(files):
    images = originals.mnist()
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(images["train_y"]).tolist() == counts
    assert images["train_x"].shape == (60000, 28, 28)
    assert images["test_x"].shape == (10000, 28, 28)
    ds = ibcore.load("mnist", source="original", size=600, test_size=50)
    assert ds.x.shape == (650, 1, 28, 28)
    assert (float(ds.x.min()), float(ds.x.max())) == (0.0, 1.0)
    share = ds.y[ds.train].bincount() - torch.tensor(counts) / 100
    assert float(share.abs().max()) <= 1


@with_files
@pytest.mark.parametrize("size", [60001, 5, 0, -3])
def test_a_subset_larger_than_the_data_or_without_a_class_is_refused(files, size):
    with pytest.raises(ValueError, match=f"subset of {size} of 60000"):
        ibcore.load("mnist", source="original", size=size)
