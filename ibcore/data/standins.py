"""Stand-ins for the original data, made from a seed, where the originals are not to be had."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibcore.data.originals import LETTERS, LONGEST

_CLASS_SIZES = (351, 217, 418, 818, 426, 298, 180)  # of Cora, by label
_EDGES, _WORDS, _WORDS_A_NODE = 5278, 1433, 18
_OWN_WORDS, _FAVOUR = 60, 7.5  # words a class prefers, and by which factor
_LANGUAGES, _NAMES = 18, 60


def cora(homophily: float = 0.81, seed: int = 0) -> dict[str, Tensor]:
    """Return a contextual stochastic block model of Cora's size: x, y, edge_index, train and test.

    2708 nodes in seven classes of Cora's sizes, 5278 undirected edges, and for each node about 18
    of 1433 words, of which each class prefers some. 20 nodes a class to train on, 1000 to test.

    Args:
        homophily: share of the edges that join nodes of one class; Cora's is 0.81.
        seed: decides the nodes' words and the edges.
    Raises:
        ValueError: homophily outside 0 to 1.
    Source: the model of Deshpande et al. (2018) [deshpande2018contextual].
    """
    if not 0 <= homophily <= 1:
        raise ValueError(f"homophily must lie between 0 and 1, got {homophily}")
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(_CLASS_SIZES)), _CLASS_SIZES)
    weight = np.ones((len(_CLASS_SIZES), _WORDS))
    for favourites in weight:
        favourites[rng.choice(_WORDS, _OWN_WORDS, replace=False)] = _FAVOUR
    share = _WORDS_A_NODE * weight / weight.sum(1, keepdims=True)
    x = rng.random((len(y), _WORDS)) < share[y]
    edges = _edges(y, round(homophily * _EDGES), rng)
    order = rng.permutation(len(y))
    first = [order[y[order] == c][:20] for c in range(len(_CLASS_SIZES))]
    train = np.concatenate(first)
    test = order[~np.isin(order, train)][:1000]
    return {
        "x": torch.from_numpy(x.astype(np.float32)),
        "y": torch.from_numpy(y),
        "edge_index": torch.from_numpy(np.concatenate([edges, edges[::-1]], 1)),
        "train": torch.from_numpy(np.sort(train)),
        "test": torch.from_numpy(np.sort(test)),
    }


def _edges(y: np.ndarray, within: int, rng: np.random.Generator) -> np.ndarray:
    """Return `within` pairs of one class and the rest of two, none twice, shape (2, n_edges)."""
    found: dict[tuple[int, int], None] = {}
    left = {True: within, False: _EDGES - within}
    while any(left.values()):
        for a, b in np.sort(rng.integers(len(y), size=(_EDGES, 2)), 1).tolist():
            same = bool(y[a] == y[b])
            if left[same] and a != b and (a, b) not in found:
                found[a, b] = None
                left[same] -= 1
    return np.array(list(found), dtype=np.int64).T


def names(seed: int = 0) -> dict[str, list[str]]:
    """Return 60 words for each of 18 letter chains, each word once.

    Each chain has its own letters, its own chances for the letter after a letter, and its own
    mean length; words have 3 to 12 letters, the first one a capital.

    Args:
        seed: decides the chains and the words.
    """
    rng = np.random.default_rng(seed)
    return {f"chain {number}": _chain(rng) for number in range(1, _LANGUAGES + 1)}


def _chain(rng: np.random.Generator) -> list[str]:
    small = np.array([*LETTERS[:26]])
    own = rng.choice(small, 16, replace=False)
    after = rng.dirichlet(np.full(len(own), 0.15), size=len(own))
    length = rng.uniform(5, 9)
    words: dict[str, None] = {}
    while len(words) < _NAMES:
        at, word = int(rng.integers(len(own))), ""
        for _ in range(int(np.clip(rng.normal(length, 1.5), 3, LONGEST))):
            word += own[at]
            at = int(rng.choice(len(own), p=after[at]))
        words[word.capitalize()] = None
    return list(words)


def mnist(seed: int = 0) -> dict[str, Any]:
    """Return scikit-learn's 1797 digits of 8 × 8: train_x (1297, 28, 28), train_y, test_x, test_y.

    The images are enlarged to 20 × 20 (bilinear) and set in the middle of 28 × 28, as MNIST's were.
    In whole numbers: 4173 pixels lie halfway between two grey values, and floats would round them
    by the processor's last bit.

    Args:
        seed: decides which 500 images are for the test.
    """
    from sklearn.datasets import load_digits  # here, because it is slow to import

    digits = load_digits()
    weights = _tenths()
    large = weights @ digits.images.astype(np.int64) @ weights.T  # 1600 is white
    x = np.pad((255 * large + 800) // 1600, ((0, 0), (4, 4), (4, 4))).astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:-500], order[-500:]
    y = digits.target.astype(np.uint8)
    return {"train_x": x[train], "train_y": y[train], "test_x": x[test], "test_y": y[test]}


def _tenths() -> np.ndarray:
    """Return what each of 20 pixels takes from 8, in tenths, shape (20, 8): bilinear weights."""
    weights = np.zeros((20, 8), dtype=np.int64)
    for pixel, row in enumerate(weights):
        left, part = divmod(max(4 * pixel - 3, 0), 10)  # its centre among the 8, from the first's
        row[left] += 10 - part
        row[min(left + 1, 7)] += part
    return weights
