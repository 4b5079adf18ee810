"""A submission to begin with: the readable script with its settings, and what it becomes when it is wrapped."""

from dataclasses import dataclass
from pathlib import Path

from codec.progress import Bar, silent_bar
from codec.storage.atomic_files import new_folder
from packager.reference import PRESET, RECIPE, SCRIPT, Training, reference_bundle
from packager.requirements import requirements
from packager.script.packed_script import packed_script, steps
from packager.script.wrapper import Form
from packager.submission import REQUIREMENTS

SOURCE = "source"  # folder of what is edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """files: path inside the folder -> content.  modules: of the toolkit, inside the packed script."""

    files: dict[str, bytes]
    modules: tuple[str, ...]

    @property
    def code_bytes(self) -> int:
        """What counts against the cap."""
        return len(self.files[SCRIPT])


def scaffold(training: Training, *, minified: bool = True, form: Form = "safe", bar: Bar = silent_bar) -> Scaffold:
    """minified: False keeps the sources inside the packed script as they are written."""
    parts = reference_bundle(training)
    with bar("wrap", steps(parts)) as progress:
        code = packed_script(parts, SCRIPT, minified=minified, form=form, progress=progress)
    files = {
        SCRIPT: code,
        REQUIREMENTS: requirements(parts.requires, parts.optional).encode(),
        f"{SOURCE}/{SCRIPT}": training.source().encode(),
        f"{SOURCE}/{PRESET}": training.preset.encode(),
        f"{SOURCE}/{RECIPE}": training.recipe.encode(),
    }
    return Scaffold(files=files, modules=tuple(parts.modules))


def write_scaffold(made: Scaffold, folder: Path) -> None:
    """Write it, complete or not at all.

    Raises: UsageError when `folder` holds anything: what was edited there must not be lost.
    """
    with new_folder(folder) as temporary:
        for name, content in made.files.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
