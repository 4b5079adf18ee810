"""A second reader of artifacts, written from docs/format.md alone: pure Python, one symbol at a time, no numpy.

The schedule of planes it follows is the page's own table, read as data.
"""

import json
import math
import struct
import zlib
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "format.md").read_text()
EIGHTHS = [round(2 ** (16 + i / 8)) for i in range(8)]
MODEL = {
    0: "",
    4: "lowest base row_table column_table",
    5: "lowest base row_table column_table segments",
    6: "lowest base row_table column_table multiple_table high_table",
    7: "lowest base row_table column_table multiple_table high_table segments",
}


def page_schedule() -> list[tuple[str, ...]]:
    """(plane, how many, shape, table) of each row of the page's table, the last three as expressions."""
    lines = PAGE.partition("## The planes of a tensor")[2].partition("\n\n-")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    return [(plane.split("`")[1], *(cell.strip("`") for cell in rest)) for plane, *rest in cells]


SCHEDULE = page_schedule()


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
        self.column_steps: dict[int, list[int]] = {}

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

    def planes(self, names: dict) -> dict[str, list[int]]:
        """The planes of a tensor by name, as the page's table tells them.  names: what its expressions may mention."""
        planes: dict[str, list[int]] = {}
        for plane, how_many, shape, table in SCHEDULE:
            for k in range(int(eval(how_many, {}, names))):
                names["k"] = k
                sides = eval(f"[{shape}]", {}, names)
                if plane == "levels":
                    tables = self.level_tables(names, planes, compile(table, plane, "eval"))
                else:
                    tables = [eval(table, {}, names)] * math.prod(sides)
                planes[plane.replace("_k", f"_{k}")] = self.plane(tables)
            if plane == "multiples":
                names["referring"] = sum(1 for multiple in planes.get("multiples", []) if multiple)
        return planes

    def level_tables(self, names: dict, planes: dict[str, list[int]], table) -> list[int]:
        rows, columns, segments = names["rows"], names["columns"], names["segments"]
        row = planes.get("row_classes", [0] * rows * segments)
        column = planes.get("column_classes", [0] * columns)
        return [
            eval(
                table,
                {},
                {**names, "row_class": row[r * segments + c * segments // columns], "column_class": column[c]},
            )
            for r in range(rows)
            for c in range(columns)
        ]

    def tensor(self, kind: str, shape: list[int], tables: list[int], *model: int):
        """(dtype, shape, bytes) of a plain tensor; (kind, shape, scale bytes, levels, column steps) if quantized."""
        numbers = dict(zip(MODEL[len(model)].split(), model, strict=True))
        quantized, count = kind in ("row", "row*", "row=", "all"), math.prod(shape)
        assert not quantized or model
        rows = shape[0] if model and kind != "all" else 1
        names = {"row_table": 0, "column_table": 0, "segments": 1, **numbers, "kind": kind, "rows": rows}
        names |= {"matrix": bool(model), "predicted": "multiple_table" in numbers}
        names |= {"columns": count // rows if rows else 0, "items": rows if quantized else count}
        names["byte_tables"] = tables[:2] if kind == "row*" else tables
        names["step_table"] = tables[-1] if kind == "row*" else None
        planes = self.planes(names)
        if model:
            levels = predicted_levels(planes, rows, names["columns"], numbers["lowest"])
            if not quantized:
                planes[f"byte_{len(tables)}"] = [level % 256 for level in levels]
        content = [plane for name, plane in sorted(planes.items()) if name.startswith("byte_")]
        content = bytes(plane[item] for item in range(names["items"]) for plane in content)
        if not quantized:
            return kind, shape, content
        if kind == "row*":
            self.column_steps[names["columns"]] = planes["column_steps"]
        return kind, shape, content, levels, self.column_steps[names["columns"]] if kind in ("row*", "row=") else None


def predicted_levels(planes: dict[str, list[int]], rows: int, columns: int, lowest: int) -> list[int]:
    values = [symbol + lowest for symbol in planes["levels"]]
    references = zip(planes.get("low_references", []), planes.get("high_references", []), strict=True)
    for row, multiple in enumerate(planes.get("multiples", [])):
        if multiple:
            low, high = next(references)
            for c in range(columns):
                said = math.floor((multiple - 9) * values[(low + 256 * high) * columns + c] / 8 + 0.5)
                values[row * columns + c] = (values[row * columns + c] + said + 128) % 256 - 128
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
