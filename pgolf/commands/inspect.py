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

    Of a checkpoint (safetensors, .pt, a quantized .ptz of the challenge): its format and tensors.  Self-extracting
    scripts of others (LZMA, zlib, brotli and the like in base 85, 64 or raw bytes) are unpacked layer by layer.

    \b
    Example:
      pgolf inspect out/submission
      pgolf inspect records/some_record/train_gpt.py --unwrap out/sources
    """
    from codec.errors import UsageError

    found: dict[str, Any] = {"path": str(path), **_unopened(path)}
    sources: dict[str, str] = {}
    for file in _files(path):
        found |= _read(file, sources)
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


def _files(path: Path) -> list[Path]:
    """Artifact and script of a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    return [path / "train_gpt.py"] if _unopened(path) else [path / "model.bin", path / "train_gpt.py"]


def _unopened(path: Path) -> dict[str, Any]:
    """Blobs of a submission folder of others, with their sizes: a pickle is opened only when it is asked for itself."""
    blobs = [] if (path / "model.bin").exists() else sorted(path.glob("*.ptz"))
    return {"blobs": [{"name": blob.name, "bytes": blob.stat().st_size} for blob in blobs]} if blobs else {}


def _read(file: Path, sources: dict[str, str]) -> dict[str, Any]:
    """{"code": ...} for a packed script, its modules added to `sources`; {"artifact": ledger}; {"checkpoint": ...}."""
    from codec import ledger
    from codec.decoder import MAGIC as ARTIFACT
    from codec.errors import PgolfError
    from codec.storage.atomic_files import read_bytes
    from packager.script.wrapper import MAGIC, unwrap

    data = read_bytes(file)
    try:
        if data.startswith(ARTIFACT[:3]) or file.name == "model.bin":
            return {"artifact": ledger(data).to_dict()}
        if file.suffix != ".py" and not data.startswith(MAGIC):
            return {"checkpoint": _checkpoint(file)}
        sources |= unwrap(data) if data.startswith(MAGIC) else _layers(data)
    except PgolfError as error:
        error.where = error.where or str(file)
        raise
    modules = [{"name": name, "bytes": len(text.encode())} for name, text in sources.items()]
    return {"code": {"bytes": len(data), "modules": modules}}


def _layers(data: bytes) -> dict[str, str]:
    """{name: source} of what a script of another packer holds, the innermost as __main__."""
    from codec.errors import InputError
    from packager.script.wrapper import MAIN
    from verify.submission.source_layers import read_source, unwrap

    layers = unwrap(read_source(data))
    if not layers:
        raise InputError("is not a self-extracting script that can be unpacked without running it")
    names = [*(f"layer_{number}" for number in range(1, len(layers))), MAIN]
    return {name: layer.text for name, layer in zip(names, layers, strict=True)}


def _checkpoint(file: Path) -> dict[str, Any]:
    import numpy as np

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
    weights = sum(array.size for array in imported.tensors.values())
    return {"kind": imported.kind, "weights": weights, "notes": [*imported.notes], "tensors": rows}


def _write_sources(sources: dict[str, str], folder: Path) -> None:
    """codec.decoder -> codec/decoder.py, the script -> train_gpt.py."""
    from codec.errors import InputError
    from codec.storage.atomic_files import new_folder
    from packager.script.wrapper import MAIN

    with new_folder(folder) as temporary:
        for name, text in sources.items():
            file = temporary / ("train_gpt.py" if name == MAIN else name.replace(".", "/") + ".py")
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
        print_table(
            [
                *((row["name"], f"{row['bytes']:,}") for row in found["code"]["modules"]),
                ("packed together", f"{found['code']['bytes']:,}"),
            ],
            ("module", "bytes"),
        )
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
