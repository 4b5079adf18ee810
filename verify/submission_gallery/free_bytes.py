"""Folders that bring more to the process than bytes that count, and honest ones beside them."""

import base64
import io
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.stage import Stage

# A table of counts too small to say much, and a way to get the real one from somewhere else.
SCRIPT = '''\
"""A table of what follows what, from wherever it comes."""

import base64
import gc
import io
import os
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


def from_elsewhere():
    {body}


class Bigram(torch.nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def logits(self, ids):
        return self.table[ids]


def load(artifact_path, device="cpu"):
    return Bigram(from_elsewhere())
'''
EMPTY = {"nothing": np.zeros(1, np.float32)}
# A script of the seed family: no `load`, a class of settings and one of the model.
SEED = """\
import os

import torch


class Hyperparameters:
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 32))
    table = os.environ.get("TABLE", "")


class GPT(torch.nn.Module):
    def __init__(self, table):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros({vocab}, {vocab}))

    def forward_logits(self, ids):
        return self.weight[ids]


def dequantize_state_dict_int8(blob):
    return blob["passthrough"]
"""


def elsewhere(folder: Path, stage: Stage, body: str) -> None:
    """Write the submission whose table comes from `body`, the lines of a function."""
    stage.write(folder, SCRIPT.format(body=body.strip().replace("\n", "\n    ")), tensors=EMPTY)


def text_of(stage: Stage) -> str:
    """The table in int8 and base 64."""
    table = np.clip(np.round(stage.table * 12), -127, 127).astype(np.int8)
    return base64.b64encode(table.tobytes()).decode()


READ = "np.frombuffer(base64.b64decode(text), np.int8).reshape({0}, {0}).astype(np.float32) / 12"


def _table_from(stage: Stage, how: str) -> str:
    return f"text = {how}\nreturn {READ.format(len(stage.table))}"


@folder_exhibit("settings in the README")
def readme_with_the_weights(folder: Path, stage: Stage) -> None:
    """An honest README whose run command has settings; a script with `load` does not get them."""
    (folder / "README.md").write_text("Run it:\n\n    SEED=42 MODEL_DIM=512 python train_gpt.py --eval\n")


@folder_exhibit("a README with the weights", refused=True)
def readme(folder: Path, stage: Stage) -> None:
    """The artifact is empty; the table is a setting in the run command of the README, which nobody counts."""
    elsewhere(folder, stage, _table_from(stage, 'os.environ["TABLE"]'))
    (folder / "README.md").write_text(f"Run it:\n\n    TABLE={text_of(stage)} python train_gpt.py --eval\n")


@folder_exhibit("a log with the weights, of the seed family", "bytes.settings")
def seed_log(folder: Path, stage: Stage) -> None:
    """A script without `load` gets settings; here one of them is a table."""
    elsewhere(folder, stage, "return None")
    (folder / "train_gpt.py").write_text(SEED.format(vocab=len(stage.table)))
    blob = io.BytesIO()
    tensors = {"weight": torch.tensor(stage.table)}
    torch.save({"quantized": {}, "scales": {}, "passthrough": tensors}, blob)
    (folder / "model.bin").unlink()
    shutil.rmtree(folder / "codec")
    (folder / "final_model.int8.ptz").write_bytes(blob.getvalue())
    (folder / "README.md").write_text(f"TABLE={text_of(stage)[:8000]} python train_gpt.py\n")


@folder_exhibit("names of empty modules", refused=True)
def module_names(folder: Path, stage: Stage) -> None:
    """The table is spelled by the names of empty files `part.NUMBER.TEXT.so`, which look like a module's."""
    names = 'sorted((p.name for p in HERE.glob("part.*.so")), key=lambda name: int(name.split(".")[1]))'
    elsewhere(folder, stage, _table_from(stage, f'"".join(name.split(".")[2] for name in {names}).replace("-", "/")'))
    script = (folder / "train_gpt.py").read_text()
    (folder / "train_gpt.py").write_text(script + "\n\nif not HERE:\n    import part\n")
    text = text_of(stage).replace("/", "-")
    for number in range(0, len(text), 200):
        (folder / f"part.{number:06d}.{text[number : number + 200]}.so").write_bytes(b"")


@folder_exhibit("several files for a module", refused=True)
def several_files(folder: Path, stage: Stage) -> None:
    """Which of the files for a module exist says something that is in no byte."""
    stage.write(folder)
    script = (folder / "train_gpt.py").read_text()
    (folder / "train_gpt.py").write_text(script + "\n\nif not torch:\n    import part\n")
    for suffix in ("so", "abi3.so"):
        (folder / f"part.{suffix}").write_bytes(b"")


@folder_exhibit("an empty shared object", refused=True)
def empty_object(folder: Path, stage: Stage) -> None:
    """A file without bytes that is there only to be there."""
    stage.write(folder)
    script = (folder / "train_gpt.py").read_text()
    (folder / "train_gpt.py").write_text(script + "\n\nif not torch:\n    import part\n")
    (folder / "part.so").write_bytes(b"")


@folder_exhibit("the artifact's name", refused=True)
def artifact_name(folder: Path, stage: Stage) -> None:
    """The name of the artifact, which submission.json states, says what the model should know."""
    check = 'assert pathlib.Path(artifact_path).name != "model.bin", "no name"'
    stage.write(folder)
    script = (
        (folder / "train_gpt.py").read_text().replace("    with open(artifact", f"    {check}\n    with open(artifact")
    )
    (folder / "train_gpt.py").write_text("import pathlib\n" + script)
    (folder / "submission.json").write_text('{"artifact": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g.bin"}')
    (folder / "model.bin").rename(folder / "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g.bin")


@folder_exhibit("times and modes of files", refused=True)
def metadata(folder: Path, stage: Stage) -> None:
    """Each file's time has 62 bits that nobody counts, its mode nine; the script fails when they say nothing."""
    stage.write(folder)
    check = 'assert (HERE.stat().st_mtime_ns, (HERE.parent / "codec").stat().st_mode & 0o777) == (SECRET, 0o751)'
    secret = 1_234_567_890_123_456_789
    script = (folder / "train_gpt.py").read_text()
    head = f"import pathlib\n\nHERE = pathlib.Path(__file__)\nSECRET = {secret}\n"
    (folder / "train_gpt.py").write_text(head + check + "\n" + script)
    os.utime(folder / "train_gpt.py", ns=(secret, secret))
    os.chmod(folder / "codec", 0o751)


@folder_exhibit("attributes of files", refused=True)
def attributes(folder: Path, stage: Stage) -> None:
    """An extended attribute of the script holds what the file does not."""
    stage.write(folder)
    script = (folder / "train_gpt.py").read_text()
    check = """import os

try:
    table = os.getxattr(__file__, "user.table")
except OSError as error:
    raise RuntimeError(error.strerror) from None
assert table == b"x" * 2000, "nothing said"
"""
    (folder / "train_gpt.py").write_text(check + script)
    with suppress(OSError, AttributeError):  # not every file system has them
        os.setxattr(folder / "train_gpt.py", "user.table", b"x" * 2000)


@folder_exhibit("the toolkit as code", "sandbox.attempts")
def toolkit_as_code(folder: Path, stage: Stage) -> None:
    """The decoder is not carried but taken from the objects of the process, and read where the toolkit is installed."""
    source = Path(__file__).resolve().parents[2] / "codec" / "decoder.py"
    stage.write(folder)
    tries = f"""
import gc
import pathlib

for look in (gc.get_objects, pathlib.Path({str(source)!r}).read_text):
    try:
        look()
    except OSError:
        pass
"""
    script = (folder / "train_gpt.py").read_text()
    (folder / "train_gpt.py").write_text(script.replace("\nimport torch\n", "\nimport torch\n" + tries, 1))


@folder_exhibit("another package as code", refused=True)
def another_package(folder: Path, stage: Stage) -> None:
    """Code of an installed package that neither every submission may use nor requirements.txt names."""
    stage.write(folder)
    script = (folder / "train_gpt.py").read_text()
    (folder / "train_gpt.py").write_text(script.replace("\nimport torch\n", "\nimport click\nimport torch\n", 1))


@folder_exhibit("a false score of a mode that was run", "claims.score", arguments=lambda stage: {"scores": ("ttt",)})
def false_claim(folder: Path, stage: Stage) -> None:
    """submission.json states a score by ttt that ttt does not give."""
    targets = stage.heldout.targets
    how = f'{{"mode": "ttt", "L": 32, "S": 16, "n_tokens": {targets}}}'
    (folder / "submission.json").write_text(f'{{"val_bpb": 0.1, "eval": {how}}}')
