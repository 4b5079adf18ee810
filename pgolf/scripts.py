"""Scripts as the commands take them: readable, or packed by this toolkit or by others."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import InputError, PgolfError

if TYPE_CHECKING:
    from packager.script.bundle import Bundle

RUNNING = frozenset({"exec", "run_module", "run_path"})
UNPACKING = RUNNING | {  # what a wrapper that only unpacks calls
    *("__import__", "a85decode", "b64decode", "b85decode", "compile", "decode", "decompress", "fromhex", "len"),
    *("split", "splitlines", "standard_b64decode", "unhexlify", "urlsafe_b64decode"),
}
LITERAL = 200  # characters: shorter ones are settings, not payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """parts: the script with all it needs.  unpacked: in what form it was packed, "" for a readable one."""

    parts: "Bundle"
    unpacked: str = ""


def read_script(path: Path) -> Script:
    """Follow the imports of a script; one that is packed is unpacked first, as data.

    Raises: InputError when it is no Python source, imports what cannot be carried, or is packed by a wrapper that does
    more than to unpack it.
    """
    from codec.storage.atomic_files import read_bytes
    from packager.script.bundle import bundle, carried
    from packager.script.wrapper import MAGIC, MAIN, unwrap
    from verify.submission.source_layers import read_source, unread
    from verify.submission.source_layers import unwrap as layers_of

    data = read_bytes(path)
    try:
        if data.startswith(MAGIC):
            modules = unwrap(data)
            return Script(parts=carried(modules.pop(MAIN), modules, str(path)), unpacked="this toolkit's form")
        text, form = read_source(data), ""
        if _only_unpacks(text, str(path)):
            if layers := layers_of(text):
                text, form = layers[-1].text, layers[-1].form
            elif reasons := unread(text):
                raise InputError(f"is packed, and holds {reasons[0]}", hint="copy the file again")
        return Script(parts=bundle(text, str(path), beside=path.parent), unpacked=form)
    except PgolfError as error:
        error.where = error.where or str(path)
        raise


def packed_sources(data: bytes) -> dict[str, str]:
    """{module: source} of what a packed script holds, of this toolkit's form or another's; {} for a readable script.

    The innermost layer of another packer is __main__.  Raises: InputError, CodecError for a damaged one.
    """
    from packager.script.wrapper import MAGIC, MAIN, unwrap
    from verify.submission.source_layers import read_source
    from verify.submission.source_layers import unwrap as layers_of

    if data.startswith(MAGIC):
        return unwrap(data)
    layers = layers_of(read_source(data))
    names = [*(layer.name or f"layer_{number}" for number, layer in enumerate(layers[:-1], start=1)), MAIN]
    return {name: layer.text for name, layer in zip(names, layers, strict=True)} if layers else {}


def own_file_reads(text: str) -> list[int]:
    """Lines of a script that read or measure its own file; what they find is the packed text."""
    readers = {"getsize", "open", "read_bytes", "read_text", "stat"}
    lines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in readers:
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            path = owner.args if isinstance(owner, ast.Call) else node.args  # Path(__file__).stat() or open(__file__)
            if path and isinstance(path[0], ast.Name) and path[0].id == "__file__":
                lines.add(node.lineno)
    return sorted(lines)


def _only_unpacks(text: str, where: str) -> bool:
    """Whether a source does nothing but to unpack a literal and run it.

    Raises: InputError when it is a wrapper that does something else as well, which wrapping it anew would lose.
    """
    from verify.submission.source_layers import MAX_SOURCE, parsed

    tree = parsed(text) if len(text) <= MAX_SOURCE else None
    if tree is None:
        return False
    literals = [each for each in ast.walk(tree) if isinstance(each, ast.Constant)]
    longest = max((len(each.value) for each in literals if isinstance(each.value, str | bytes)), default=0)
    runs = any(isinstance(each, ast.Name) and each.id in ("exec", "runpy") for each in ast.walk(tree))
    if not runs or longest < max(LITERAL, len(text) // 2):
        return False
    for node in tree.body:
        if not _unpacks(node):
            raise InputError(
                f"is packed, and its wrapper does more than to unpack it: `{ast.unparse(node).splitlines()[0][:60]}`",
                where=f"{where}, line {node.lineno}",
                hint="take it apart with `pgolf inspect --unwrap DIR`, and wrap what it holds",
            )
    return True


def _unpacks(node: ast.stmt) -> bool:
    """An import, `S=decompress(...)`, the payload, an entry of linecache, or the call that runs it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    called = {_last(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}
    if called - UNPACKING:
        return False
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or bool(called & RUNNING)
    if not isinstance(node, ast.Assign):
        return False
    if all(isinstance(each, ast.Subscript) for each in node.targets):
        return all(_last(each.value) == "cache" for each in node.targets if isinstance(each, ast.Subscript))
    value = node.value
    payload = isinstance(value, ast.Constant) and isinstance(value.value, str | bytes) and len(value.value) >= LITERAL
    return payload or isinstance(value, ast.Call)


def _last(node: ast.expr) -> str:
    """`b85decode` of `base64.b85decode`."""
    return str(getattr(node, "attr", getattr(node, "id", "")))
