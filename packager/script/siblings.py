"""The modules and packages beside a script, as Python would find them there; nothing is imported or run."""

from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import decode_source
from pathlib import Path

from codec.errors import InputError


@dataclass(frozen=True)
class Siblings:
    """The folder of a script; None has no modules."""

    folder: Path | None

    def is_module(self, name: str) -> bool:
        """Whether the dotted name is a file or a package with an __init__."""
        return self._file(name) is not None

    def is_folder(self, name: str) -> bool:
        """Whether the dotted name is a folder, with an __init__ or without."""
        return self.folder is not None and self._path(name).is_dir()

    def is_compiled(self, name: str) -> bool:
        """Whether only machine code of that name lies there, which no script can carry."""
        if self.folder is None or self.is_module(name):
            return False
        return any(Path(f"{self._path(name)}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES)

    def source(self, name: str) -> str:
        """The text of a module.  Raises: InputError when it is not Python text."""
        file = self._file(name)
        assert file is not None, name
        try:
            return decode_source(file.read_bytes())  # an empty __init__.py is common
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(file)) from None
        except (SyntaxError, LookupError, ValueError) as error:
            raise InputError(f"is not Python source ({error})", where=str(file)) from None

    def is_package(self, name: str) -> bool:
        """Whether the dotted name is a package with an __init__."""
        file = self._file(name)
        return file is not None and file.name == "__init__.py"

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder.joinpath(*name.split("."))

    def _file(self, name: str) -> Path | None:
        if self.folder is None or not name:
            return None
        path = self._path(name)
        files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        return next((file for file in files if file.is_file()), None)
