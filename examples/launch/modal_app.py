"""Modal, on eight cards of one machine.  From the folder that holds mine/ and data/:

    modal run examples/launch/modal_app.py --seed 0

mine/ and data/ are uploaded with the image.  The run lies in a volume: a function that was preempted is started again,
and the script goes on from the state that it finds there.  At the end the run is downloaded into run0.
"""

import subprocess
from pathlib import Path

import modal

GOLF, GPUS, GRACE = "/golf", 8, 25  # seconds; Modal ends a preempted container 30 seconds after SIGINT

image = (
    modal.Image.debian_slim(python_version="3.12")
    .pip_install_from_requirements("mine/requirements.txt")
    .add_local_dir("mine", f"{GOLF}/mine")
    .add_local_dir("data", f"{GOLF}/data")
)
runs = modal.Volume.from_name("parameter-golf-runs", create_if_missing=True)
app = modal.App("parameter-golf", image=image)


@app.function(gpu=f"H100:{GPUS}", timeout=3600, volumes={f"{GOLF}/runs": runs}, retries=3)
def run(seed: int) -> None:
    """The whole script; what it writes is in the volume afterwards, also when it was stopped."""
    command = ["torchrun", "--standalone", f"--nproc_per_node={GPUS}", f"{GOLF}/mine/train_gpt.py"]
    command += ["--data", f"{GOLF}/data", "--output", f"{GOLF}/runs/run{seed}", "--seed", str(seed)]
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()  # every process saves its state after the step that it is in
        process.wait(timeout=GRACE)
        raise
    finally:
        runs.commit()
    if code:
        raise SystemExit(code)


@app.local_entrypoint()
def main(seed: int = 0) -> None:
    """Run, then download."""
    run.remote(seed)
    for entry in runs.listdir(f"run{seed}", recursive=True):
        if entry.type == modal.volume.FileEntryType.FILE:
            path = Path(entry.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                runs.read_file_into_fileobj(entry.path, file)
