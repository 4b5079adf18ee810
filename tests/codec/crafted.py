"""Artifacts with right checksums that ask for much and hold little: planes of one symbol cost no bits."""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from codec import CodecError
from codec.decoder import MAX_TABLES, SCALES, frequencies, open_artifact, parse_form
from codec.entropy.rans import rans_encode, table_logs

ONE = np.ones(1, np.uint8)  # a table of symbol 0 alone
LAST = np.append(np.zeros(255, np.uint8), np.uint8(1))  # of symbol 255 alone
Plane = tuple[int | np.ndarray, int, int]  # symbol, or one for each; how many; table


def craft(
    header: object, planes: Sequence[Plane] = (), *, lanes: int = 1, tables: Sequence[np.ndarray] = (ONE,)
) -> bytes:
    """tables: stored after the text's, from number 2 on.  header: text as it is, or what is to be JSON."""
    said = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    text = np.frombuffer(said.encode(), np.uint8)
    logs = [table_logs(np.bincount(text, minlength=256)), *tables]
    coded = [
        (np.full(count, each).astype(np.uint8), np.broadcast_to(np.int64(table), count))
        for each, count, table in planes
    ]
    known = np.stack([np.full(256, 64), *map(frequencies, logs)])
    states, words = rans_encode([*coded[::-1], (text, np.ones(len(text), np.int64))], known, lanes)
    stored = b"".join(bytes([len(each) - 1]) + each.tobytes() for each in logs)
    body = b"PGA1" + struct.pack("<4I", len(text), len(stored), lanes, len(words)) + stored
    body += states.tobytes() + words.tobytes()
    return body + struct.pack("<I", zlib.crc32(body))


def longer(blob: bytes, characters: int) -> bytes:
    """The same file, said to have a longer text."""
    body = blob[:4] + struct.pack("<I", characters) + blob[8:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def declared_bytes(blob: bytes) -> int:
    """Of the arrays that an artifact says it holds, decoded; ties and forms that are none take nothing."""
    try:
        forms, names = (open_artifact(blob)[1][part] for part in ("forms", "names"))
        sizes = []
        for form in map(parse_form, forms):
            floats = form.kind in SCALES or form.dtype == np.float16
            sizes.append(math.prod(form.shape) * (4 if floats else form.dtype.itemsize))
        return min(sum(sizes[form] for _, _, form in names if form >= 0), 1 << 63)
    except (CodecError, ArithmeticError, LookupError, TypeError, ValueError):
        return 0


def name_bytes(blob: bytes) -> int:
    """For all names together, up to what a reader's work allows: 40 a character, as it is 4 and 12 in JSON, copied."""
    total = length = 0
    try:
        for shared, suffix, _ in open_artifact(blob)[1]["names"]:
            length = min(length, abs(shared)) + len(suffix)
            total += 40 * length
    except (CodecError, LookupError, TypeError, ValueError):
        pass
    return min(total, 40 << 22)


def memory_bound(blob: bytes, declared: int) -> int:
    """Bytes that a reader may take.  declared: of the arrays.  docs/format.md, Limits, says the same."""
    characters, stored = struct.unpack("<2I", blob[4:12])
    tables, at = 1, 20
    while at < 20 + stored and tables < MAX_TABLES:
        tables, at = tables + 1, at + blob[at] + 2
    characters = min(characters, 1 << 20)
    return 10 * (declared + len(blob)) + 128 * characters + (160 << 10) * tables + name_bytes(blob) + (4 << 20)


def header(forms: list, names: list) -> dict:
    return {"meta": {}, "forms": forms, "names": names}


def one(form: list, planes: Sequence[Plane] = (), **how) -> bytes:
    return craft(header([form], [[0, "a", 0]]), planes, **how)


def trellis(rows: int, columns: int, far_table: int, planes: Sequence[Plane], **how) -> bytes:
    form = ["trellis", [rows, columns], [2] * 6, 3 if far_table else 2, 0, 0, 1, 5, 2, 512, 0, far_table, 0]
    return one(form, [(0, 1, 2)] * 4 + [(0, columns, 2), (0, rows, 2), *planes], **how)


def hexes(count: int) -> list[str]:
    return [f"{number:x}" for number in range(count)]


def tied(form: list, stored: int, count: int) -> dict:
    """A header of so many names, short ones: the first ones are stored, all others tied to the first."""
    names, before = [], ""
    for number, name in enumerate(sorted(hexes(count))):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, name, strict=False)))
        names.append([shared, name[shared:], 0 if number < stored else -1])
        before = name
    return header([form], names)


SMALL = {  # what is refused at once, or takes no time
    "names that grow": lambda: craft(
        header([["|u1", [], [0]]], [[0, "a" * 9000, 0], *([9000, each, -1] for each in hexes(2000))]),
        [(0, 1, 0)],
        lanes=8,
    ),
    "one lane of a constant": lambda: one(["|u1", [1 << 25], [2]]),
    "more bytes than there may be": lambda: one(["<f8", [1 << 26], [2] * 8], lanes=1 << 16),
    "many weights of a row": lambda: one(["row", [4, 1 << 26], [2, 2], 0, 2, 0, 0], [(0, 4, 2)] * 2, lanes=1 << 16),
    "columns without rows": lambda: one(["row*", [0, 1 << 28], [2, 2, 2], 0, 2, 0, 0], lanes=1 << 16),
    "items of 16 bytes": lambda: one(["<f16", [4], [0] * 16]),
    "long doubles by name": lambda: one(["longdouble", [4], [0] * 16]),
    "a dtype of many fields": lambda: one(["i4," * 20_000, [], [0]], lanes=64),
    "more byte planes than bytes": lambda: one(["<f4", [1 << 18], [2] * 5], lanes=64),
    "fewer byte planes than bytes": lambda: one(["<f4", [1 << 18], [2] * 3], lanes=64),
    "big-endian by another name": lambda: one(["float32", [4], [0] * 4]),
    "JSON that nests": lambda: craft('{"meta":{"a":' + "[" * 5000),
    "text that costs nothing": lambda: longer(craft('{"meta":{},"forms":[],"names":[]}'), 1_000_000),
    "a text too long": lambda: craft('{"meta":{},"forms":[],"names":[]}' + " " * (1 << 20), lanes=1 << 12),
    "tables": lambda: craft(header([], []), tables=[ONE] * 509),
    "nested to the limit": lambda: craft(
        '{"meta":{"a":' + "[" * 985 + "]" * 985 + '},"forms":[],"names":[]}', lanes=64
    ),
    "integers of 4200 digits": lambda: craft(
        '{"meta":{"a":[' + ",".join(["9" * 4200] * 240) + ']},"forms":[],"names":[]}', lanes=256
    ),
    "an integer of 5000 digits": lambda: craft('{"meta":{"a":' + "9" * 5000 + '},"forms":[],"names":[]}', lanes=64),
    "not numbers": lambda: craft('{"meta":{"a":[NaN,-Infinity,1e999]},"forms":[],"names":[]}'),
    "keys that occur twice": lambda: craft('{"meta":1,"meta":{},"forms":[],"forms":0,"names":[],"names":[]}'),
    "half a surrogate pair": lambda: craft(
        r'{"meta":{"a":"\ud800"},"forms":[["|u1",[],[2]]],"names":[[0,"\ud800",0]]}', [(0, 1, 2)]
    ),
    "a name for a terminal": lambda: craft(header([["|u1", [], [2]]], [[0, "../../\0\x1b[2J\n", 0]]), [(0, 1, 2)]),
    "names of wide characters": lambda: craft(
        header([["|u1", [], [2]]], [[0, "\U0001f600" + "a" * 9000, 0], *([9001, f"{n:03}", -1] for n in range(450))]),
        [(0, 1, 2)],
        lanes=8,
    ),
    "names of nothing but wide characters": lambda: craft(
        header([["|u1", [], [2]]], [[0, "\U0001f600" * 9000, 0], *([9000, f"{n:03}", -1] for n in range(450))]),
        [(0, 1, 2)],
        lanes=8,
    ),
    "sides beyond 64 bits": lambda: one(["|u1", [1 << 28] * 8, [2]]),
    "64 sides beyond every float": lambda: one(["|u1", [1 << 28] * 64, [2]]),
    "an overflow times 0": lambda: one(["|u1", [*[1 << 28] * 8, 0], [2]]),
    "negative sides": lambda: one(["|u1", [-1, -4], [2]]),
    "a side of 1e40": lambda: one(["|u1", [10**40], [2]]),
    "sides that are no integers": lambda: one(["|u1", [1.5, True], [2]]),
    "a form of 400,000 sides": lambda: one(["|u1", [1] * 400_000, [2]], lanes=256),
    "times": lambda: one(["<M8", [4], [2] * 8]),
    "objects": lambda: one(["|O8", [4], [2] * 8]),
    "a table that is not there": lambda: one(["|u1", [4], [600]]),
    "classes beyond 16 bits": lambda: one(
        ["row", [2, 2], [2, 2], 0, 32767, 2, 2], [(0, 2, 2)] * 2 + [(255, 2, 3)] * 2, tables=[ONE, LAST]
    ),
    "levels beyond 64 bits": lambda: one(["row", [2, 2], [2, 2], 1 << 90, 2, 0, 0], [(0, 2, 2)] * 2),
    "a tie to what comes later": lambda: craft(header([["|u1", [], [2]]], [[0, "a", -2], [0, "b", 0]])),
    "a tie to itself": lambda: craft(header([], [[0, "a", -1]])),
    "column steps of nobody": lambda: one(["row=", [1, 4], [2, 2], 0, 2, 0, 0], [(0, 1, 2)] * 2),
    "states of a trellis beyond its columns": lambda: one(
        ["trellis", [4, 4], [2] * 6, 2, 0, 0, 1, 1 << 28, 1 << 28, 1 << 28, 1 << 28, 0, 0], [(0, 1, 2)] * 4
    ),
    "segments of nothing": lambda: one(["row", [4, 4], [2, 2], 0, 2, 2, 0, 0]),
}
LARGE = {  # as much as the limits allow, and a little more
    "forms alone": lambda: craft(header([["|u1", [], [0]]] * 60_000, []), lanes=256),
    "a constant": lambda: one(["|u1", [36_000_000], [2]], [(0, 36_000_000, 2)], lanes=1024),
    "constants of one lane": lambda: one(["|u1", [120_000], [2]], [(0, 120_000, 2)]),
    "a constant of many lanes": lambda: one(["|u1", [42_000_000], [2]], [(0, 42_000_000, 2)], lanes=1 << 16),
    "levels": lambda: one(
        ["row", [1 << 10, 40_000], [2, 2], 0, 2, 0, 0], [(0, 1 << 10, 2)] * 2 + [(0, 40_000 << 10, 2)], lanes=1 << 14
    ),
    "levels of 65536 columns, one scale": lambda: one(
        ["all", [1 << 8, 1 << 16], [2] * 4, 0, 2, 0, 0], [(0, 1, 2)] * 4 + [(0, 1 << 24, 2)], lanes=1 << 14
    ),
    "classes of every weight": lambda: one(
        ["row*", [1 << 22, 1], [2] * 3, 0, 2, 2, 2],
        [(0, 1 << 22, 2)] * 2 + [(0, 1, 2), (0, 1 << 22, 2), (0, 1, 2), (0, 1 << 22, 2)],
        lanes=1 << 14,
    ),
    "rows of a trellis": lambda: trellis(20_000, 1, 0, [(0, 1, 2)] * 20_000, lanes=64),
    "rows of a trellis, too many": lambda: trellis(1 << 18, 1, 0, [(0, 1, 2)] * 40_000, lanes=64),
    "rows that are far": lambda: trellis(
        7000, 1, 2, [(255, 1, 3), (7, 1, 0), (0, 1, 2)] * 7000, lanes=64, tables=[ONE, LAST]
    ),
    "predicted rows": lambda: one(
        ["row", [90_000, 1], [2, 2], 0, 2, 0, 0, 3, 2],
        [(0, 90_000, 2)] * 2
        + [((np.arange(90_000) > 0).astype(int), 90_000, 3), (0, 89_999, 0), (0, 89_999, 2), (0, 90_000, 2)],
        lanes=1 << 10,
        tables=[ONE, np.array([1, 185], np.uint8)],
    ),
    "a million predicted rows": lambda: one(
        ["row", [1 << 20, 1], [2, 2], 0, 2, 0, 0, 2, 2], [(0, 1 << 20, 2)] * 2 + [(0, 1 << 20, 2)], lanes=1 << 10
    ),
    "small tensors": lambda: craft(
        header([["|u1", [], [2]]], [[0, each, 0] for each in sorted(hexes(20_000))]), [(0, 1, 2)] * 20_000, lanes=256
    ),
    "empty tensors": lambda: craft(
        header([["|u1", [0], [2]]], [[0, each, 0] for each in sorted(hexes(40_000))]), lanes=256
    ),
    "ties of a large tensor": lambda: craft(
        header([["|u1", [1 << 25], [2]]], [[0, "", 0], *([0, each, -1] for each in sorted(hexes(40_000)))]),
        [(0, 1 << 25, 2)],
        lanes=1 << 14,
    ),
    "a text of one lane": lambda: craft('{"meta":{},"forms":[],"names":[]}' + " " * 120_000),
    "ties that fill the text": lambda: craft(
        tied(["|u1", [1 << 25], [2]], 1, 85_000), [(0, 1 << 25, 2)], lanes=1 << 14
    ),
    "tensors and ties": lambda: craft(tied(["|u1", [], [2]], 17_000, 80_000), [(0, 1, 2)] * 17_000, lanes=256),
    "a trellis of one row": lambda: trellis(1, 1 << 23, 0, [(0, 1 << 23, 2)], lanes=1 << 14),
    "steps of no rows": lambda: one(["row*", [0, 1 << 24], [2] * 3, 0, 2, 0, 0], [(0, 1 << 24, 2)], lanes=1 << 14),
    "steps of one row": lambda: one(
        ["row*", [1, 1 << 24], [2] * 3, 0, 2, 0, 0], [(0, 1, 2)] * 2 + [(0, 1 << 24, 2)] * 2, lanes=1 << 14
    ),
    "levels of a plain tensor": lambda: one(
        ["|i1", [1 << 10, 1 << 14], [], 0, 2, 0, 0], [(0, 1 << 24, 2)], lanes=1 << 14
    ),
    "objects of one key": lambda: craft(
        '{"meta":{"a":[' + '{"":0},' * 140_000 + '0]},"forms":[],"names":[]}', lanes=256
    ),
    "JSON of empty objects": lambda: craft(
        '{"meta":{"a":[' + "{}," * 300_000 + '0]},"forms":[],"names":[]}', lanes=256
    ),
}
