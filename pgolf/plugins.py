"""Python files of the user that run before a command, so that what they register is there for it."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb


def load_plugin(path: Path) -> None:
    """Run the file as the module of its own name, with the user's rights; a file that has run already is left alone.

    Raises: UsageError for a name that is no module's or another module's; InputError naming the line that failed.
    """
    from codec.errors import InputError, UsageError

    name, file = path.stem, str(path.resolve())
    if path.suffix != ".py" or not name.isidentifier():
        raise UsageError("is not a file named like a module", where=str(path), hint="call it NAME.py")
    known = _module_file(name)
    if known == file and name in sys.modules:
        return
    if known not in ("", file):
        raise UsageError(f"there is another module `{name}`", where=str(path), hint="give the file another name")
    spec = spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line(error, file)
        raise InputError(
            f"raised {type(error).__name__}: {error}", where=f"{path}, line {line}" if line else str(path)
        ) from error


def _module_file(name: str) -> str:
    """Where the module of that name comes from, empty if there is none."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) or "built-in"
    spec = find_spec(name)
    return (spec.origin or "") if spec else ""  # a folder without modules has no origin


def _line(error: BaseException, file: str) -> int | None:
    """Of that file, the innermost that the error passed through, or the one that is no Python."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
