"""The original files: where they lie, their hashes, and how they are read."""

import contextlib
import errno
import gzip
import hashlib
import io
import os
import string
import tempfile
import time
import unicodedata
import zlib
from concurrent.futures import Future
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

ADDRESSES = {
    "cora": "https://raw.githubusercontent.com/kimiyoung/planetoid/"
    "af6abf468a772cc055bec88c52e4d6f51b7c37e3/data/",
    "names": "https://raw.githubusercontent.com/spro/practical-pytorch/"
    "c520c52e68e945d88fff563dba1c028b6ec0197b/data/names/",
    "mnist": "https://raw.githubusercontent.com/fgnt/mnist/"
    "ae608a02b796c9ee908c082585a5f006fe05258e/",
}
LETTERS = string.ascii_letters + " .,;'"
LONGEST = 12  # letters of a name
_LARGEST = 64 * 2**20  # bytes of a file, packed or unpacked; the largest has 47 million
_CONNECT, _TOTAL = 30, 600  # seconds: without an answer, and for all of a file


class DataUnavailableError(OSError):
    """The original files are neither on this machine nor to be had from their address."""


def fetch(folder: str) -> dict[str, bytes]:
    """Return the original files of a data set: name → content, each checked by its SHA-256.

    They are looked for in the folder that the environment variable IBCORE_DATA names, then in the
    cache of earlier downloads, then at the pinned address. A download that is interrupted, passes
    64 MiB or ten minutes, or has another hash leaves nothing behind.

    Args:
        folder: "cora", "names" or "mnist".
    Raises:
        FileNotFoundError: IBCORE_DATA names a folder that doesn't exist.
        ValueError: a file in the folder or in the cache is no regular file or not the original;
            it is named.
        DataUnavailableError: a file is on none of the three places.
    """
    return {name: _file(folder, name, sha256) for name, sha256 in hashes(folder).items()}


def hashes(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each original file of a data set, by its name."""
    lines = files("ibcore.data").joinpath("sha256sums.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines)
    return {Path(path).name: sha for sha, path in pairs if Path(path).parent.name == folder}


def _file(folder: str, name: str, sha256: str) -> bytes:
    if own := os.environ.get("IBCORE_DATA"):
        if not Path(own).is_dir():
            raise FileNotFoundError(f"IBCORE_DATA names {own}, which is no folder")
        path = Path(own) / folder / name
        if path.exists():
            return _checked(path, sha256)
    import pooch  # here, because only a download needs it

    cache = Path(pooch.os_cache("ibcore")) / folder
    kept = cache / name
    if kept.exists():
        _check_size(kept)
    damaged = f" (what {kept} holds is damaged: remove it)" if kept.exists() else ""
    address = ADDRESSES[folder] + name
    log = pooch.get_logger()
    level, _ = log.level, log.setLevel("ERROR")
    try:
        path = Path(pooch.retrieve(address, f"sha256:{sha256}", name, cache, downloader=_download))
    except OSError as error:  # also what requests raises
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"no space left for {name}", str(cache)) from error
        raise DataUnavailableError(
            f"{folder}/{name} is not to be had from {address}: {error}{damaged}. Set "
            f'IBCORE_DATA to a folder that holds {folder}/{name}, or ask for source="stand-in"'
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{address} sent a file whose SHA-256 is not {sha256}; nothing was kept. Try again, or "
            f"set IBCORE_DATA to a folder that holds {folder}/{name}"
        ) from error
    finally:
        log.setLevel(level)
    return _checked(path, sha256)


class _Limited(io.FileIO):
    """A file that takes no more than 64 MiB and ten minutes; then OSError."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "wb")
        self._start = time.monotonic()

    def write(self, part: Any) -> int:
        """Write a part, within the limits; OSError beyond them."""
        size = self.tell() + len(part)
        if size > _LARGEST or time.monotonic() - self._start > _TOTAL:
            raise OSError(f"gave up after {size} bytes, at {_LARGEST} bytes or {_TOTAL} s")
        return super().write(part)


def _download(address: str, target: str, _: object) -> None:
    """Write what the address sends to a file, within the limits."""
    import pooch  # here, because only a download needs it

    done: Future[None] = Future()
    file = _Limited(target)  # opened here: a late thread must not make it again

    def work() -> None:
        try:
            with file:
                pooch.HTTPDownloader(timeout=_CONNECT)(address, file, None)
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    # In a thread of its own: a server that sends a byte now and then is not seen by any write.
    Thread(target=work, daemon=True).start()
    try:
        done.result(_TOTAL)
    except TimeoutError as error:
        raise OSError(f"gave up after {_TOTAL} s") from error


def _check_size(path: Path) -> None:
    if not path.is_file():  # a pipe or a device would be read for ever
        raise ValueError(f"{path} is no regular file: put the original there, or remove it")
    if (size := path.stat().st_size) > _LARGEST:
        raise ValueError(
            f"{path} has {size} bytes, no original has more than {_LARGEST}: remove it"
        )


def _checked(path: Path, sha256: str) -> bytes:
    _check_size(path)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is not the original file: its SHA-256 is {found}, expected {sha256}. "
            "Remove it, or put the original there"
        )
    return content


def cora() -> dict[str, Tensor]:
    """Return x (2708, 1433), y, edge_index (2, 10556), train (140) and test (1000) of Cora.

    Source: Sen et al. (2008), in the split of Yang et al. (2016) [sen2008collective,
        yang2016revisiting], read by torch_geometric.
    """
    from torch_geometric.datasets import Planetoid

    content = fetch("cora")
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "Cora" / "raw"
        raw.mkdir(parents=True)
        try:
            for name, data in content.items():
                raw.joinpath(name).write_bytes(data)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: set TMPDIR", str(raw)) from error
        # It unpickles these files: their hashes were checked. What it prints says nothing here.
        with contextlib.redirect_stderr(io.StringIO()):
            graph = Planetoid(root, "Cora")[0]
    return {
        "x": graph.x,
        "y": graph.y,
        "edge_index": graph.edge_index,
        "train": graph.train_mask.nonzero()[:, 0],
        "test": graph.test_mask.nonzero()[:, 0],
    }


def names() -> dict[str, list[str]]:
    """Return the names of each language, once each, that have 1 to 12 letters when folded.

    Source: the data of the PyTorch tutorial on classifying names [robertson2017names].
    """
    return {Path(file).stem: parse_names(data) for file, data in sorted(fetch("names").items())}


def parse_names(data: bytes) -> list[str]:
    """Return the names in a file, one a line, folded to plain letters, in order, once each.

    Accents are taken off and signs other than letters and " .,;'" left out; names without letters
    or with more than 12 are left out.

    Raises:
        ValueError: the bytes are no text in UTF-8.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"a file of names must be text in UTF-8: {error}") from error
    folded = (unicodedata.normalize("NFD", line.strip()) for line in lines)
    plain = ("".join(c for c in line if c in LETTERS) for line in folded)
    return list(dict.fromkeys(name for name in plain if 1 <= len(name) <= LONGEST))


def one_hot(words: list[str]) -> Tensor:
    """Return words as zeros and ones, shape (n_words, 12, 57); rows after the last letter are 0."""
    x = torch.zeros(len(words), LONGEST, len(LETTERS))
    for row, word in enumerate(words):
        x[row, range(len(word)), [LETTERS.index(letter) for letter in word]] = 1
    return x


def mnist() -> dict[str, np.ndarray]:
    """Return train_x (60000, 28, 28), train_y, test_x (10000, 28, 28) and test_y, uint8.

    Source: LeCun et al. (1998) [lecun1998gradient].
    """
    content = {name: parse_idx(data) for name, data in fetch("mnist").items()}
    return {
        "train_x": content["train-images-idx3-ubyte.gz"],
        "train_y": content["train-labels-idx1-ubyte.gz"],
        "test_x": content["t10k-images-idx3-ubyte.gz"],
        "test_y": content["t10k-labels-idx1-ubyte.gz"],
    }


def parse_idx(data: bytes) -> np.ndarray:
    """Return the array in a gzipped IDX file of unsigned bytes.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension in
    four bytes (highest first), then the values.

    Raises:
        ValueError: no gzip file, another type, or a length that doesn't fit the dimensions.
    """
    try:
        with gzip.open(io.BytesIO(data)) as file:
            content = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"an IDX file must be a whole gzip file: {error}") from error
    if len(content) > _LARGEST:
        raise ValueError(f"an IDX file must have at most {_LARGEST} bytes when unpacked")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"an IDX file of bytes must start with 0, 0, 8; got {[*content[:3]]}")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise ValueError(f"IDX shape {shape} needs {expected} bytes, the file has {len(content)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
