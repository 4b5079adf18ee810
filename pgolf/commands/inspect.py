"""`pgolf inspect`: what an artifact, a packed script, a submission or a checkpoint holds."""

from pathlib import Path
from typing import Any

import click

from pgolf.console import echo, json_option, print_json, print_table


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--unwrap", "folder", type=click.Path(path_type=Path), help="Write the packed sources to a new folder.")
@json_option
def inspect(path: Path, folder: Path | None, as_json: bool) -> None:
    """Where the bytes of an artifact, a packed train_gpt.py or a submission folder go; nothing is executed.

    Of a checkpoint (safetensors, .pt, a quantized .ptz of the challenge): its format and tensors.  Of a readable
    script: the modules beside it that it imports.  Self-extracting scripts of others (LZMA, zlib, brotli and the like
    in base 85, 64 or raw bytes) are unpacked layer by layer.

    \b
    Example:
      pgolf inspect out/submission
      pgolf inspect records/some_record/train_gpt.py --unwrap out/sources
    """
    from codec.errors import UsageError

    found: dict[str, Any] = {"path": str(path)}
    sources: dict[str, str] = {}
    if path.is_dir():
        found |= _folder(path, sources)
    else:
        found |= _read(path, sources)
    if folder is not None:
        if not sources:
            raise UsageError(
                "is not a packed script, so there is nothing to unwrap",
                where=str(path),
                hint="pass a train_gpt.py or a submission folder",
            )
        _write_sources(sources, folder)
        found["unwrapped"] = str(folder)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _folder(path: Path, sources: dict[str, str]) -> dict[str, Any]:
    """Artifact and script; of other files the sizes, because a pickle is opened only when it is asked for itself."""
    from codec.errors import InputError

    script, artifact = path / "train_gpt.py", path / "model.bin"
    files = sorted(each for each in path.iterdir() if each.is_file())
    code = {each for each in files if each.suffix == ".py"} if script.is_file() else set()
    if not code and not artifact.is_file() and not any(each.suffix == ".ptz" for each in files):
        raise InputError(
            "holds no train_gpt.py, no model.bin and no .ptz", where=str(path), hint="pass a submission's folder"
        )
    found: dict[str, Any] = {}
    for file in (artifact, script):
        if file.is_file():
            found |= _read(file, sources)
    others = [each for each in files if each not in code | {artifact}]
    sizes = [{"name": each.name, "bytes": each.stat().st_size} for each in others]
    blobs = [each for each, file in zip(sizes, others, strict=True) if file.suffix == ".ptz"]
    return found | ({"blobs": blobs} if blobs else {}) | {"others": [each for each in sizes if each not in blobs]}


def _read(file: Path, sources: dict[str, str]) -> dict[str, Any]:
    """{"code": ...} for a script, what it holds added to `sources`; {"artifact": ledger}; {"checkpoint": ...}."""
    from codec.decoder import MAGIC as ARTIFACT
    from codec.errors import PgolfError
    from codec.measurement.foreign import foreign_ledger
    from codec.storage.atomic_files import read_bytes
    from packager.script.wrapper import MAGIC
    from pgolf.scripts import packed_sources

    data = read_bytes(file)
    try:
        if data.startswith(ARTIFACT[:3]) or file.name == "model.bin":
            return {"artifact": foreign_ledger(data)}
        if file.suffix != ".py" and not data.startswith(MAGIC):
            return _weights(file, data)
        packed = packed_sources(data)
        sources |= packed
        inside = packed or _readable(file)
    except PgolfError as error:
        error.where = error.where or str(file)
        raise
    modules = [{"name": name, "bytes": len(text.encode())} for name, text in inside.items()]
    return {"code": {"bytes": len(data), "packed": bool(packed), "modules": modules}}


def _weights(file: Path, data: bytes) -> dict[str, Any]:
    """A checkpoint or artifact of others; what has neither its name nor its form is weighed only."""
    from codec.errors import InputError

    try:
        return {"checkpoint": _checkpoint(file)}
    except InputError:
        if file.suffix in (".safetensors", ".pt", ".pth", ".ptz", ".bin", ".ckpt"):
            raise
        return {"unknown": {"bytes": len(data), "begins_with": data[:8].hex(" ")}}


def _readable(file: Path) -> dict[str, str]:
    """The modules beside a script that it imports, and the script itself."""
    from packager.script.wrapper import MAIN
    from pgolf.scripts import read_script

    parts = read_script(file).parts
    return {**parts.modules, MAIN: parts.main}


def _checkpoint(file: Path) -> dict[str, Any]:
    import numpy as np

    from codec.measurement.weight_count import weight_count
    from packager.importers.read_any import read_any

    imported = read_any(file)
    rows = []
    for name, array in imported.tensors.items():
        stored = imported.stored[name] if imported.stored else array
        plain, scales = (stored, None) if isinstance(stored, np.ndarray) else (stored.levels, stored.scales)
        rows.append(
            {
                "name": name,
                "dtype": str(plain.dtype),
                "shape": [*plain.shape],
                "scales": "" if scales is None else f"{scales.dtype} x {scales.size}",
            }
        )
    weights = weight_count(imported.tensors)
    return {"kind": imported.kind, "weights": weights, "notes": [*imported.notes], "tensors": rows}


def _write_sources(sources: dict[str, str], folder: Path) -> None:
    """codec.decoder -> codec/decoder.py, the script -> train_gpt.py, a package -> its __init__.py."""
    from codec.errors import InputError
    from codec.storage.atomic_files import new_folder
    from packager.script.wrapper import MAIN

    with new_folder(folder) as temporary:
        for name, text in sources.items():
            package = any(other.startswith(f"{name}.") for other in sources)
            path = name.replace(".", "/") + ("/__init__.py" if package else ".py")
            file = temporary / ("train_gpt.py" if name == MAIN else path)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text.encode())
            except OSError as error:
                raise InputError(f"module `{name}` cannot be written as a file ({error.strerror})") from None


def _print(found: dict[str, Any]) -> None:
    if "artifact" in found:
        costs = found["artifact"]
        rows = [
            (row["name"], row["stored_as"], row["weights"], row["bytes"], row["bits_per_weight"])
            for row in costs["tensors"]
        ]
        rows += [(part, "", "", costs[f"{part}_bytes"], "") for part in ("header", "table", "lane")]
        rows.append(("artifact", "", costs["weights"], costs["artifact_bytes"], costs["bits_per_weight"]))
        print_table(
            [
                (name, stored_as, _count(weights), f"{size:,.0f}", f"{bits:.3f}" if bits != "" else "")
                for name, stored_as, weights, size, bits in rows
            ],
            ("tensor", "stored as", "weights", "bytes", "bits/weight"),
        )
        click.echo(f"bytes of the tensors: {_by_kind(costs['tensors'])}")
    if "checkpoint" in found:
        checkpoint = found["checkpoint"]
        print_table(
            [
                (row["name"], row["dtype"], " x ".join(map(str, row["shape"])), row["scales"])
                for row in checkpoint["tensors"]
            ],
            ("tensor", "stored as", "shape", "scales"),
        )
        click.echo(f"{checkpoint['weights']:,} weights, {checkpoint['kind']}")
        for note in checkpoint["notes"]:
            echo(f"note: {note}")
    for blob in found.get("blobs", []):
        echo(f"{blob['name']}: {blob['bytes']:,} bytes, a pickle inside, not opened; `pgolf inspect FILE` opens it")
    if "code" in found:
        code = found["code"]
        total = "packed together" if code["packed"] else "readable; of this file"
        print_table(
            [*((row["name"], f"{row['bytes']:,}") for row in code["modules"]), (total, f"{code['bytes']:,}")],
            ("module", "bytes"),
        )
    if "unknown" in found:
        unknown = found["unknown"]
        echo(f"{unknown['bytes']:,} bytes of no known format, beginning with {unknown['begins_with']}")
    if found.get("others"):
        names = ", ".join(f"{each['name']} ({each['bytes']:,})" for each in found["others"])
        echo(f"also there: {names} bytes")
    if "unwrapped" in found:
        click.echo(f"sources written to {found['unwrapped']}")


def _by_kind(tensors: list[dict[str, Any]]) -> str:
    """What the bytes of all tensors are: "levels 21,524, scales 840, plain arrays 1,087"."""
    quantized = [row for row in tensors if row["quantized"]]
    kinds = {
        "levels": sum(row["payload_bytes"] for row in quantized),
        "scales": sum(row["scale_bytes"] for row in tensors),
        "column steps": sum(row["column_step_bytes"] for row in tensors),
        "classes": sum(row["class_bytes"] for row in tensors),
        "plain arrays": sum(row["payload_bytes"] for row in tensors if not row["quantized"]),
    }
    return ", ".join(f"{name} {size:,.0f}" for name, size in kinds.items() if size)


def _count(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value
