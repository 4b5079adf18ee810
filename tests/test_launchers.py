"""examples/launch: every launcher starts the packed script, and each tool that is here reads its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[1] / "examples" / "launch"
SHELL = ("torchrun.sh", "slurm.sbatch")
LAUNCHERS = (*SHELL, "skypilot.yaml", "modal_app.py")


def tool(name: str) -> str:
    """Its path; a skip where it is not installed."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed; examples/launch/README.md says which version was used")
    return found


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_starts_the_same_script_and_is_in_the_table(name):
    text = (LAUNCH / name).read_text()
    assert "train_gpt.py" in text
    assert "--standalone" in text
    assert {"--data", "--output"} <= set(text.replace('"', " ").replace(",", " ").split())
    assert (LAUNCH / "README.md").read_text().count(f"`{name}`") == 2


@pytest.mark.parametrize("name", SHELL)
def test_the_shell_reads_it(name):
    done = subprocess.run(["bash", "-n", LAUNCH / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SHELL)
def test_shellcheck_has_nothing_to_say(name):
    done = subprocess.run([tool("shellcheck"), LAUNCH / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_torchrun_is_called_with_what_it_is_given(tmp_path):
    executable(tmp_path / "bin" / "torchrun", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = ["bash", LAUNCH / "torchrun.sh", "gpu", "mine/train_gpt.py", "my data", "run0", "--seed", "3"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    expected = ["--standalone", "--nproc_per_node=gpu", "mine/train_gpt.py", "--data", "my data", "--output", "run0"]
    assert done.stdout.splitlines() == [*expected, "--seed", "3"]
    assert subprocess.run(words[:4], env=environment, capture_output=True).returncode == 2


@pytest.fixture
def job(tmp_path):
    """A folder with stand-ins of torchrun and scontrol; starts slurm.sbatch in it as job 77, task 2."""
    executable(tmp_path / "bin" / "scontrol", '#!/bin/sh\necho "$@" > requeued\n')

    def start(training: str) -> "subprocess.Popen[bytes]":
        executable(tmp_path / "golf-env" / "bin" / "torchrun", training)
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_GPUS_ON_NODE": "4",
        }
        return subprocess.Popen(["bash", LAUNCH / "slurm.sbatch"], cwd=tmp_path, env=environment)

    return start


def test_a_slurm_job_ends_as_its_training_does(tmp_path, job):
    assert job('#!/bin/sh\necho "$@" > called\n').wait(30) == 0
    called = (tmp_path / "called").read_text()
    assert called == ("--standalone --nproc_per_node=4 mine/train_gpt.py --data data --output run2 --seed 2\n")
    assert job("#!/bin/sh\nexit 3\n").wait(30) == 3
    assert not (tmp_path / "requeued").exists()


def test_a_slurm_job_at_its_limit_lets_the_training_save_and_queues_itself(tmp_path, job):
    training = "#!/bin/bash\ntrap 'echo saved > state; exit 130' TERM\ntouch begun\nwhile :; do sleep 0.05; done\n"
    process = job(training)
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert (tmp_path / "state").read_text() == "saved\n"
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"


def test_skypilot_reads_its_file_by_its_schema(tmp_path):
    sky = Path(tool("sky"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "data").mkdir()
    program = (
        f"import sky; task = sky.Task.from_yaml({str(LAUNCH / 'skypilot.yaml')!r}); [where] = task.resources; "
        "print(where.accelerators, where.use_spot, sorted(task.file_mounts), sorted(task.storage_mounts))"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sky.with_name("python"), "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("{'H100': 8} True ['/golf/data', '/golf/mine'] ['/golf/runs']"), done.stderr


def test_modal_loads_its_file_and_finds_its_options(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "requirements.txt").write_text("torch\n")
    (tmp_path / "data").mkdir()
    words = [tool("modal"), "run", LAUNCH / "modal_app.py", "--help"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--seed INTEGER" in done.stdout


@pytest.mark.slow
def test_torchrun_trains_on_two_processes_and_goes_on(tmp_path, pgolf):
    from pydoc_data.topics import topics

    (tmp_path / "text.txt").write_text("\n\n".join(topics.values()))
    for line in ("data text.txt --vocab-size 512 --val-fraction 0.01 -o data", "new tiny --no-minify -o mine"):
        assert pgolf(*line.split(), cwd=tmp_path).returncode == 0
    executable(tmp_path / "bin" / "torchrun", f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = ["bash", LAUNCH / "torchrun.sh", "2", "mine/train_gpt.py", "data", "run0", "--seed", "1"]
    sizes = []
    for _ in range(2):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        sizes.append((tmp_path / "run0" / "model.bin").read_bytes())
    log = (tmp_path / "run0" / "train.log").read_text()
    assert "world_size:2" in log
    assert "resumed_step:40" in log
    assert sizes[0] == sizes[1]
