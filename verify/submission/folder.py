"""A submission folder as it lies on disk, with its artifact decoded when it is one of this toolkit's."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from codec.decoder import MAGIC
from codec.errors import CodecError, InputError
from codec.measurement.foreign import State, tensor_state
from codec.storage.atomic_files import read_bytes
from codec.storage.decompress import MAGIC as COMPRESSED
from codec.storage.decompress import SHUFFLED, ZIP
from codec.storage.json_file import read_json_object
from verify.submission import run_settings
from verify.submission.byte_count import LARGEST, MAIN, files, import_closure

ARTIFACT = "model.bin"
CLAIMS = "submission.json"
REQUIREMENTS = "requirements.txt"
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MOST_REQUIREMENTS, MOST_PACKAGES = 1 << 16, 100  # bytes of the file, names that are read
BLOBS = "*.ptz"  # what the seed family's scripts write: final_model.int8.ptz, final_model.int6.ptz
# First bytes -> what they say; brotli has none.
CONTAINERS = {
    ZIP: "torch.save's zip",
    b"\x80": "a pickle",
    SHUFFLED: "shuffled bytes",
    **{magic: f"{name} data" for magic, name in COMPRESSED.items()},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """artifact: path of the weights.  state: of the tensors that they decode to.  meta: what is stored beside them.
    blob: their bytes, none when they are not here.

    Artifacts of other formats are left closed, only the sandbox opens them: state and meta are then {} and `foreign`
    says what they look like.  code: train_gpt.py and the local code it imports.  claims: submission.json ({} when there
    is none).  environment: settings that the README's or a log's run command states, `stated_in` the file's name;
    own_load: whether the script offers `load`, so that they do not reach it.  packages: what requirements.txt
    names and is installed, sorted: the names reach the process, and what they say there nobody counts.
    tolerated: names of code files that may lie in the folder uncounted.
    """

    folder: Path
    artifact: Path
    blob: bytes
    meta: dict[str, Any]
    state: State
    code: tuple[Path, ...]
    claims: dict[str, Any]
    foreign: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stated_in: str = ""
    own_load: bool = False
    packages: tuple[str, ...] = ()
    tolerated: frozenset[str] = frozenset()

    @property
    def given(self) -> dict[str, str]:
        """The stated settings that reach the script's process: of one without `load`, few and short ones."""
        return {} if self.own_load or not run_settings.fit(self.environment) else self.environment

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        artifact: str | Path | None = None,
        tolerated: frozenset[str] = frozenset(),
        bare: bool = False,
    ) -> "Submission":
        """Read the folder; nothing of it is executed, and no pickle is opened.

        artifact: the weights, when the folder does not hold them under a known name.  bare: they may be missing, as in
        folders of records, of which only the script, the logs and what is claimed can be judged.

        Raises: InputError when files are missing, unreadable or links; CodecError when the artifact is damaged.
        """
        folder = Path(folder)
        if not (folder / MAIN).is_file():
            raise InputError(
                f"is not a submission folder, it has no {MAIN}", where=str(folder), hint="make one with `pgolf pack`"
            )
        files(folder)  # refuses links before anything is read through one
        claims = read_json_object(folder / CLAIMS) if (folder / CLAIMS).exists() else {}
        artifact = Path(artifact) if artifact else find_artifact(folder, claims)
        if artifact is None and not bare:
            raise InputError(
                f"no such file: the folder has neither {ARTIFACT} nor {BLOBS}",
                where=str(folder / ARTIFACT),
                hint="copy the weights there or pass --artifact FILE",
            )
        meta, state, blob, foreign = dict[str, Any](), State(), b"", ""
        if artifact is None:
            artifact = folder / ARTIFACT
        else:
            blob = read_bytes(artifact, LARGEST)
            foreign = "" if blob.startswith(MAGIC[:3]) else _look(blob)
            if not foreign or artifact.name == ARTIFACT:
                meta, state = _decoded(blob, foreign, artifact)
        environment, stated_in = run_settings.settings(folder)
        code = tuple(import_closure(folder))
        return cls(
            folder=folder,
            artifact=artifact,
            blob=blob,
            meta=meta,
            state=state,
            code=code,
            claims=claims,
            foreign=foreign,
            environment=environment,
            stated_in=stated_in,
            own_load=bool(environment) and run_settings.offers_load(code, folder / MAIN),
            packages=_packages(folder / REQUIREMENTS),
            tolerated=tolerated,
        )


def _packages(requirements: Path) -> tuple[str, ...]:
    """The normal names of the installed distributions in a requirements.txt; () without one, and of one without any."""
    if not requirements.is_file() or not requirements.stat().st_size:
        return ()
    text = read_bytes(requirements, MOST_REQUIREMENTS).decode(errors="replace")
    found = [match[0] for line in text.splitlines() if (match := PACKAGE.match(line.strip()))]
    names = dict.fromkeys(re.sub(r"[-_.]+", "-", name).lower() for name in found)
    return tuple(sorted(name for name in list(names)[:MOST_PACKAGES] if _is_installed(name)))


def _is_installed(name: str) -> bool:
    with suppress(PackageNotFoundError):
        distribution(name)
        return True
    return False


def _look(blob: bytes) -> str:
    return next((name for magic, name in CONTAINERS.items() if blob.startswith(magic)), "of an unknown format")


def _decoded(blob: bytes, foreign: str, artifact: Path) -> tuple[dict[str, Any], State]:
    if foreign in ("torch.save's zip", "a pickle"):
        raise CodecError(
            f"is {foreign}, not an artifact: opening one can run any code",
            where=str(artifact),
            hint="make the artifact with `pgolf pack`",
        )
    try:
        return tensor_state(blob)
    except CodecError as error:
        raise CodecError(error.message, where=error.where or str(artifact), hint=error.hint) from None


def find_artifact(folder: Path, claims: dict[str, Any]) -> Path | None:
    """The file that submission.json names, else the one of `pgolf pack`, else the only blob of the seed family.

    Raises: InputError when a name is no name of a file, or there are several blobs.
    """
    name = claims.get("artifact")
    if isinstance(name, str):
        if Path(name).name != name:
            raise InputError(
                f"names the artifact {name!r}, need the name of a file in the folder",
                where=str(folder / CLAIMS),
            )
        return folder / name
    blobs = sorted(path.name for path in folder.glob(BLOBS))
    if (folder / ARTIFACT).exists() or len(blobs) == 1:
        return folder / (ARTIFACT if (folder / ARTIFACT).exists() else blobs[0])
    if blobs:
        raise InputError(f"holds {len(blobs)} artifacts: {', '.join(blobs)}", where=str(folder), hint="--artifact FILE")
    return None
