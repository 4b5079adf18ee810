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


def rows_of(section: str) -> list[list[str]]:
    """The cells of the first table of a part of the page whose rows begin with code."""
    table = section[section.index("|---") :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[1:]]


def page_schedule(section: str) -> list[tuple[str, ...]]:
    """(plane, how many, shape, table) of each row of the page's table, the last three as expressions."""
    return [(plane.split("`")[1], *(cell.strip("`") for cell in rest)) for plane, *rest in rows_of(section)]


MODEL = {int(count): names.strip("`") for count, names in rows_of(PAGE.partition("numbers of a matrix:")[2])}
MODEL[0] = ""
SCHEDULE = page_schedule(PAGE.partition("## The planes of a tensor")[2])
ROW_SCHEDULE = page_schedule(PAGE.partition("A `trellis` goes on with these")[2])


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
        self.column_steps: dict[int, list[list[int]]] = {}

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

    def planes(self, names: dict, schedule, planes: dict[str, list[int]], row: int | None = None) -> None:
        """Read planes as a table of the page tells them.  names: what its expressions may mention.

        planes: gets them by name.  row: that the table is for, None where it is for the tensor.
        """
        for plane, how_many, shape, table in schedule:
            for k in range(int(eval(how_many, {}, names))):
                names["k"] = k
                sides = eval(f"[{shape}]", {}, names)
                if plane == "levels":
                    tables = self.level_tables(names, planes, compile(table, plane, "eval"), row)
                else:
                    tables = [eval(table, {}, names)] * math.prod(sides)
                planes[plane.replace("_k", f"_{k}")] = self.plane(tables)
            if plane == "multiples":
                names["referring"] = sum(1 for multiple in planes.get("multiples", []) if multiple)
            if row is not None and plane == "levels":
                names["far"] = planes["levels"].count(255)

    def level_tables(self, names: dict, planes: dict[str, list[int]], table, only: int | None) -> list[int]:
        rows, columns, segments = names["rows"], names["columns"], names["segments"]
        row = planes.get("row_classes", [0] * rows * segments)
        column = planes.get("column_classes", [0] * columns)
        return [
            eval(
                table,
                {},
                {
                    **names,
                    "row_class": row[r * segments + c * segments // columns],
                    "column_class": column[c],
                    "odd": names["states"][c] % 2,
                },
            )
            for r in (range(rows) if only is None else [only])
            for c in range(columns)
        ]

    def trellis_levels(self, names: dict, planes: dict[str, list[int]]) -> list[int]:
        levels = []
        for row in range(names["rows"]):
            if row % names["restart"] == 0:
                names["states"] = [0] * names["columns"]
            self.planes(names, ROW_SCHEDULE, planes, row)
            far = iter(zip(planes.get("low_far", []), planes.get("high_far", []), strict=True))
            for c, v in enumerate(planes["levels"]):
                if v == 255 and names["far_table"]:
                    low, high = next(far)
                    v += low + 256 * high
                half = -(v + 1) // 2 if v % 2 else v // 2
                state = names["states"][c]
                levels.append(2 * half + state % 2)
                moves = (state % 2 * names["if_odd"]) ^ (half % 2 * names["if_half_odd"])
                names["states"][c] = state // 2 ^ moves
        return levels

    def tensor(self, kind: str, shape: list[int], tables: list[int], *model: int):
        """(dtype, shape, bytes) of a plain tensor; of a quantized one (kind, shape, scale bytes, levels, column steps),
        and of a trellis row steps and what moves and restarts it behind them."""
        numbers = dict(zip(MODEL[len(model)].split(", ") if model else [], model, strict=True))
        trellis, quantized = kind == "trellis", kind in ("row", "row*", "row=", "all", "trellis")
        count = math.prod(shape)
        assert not quantized or model
        rows = shape[0] if model and kind != "all" and (len(shape) > 1 or not trellis) else 1
        names = {"row_table": 0, "column_table": 0, "segments": 1, "earlier": 0, **numbers, "kind": kind, "rows": rows}
        names |= {"matrix": bool(model), "trellis": trellis, "predicted": "multiple_table" in numbers}
        names |= {"columns": count // rows if rows else 0, "items": count}
        if quantized:
            names["items"] = 1 if kind in ("all", "trellis") else rows
        names["states"] = [0] * names["columns"]
        names["byte_tables"] = tables
        if kind == "row*":
            *names["byte_tables"], names["step_table"] = tables
        if trellis:
            *names["byte_tables"], names["row_step_table"], names["step_table"] = tables
        planes: dict[str, list[int]] = {}
        self.planes(names, SCHEDULE, planes)
        if trellis:
            levels = self.trellis_levels(names, planes)
        elif model:
            levels = predicted_levels(planes, rows, names["columns"], numbers["lowest"])
            if not quantized:
                planes[f"byte_{len(tables)}"] = [level % 256 for level in levels]
        content = [plane for name, plane in sorted(planes.items()) if name.startswith("byte_")]
        content = bytes(plane[item] for item in range(names["items"]) for plane in content)
        if not quantized:
            return kind, shape, content
        steps = self.column_steps.setdefault(names["columns"], [])
        if "column_steps" in planes:
            steps.append(planes["column_steps"])
        found = kind, shape, content, levels, None if kind in ("row", "all") else steps[-(names["earlier"] or 1)]
        if trellis:
            found += planes["row_steps"], tuple(numbers[name] for name in ("if_odd", "if_half_odd", "restart"))
        return found


def values(tensor: tuple) -> list[float]:
    """Of a trellis as the reader gives it: its weights, float32."""
    _, _, scale, levels, columns, rows, _ = tensor
    (scale,) = struct.unpack("<f", scale)

    def step(s: int) -> float:
        return math.ldexp(EIGHTHS[s % 8], s // 8 - 32)

    found = []
    for place, level in enumerate(levels):
        value = level * step(columns[place % len(columns)]) * step(rows[place // len(columns)]) * scale
        try:
            found.append(struct.unpack("<f", struct.pack("<f", value))[0])
        except OverflowError:
            found.append(math.copysign(math.inf, value))
    return found


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
