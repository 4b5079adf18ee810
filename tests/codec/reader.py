"""A second reader of artifacts, written from docs/format.md alone: pure Python, one symbol at a time, no numpy."""

import json
import math
import struct
import zlib

EIGHTHS = [round(2 ** (16 + i / 8)) for i in range(8)]


def frequencies(stored: bytes) -> list[int]:
    weights = [EIGHTHS[(b - 1) % 8] << ((b - 1) // 8) if b else 0 for b in stored]
    counts = [max(1, weight * 2**14 // sum(weights)) if weight else 0 for weight in weights]
    counts[counts.index(max(counts))] += 2**14 - sum(counts)
    return counts


class Reader:
    def __init__(self, blob: bytes) -> None:
        self.text_length, table_bytes, lanes, words = struct.unpack("<4I", blob[4:20])
        assert blob[:4] == b"PGA1"
        assert len(blob) == 24 + table_bytes + 4 * lanes + 2 * words
        assert zlib.crc32(blob[:-4]) == struct.unpack("<I", blob[-4:])[0]
        self.tables, at = [[64] * 256], 20
        while at < 20 + table_bytes:
            self.tables.append(frequencies(blob[at + 1 : at + 2 + blob[at]]))
            at += 2 + blob[at]
        self.states = list(struct.unpack_from(f"<{lanes}I", blob, at))
        self.words = list(struct.unpack_from(f"<{words}H", blob, at + 4 * lanes))[::-1]

    def plane(self, tables: list[int]) -> list[int]:
        symbols = []
        for start in range(0, len(tables), len(self.states)):
            step = tables[start : start + len(self.states)]
            for lane, table in enumerate(step):
                slot, cumulative = self.states[lane] % 2**14, 0
                symbol = 0
                while not cumulative <= slot < cumulative + self.tables[table][symbol]:
                    cumulative += self.tables[table][symbol]
                    symbol += 1
                frequency = self.tables[table][symbol]
                self.states[lane] = frequency * (self.states[lane] // 2**14) + slot - cumulative
                symbols.append(symbol)
            for lane in range(len(step)):
                if self.states[lane] < 2**16:
                    self.states[lane] = self.states[lane] * 2**16 + self.words.pop()
        return symbols

    def items(self, tables: list[int], count: int) -> bytes:
        planes = [self.plane([table] * count) for table in tables]
        return bytes(plane[item] for item in range(count) for plane in planes)

    def tensor(self, kind: str, shape: list[int], planes: list[int], *model: int):
        """(dtype, shape, bytes) of a plain tensor; (kind, shape, scale bytes, levels) of a quantized one."""
        count = math.prod(shape)
        if not model:
            return kind, shape, self.items(planes, count)
        rows = shape[0] if kind != "all" else 1
        columns = count // rows if rows else 0
        if kind not in ("row", "all"):
            low = [self.plane([table] * count) for table in planes]
            planes = [*low, [level % 256 for level in self.matrix(rows, columns, *model)]]
            return kind, shape, bytes(plane[item] for item in range(count) for plane in planes)
        return kind, shape, self.items(planes, rows), self.matrix(rows, columns, *model)

    def matrix(self, rows: int, columns: int, lowest: int, base: int, row_table: int, column_table: int, *more):
        prediction, parts = more[: len(more) // 2 * 2], more[-1] if len(more) % 2 else 1
        row = self.plane([row_table] * rows * parts) if row_table else [0] * rows * parts
        column = self.plane([column_table] * columns) if column_table else [0] * columns
        multiples, references = [0] * rows, iter(())
        if prediction:
            multiples = self.plane([prediction[0]] * rows)
            predicted = sum(1 for multiple in multiples if multiple)
            low, high = self.plane([0] * predicted), self.plane([prediction[1]] * predicted)
            references = iter([first + 256 * second for first, second in zip(low, high, strict=True)])
        wide = columns // parts
        tables = [base + row[r * parts + c // wide] + column[c] for r in range(rows) for c in range(columns)]
        values = [symbol + lowest for symbol in self.plane(tables)]
        for index in range(rows):
            if multiples[index]:
                reference = next(references)
                for c in range(columns):
                    said = math.floor((multiples[index] - 9) * values[reference * columns + c] / 8 + 0.5)
                    values[index * columns + c] = (values[index * columns + c] + said + 128) % 256 - 128
        return values


def read(blob: bytes) -> tuple[dict, dict]:
    reader = Reader(blob)
    header = json.loads(bytes(reader.plane([1] * reader.text_length)))
    tensors, name = {}, ""
    for shared, suffix, form in header["names"]:
        name = name[:shared] + suffix
        tensors[name] = reader.tensor(*header["forms"][form]) if form >= 0 else list(tensors.values())[-1 - form]
    assert not reader.words
    assert set(reader.states) == {2**16}
    return header["meta"], tensors
