"""Files and folders that appear complete or not at all, whatever stops the process; what may be replaced."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from codec.errors import EnvironmentLacks, InputError, UsageError
from codec.storage.atomic_files import TEMPORARY, check_writable, new_folder, refusal, write_bytes
from tests.conftest import ROOT

KILLED = """
import os, sys
from codec.storage.atomic_files import new_folder
with new_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def write(path, name="new", *, replaces=None, error=None):
    with new_folder(path, replaces=replaces) as folder:
        (folder / name).touch()
        if error:
            raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_and_replaces_only_what_is_proven_ours(tmp_path):
    target = tmp_path / "deep" / "out"
    write(target, "a")
    assert (names(target), names(target.parent)) == (["a"], ["out"])
    for replaces in (None, lambda entries: entries == {"b"}):
        with pytest.raises(UsageError, match="exists and is not an earlier output"):
            write(target, replaces=replaces)
    (target / "b").mkdir()
    with pytest.raises(UsageError):  # no command writes a folder inside its folder
        write(target, replaces=lambda entries: True)
    (target / "b").rmdir()
    write(target, replaces=lambda entries: entries == {"a"})
    assert (names(target), names(target.parent)) == (["new"], ["out"])


def test_a_failure_keeps_the_earlier_folder(tmp_path):
    write(tmp_path / "out", "a")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", replaces=lambda entries: True, error=KeyboardInterrupt)
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["a"])


def test_a_link_to_an_earlier_output_stays_a_link(tmp_path):
    write(tmp_path / "disk" / "data", "a")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "data")
    write(tmp_path / "link", replaces=lambda entries: entries == {"a"})
    assert (tmp_path / "link").is_symlink()
    assert (names(tmp_path), names(tmp_path / "disk"), names(tmp_path / "link")) == (
        ["disk", "link"],
        ["data"],
        ["new"],
    )


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    target = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, target, str(int(signal.SIGKILL))], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(f".out{TEMPORARY}")
    others = [f".other{TEMPORARY}12345678", ".out.settings", f".out.more{TEMPORARY}12345678"]
    for name in others:
        (tmp_path / name).mkdir()
    with new_folder(target) as working:  # another process, as far as locks are concerned
        assert left not in names(tmp_path)
        write(target)
        assert working.is_dir()
        (working / "late").touch()
        assert names(target) == ["new"]
        (target / "new").unlink()
    assert names(target) == ["late"]
    assert names(tmp_path) == sorted([*others, "out"])


@pytest.mark.parametrize("place", ["file/x", "file/x/y", "/proc/x", "n" * 300, "loop/x"])
@pytest.mark.parametrize("way", [write, check_writable, lambda path: write_bytes(path, b"x")])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, place, way):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"cannot be written \(.+\); choose another place") as caught:
        way(tmp_path / place)
    assert caught.value.where == str(tmp_path / place)
    assert names(tmp_path) == ["file", "loop"]


@pytest.mark.parametrize("way", [check_writable, lambda path: write_bytes(path, b"x")])
def test_a_folder_where_a_file_should_go(tmp_path, way):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        way(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


def test_checking_leaves_nothing(tmp_path):
    check_writable(tmp_path / "not" / "yet" / "there")
    assert names(tmp_path) == []


def test_a_full_disk_is_what_the_environment_lacks(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(EnvironmentLacks, match=r"out: cannot be written \(No space left"):
        write(tmp_path / "out", error=full)
    assert names(tmp_path) == []
    assert isinstance(refusal(full), EnvironmentLacks)
    unknown = refusal(PermissionError(errno.EACCES, "Permission denied", "some/file"))
    assert (type(unknown), unknown.where) == (InputError, "some/file")
