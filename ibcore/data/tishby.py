"""The 12-bit data as a rule."""

import numpy as np

# Vertices of an icosahedron: the five neighbours of each, and the vertex opposite.
_NEIGHBOURS = (
    (1, 3, 5, 10, 11), (0, 2, 3, 4, 11), (1, 3, 4, 8, 9), (0, 1, 2, 8, 10),
    (1, 2, 6, 9, 11), (0, 6, 7, 10, 11), (4, 5, 7, 9, 11), (5, 6, 8, 9, 10),
    (2, 3, 7, 9, 10), (2, 4, 6, 7, 8), (0, 3, 5, 7, 8), (0, 1, 4, 5, 6),
)  # fmt: skip
_ANTIPODES = (9, 7, 5, 6, 10, 2, 3, 1, 11, 0, 4, 8)


def tishby_inputs() -> np.ndarray:
    """Return the numbers 0 to 4095 in 12 bits, highest bit first, shape (4096, 12), int64."""
    return np.arange(4096)[:, None] >> np.arange(11, -1, -1) & 1


def tishby_labels(bits: np.ndarray) -> np.ndarray:
    """Return the label of each 12-bit input, shape (n,), int64.

    y = 1 ⇔ 23 n + a − 5 b − 8 c > 98, where the bits are occupied vertices of an icosahedron:
    n of them, a pairs of neighbours, b of second neighbours, c of antipodes.

    Args:
        bits: zeros and ones, shape (n, 12).
    Source: the rotation-invariant rule of Shwartz-Ziv & Tishby (2017) [shwartz2017opening];
        this form gives the labels of their file `var_u.mat` bit for bit.
    """
    near, opposite = np.zeros((2, 12, 12), dtype=np.int64)
    for vertex, neighbours in enumerate(_NEIGHBOURS):
        near[vertex, neighbours] = 1
        opposite[vertex, _ANTIPODES[vertex]] = 1
    second = 1 - near - opposite - np.eye(12, dtype=np.int64)
    occupied = bits.sum(1)
    a, b, c = (((bits @ pairs) * bits).sum(1) // 2 for pairs in (near, second, opposite))
    occupied_enough: np.ndarray = 23 * occupied + a - 5 * b - 8 * c > 98
    return occupied_enough.astype(np.int64)
