"""A reader of weight files, written from the page `weight_file` of the book; imports no ibcore."""

import math
import struct
import zlib
from bisect import bisect_left

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8")
DTYPES += ("uint8", "bool")
SIZES = (8, 4, 2, 2, 8, 4, 2, 1, 1, 1)
EXPONENTS = (11, 8, 5, 8)
KNOTS = [22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4972, 7812, 11955, 17625, 24743]
KNOTS = [*KNOTS, 32768, *(65536 - knot for knot in reversed(KNOTS))]
LINES = [KNOTS[i >> 7] * (128 - i % 128) + KNOTS[(i >> 7) + 1] * (i % 128) for i in range(4096)]
SQUASHED = [min(max((line + 64) >> 7, 32), 65504) for line in LINES]
STRETCHED = [min(max(bisect_left(SQUASHED, 16 * p + 8), 1), 4095) - 2048 for p in range(4096)]
NEXT = ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5))
BOUNDS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 768)


def level(value):
    return sum(value >= bound for bound in BOUNDS)


def adapt(entry, bit):
    chance, seen = entry
    return chance + (((bit << 22) - chance) * (131072 // (2 * seen + 3)) >> 16), min(seen + 1, 511)


class Bits:
    def __init__(self, data):
        self.rest, self.range = iter(data), 2**32 - 1
        self.code = int.from_bytes(bytes(next(self.rest, 0) for _ in range(4)), "big")

    def next(self, p):
        bound = (self.range >> 16) * p
        bit = int(self.code < bound)
        self.code -= 0 if bit else bound
        self.range = bound if bit else self.range - bound
        while self.range < 2**24:
            self.code, self.range = self.code << 8 | next(self.rest, 0), self.range << 8
        return bit


class Mixture:
    def __init__(self, data):
        self.bits, self.models, self.weights = Bits(data), {}, {}

    def decide(self, position, second, slots):
        places = [(i, slot, position) for i, slot in enumerate(slots)]
        x = [STRETCHED[self.models[p][0] >> 10] if p in self.models else 0 for p in places] + [256]
        sets = [self.weights.setdefault(k, [9830] * 8 + [0]) for k in (("first", position), second)]
        dot = sum((a + b) * value for a, b, value in zip(*sets, x, strict=True))
        mixed = SQUASHED[min(max(dot >> 16, -2047), 2047) + 2048]
        bit = self.bits.next(mixed)
        error = ((bit << 16) - mixed) * 7
        for weights in sets:
            weights[:] = [w + (v * error + 2**19 >> 20) for w, v in zip(weights, x, strict=True)]
        for place in places:
            self.models[place] = adapt(self.models.get(place, (mixed << 6, 0)), bit)
        return bit

    def number(self, near, slots, most=29):
        if not self.decide(0, near, slots):
            return 0
        negative = self.decide(1, 16 + near, slots)
        size = 1
        while size <= 14 and self.decide(size + 1, 32 + near, slots):
            size += 1
        if size > 14:
            places, found = 0, 1
            while places < most and self.decide(16 + places, 48 + near, slots):
                places += 1
            for _ in range(places):
                found = found << 1 | self.bits.next(32768)
            size = 14 + found
        return -size if negative else size


def numbers(data, count, columns, period, offset, dependent):
    mixture, found, node = Mixture(data), [], 0
    down, across = [0] * (columns + 2), 0
    backs = (1, 2, columns, 2 * columns, columns + 1, columns - 1, period)
    for index in range(count):
        row, column = divmod(index, columns)
        inside = [column > 0, column > 1, row > 0, row > 1, row > 0 and column > 0]
        inside += [row > 0 and column < columns - 1, 0 < period <= column]
        around = [found[-k] if fits else 0 for k, fits in zip(backs, inside, strict=True)]
        a, b, c, cc, d, e, f = (abs(v + offset) for v in around)
        sign = [(v > 0) - (v < 0) for v in (around[0], around[2], around[6])]
        near, along = level(2 * (2 * a + 2 * c + b + d + e + cc)), level(across)
        sides = level((down[column] + 2 * down[column + 1] + down[column + 2]) >> 2)
        slots = [node, min(a, 15) * 16 + min(b, 15), min(c, 15) * 16 + min(cc, 15)]
        slots += [sides * 16 + along, level(down[column + 1]) * 16 + near, along * 16 + near]
        slots += [min(f, 15) * 16 + sides]
        slots += [min(a, 2) * 81 + min(c, 2) * 27 + 9 * sign[0] + 3 * sign[1] + sign[2] + 13]
        told = mixture.number(near, [slot + 256 * (node % 2) for slot in slots], 29 - dependent)
        found.append(2 * told - node % 2 * ((told > 0) - (told < 0)) if dependent else told)
        node = NEXT[node][told % 2] if dependent else 0
        size = min(abs(found[-1] + offset), 65536) << 6
        down[column + 1] += (size - down[column + 1]) // min(row + 2, 64)
        across += (size - across) // 16
    return found


def plane(data, contexts, depth):
    bits, models, found = Bits(data), {}, []
    for context in contexts:
        node = 1
        for place in range(8):
            entry = models.get((context, node), (2**21, 0))
            bit = bits.next(min(max(entry[0] >> 6, 32), 65504) if place < depth else 32768)
            models[context, node] = adapt(entry, bit)
            node = node << 1 | bit
        found.append(node & 255)
    return found


def floats(kind, parts, depths, center, floor, symbols):
    size, contexts = SIZES[kind], [min(max(v + 8, 0), 15) for v in symbols]
    words = [0 if v + center == floor else v + center for v in symbols]
    for depth, part in zip(depths, parts, strict=True):
        added = plane(part, contexts, depth) if depth else part
        words = [w << 8 | byte for w, byte in zip(words, added, strict=True)]
    words = [w >> EXPONENTS[kind] + 8 * len(depths) - 8 * size for w in words]
    return b"".join((w >> 1 | (w & 1) << 8 * size - 1).to_bytes(size, "little") for w in words)


class Header:
    def __init__(self, data, position):
        self.data, self.position = data, position

    def take(self, count):
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self):
        byte = self.take(1)[0]
        return byte if byte < 128 else byte & 127 | self.varint() << 7


def read(data):
    """Return name → (dtype, shape, little-endian bytes), or levels and step in place of bytes."""
    assert data[:8] == b"\x8fibc\r\n\x1a\x01"
    assert zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0]
    header, found, name = Header(data, 8), {}, b""
    length = header.varint()
    streams = Header(data, header.position + length)
    for _ in range(header.varint()):
        name = name[: header.varint()] + header.take(header.varint())
        kind, method = header.take(2)
        if method == 4:
            found[name.decode()] = list(found.values())[header.varint()]
            continue
        shape = tuple(header.varint() for _ in range(header.varint()))
        count = math.prod(shape)
        columns = max(1, count // shape[0] if len(shape) > 1 and shape[0] else count)
        period = header.varint() if method else 0
        step = struct.unpack("<f", header.take(4))[0] if method in (3, 5) else None
        offset, center, floor = (header.varint() if method == 2 else 0 for _ in range(3))
        depths = header.take(-(-(8 * SIZES[kind] - EXPONENTS[kind]) // 8) if method == 2 else 0)
        raw = count if method else count * SIZES[kind]
        lengths = [header.varint() if d else raw for d in (8 if method else 0, *depths)]
        parts = [streams.take(length) for length in lengths]
        told = parts[0], count, columns, period, offset, method == 5
        value = numbers(*told) if method else parts[0]
        if method == 1:
            size = SIZES[kind]
            value = b"".join((v % 256**size).to_bytes(size, "little") for v in value)
        elif method == 2:
            value = floats(kind, parts[1:], depths, center, floor, value)
        found[name.decode()] = (DTYPES[kind], shape, (value, step) if method in (3, 5) else value)
    assert streams.position == len(data) - 4
    return found
