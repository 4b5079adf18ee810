"""Runs checks, each in a process of its own: a crash, a hang or a broken CUDA context ends that check alone."""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any

from codec.progress import Progress, silent
from pgolf.doctor.catalog import Check
from pgolf.doctor.machine import Machine
from pgolf.doctor.outcome import Measured, Outcome, Result, State
from pgolf.doctor.plan import Plan

Answer = Measured | str  # str: the error in one line
LEAST = 5.0  # seconds; with fewer left, a check is not begun
# 5 seconds, once for all checks; torch loads _dynamo with the first optimizer.
PRELOADED = ("torch", "torch._dynamo", "trainer.run.step", "trainer.calibration", "verify.pipeline")
GRACE = 1.25  # a check that ignores its time is ended after that many times it
WARM_UP = 20.0  # seconds that a process may take for CUDA and the first kernels, on top
FAREWELL = 2.0  # seconds to end by itself
LONGEST_ERROR = 500  # characters


def examine(machine: Machine, checks: Sequence[Check], plan: Plan, limit: float, progress: Progress = silent) -> Result:
    """Every check, one after the other, while the time lasts.  limit: seconds of all together."""
    # Forked from a server that has imported torch and touched no GPU: CUDA works in a fork of such a process only.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    resource_tracker.ensure_running()  # if the server had to start it, it would let Ctrl-C through again
    with _interrupt_held_back():
        forkserver.ensure_running()
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for done, check in enumerate(checks):
        progress(done, check.title)
        left = limit - (time.monotonic() - started)
        share = check.weight / sum(each.weight for each in checks[done:])  # so that later checks get what others leave
        outcomes.append(run_alone(check, plan, share * left, left, context))
    return Result(
        dry=plan.dry, machine=machine, limit=limit, seconds=time.monotonic() - started, outcomes=tuple(outcomes)
    )


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C acts at the end; what is started inside never sees it: the parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_alone(
    check: Check, plan: Plan, share: float, left: float, context: "multiprocessing.context.ForkServerContext"
) -> Outcome:
    """One check in a process that is gone afterwards.  share: its seconds.  left: of all."""
    if left < LEAST:
        return Outcome(
            name=check.name, title=check.title, state="not measured", seconds=0.0, error="no time was left for it"
        )
    hard = min(GRACE * share + WARM_UP, left)
    started = time.monotonic()
    here, there = context.Pipe(duplex=False)
    # Made here, so that it is gone also when the process was killed.
    with TemporaryDirectory(prefix="pgolf-doctor-", ignore_cleanup_errors=True) as scratch:
        process = context.Process(target=_answer, args=(check, plan, share, scratch, there))
        try:
            with _interrupt_held_back():
                process.start()
                there.close()
            answer = _received(here, hard, process)
            process.join(FAREWELL)  # compilers end their helpers
        finally:
            if process.pid is not None:  # Ctrl-C may come before it is started
                process.kill()
                process.join()
            here.close()
    seconds = time.monotonic() - started
    if isinstance(answer, str):
        return Outcome(name=check.name, title=check.title, state="failed", seconds=seconds, error=answer)
    state: State = "wrong" if answer.wrong else "ok"
    return Outcome(name=check.name, title=check.title, state=state, seconds=seconds, measured=answer)


def _answer(check: Check, plan: Plan, seconds: float, scratch: str, answers: "Connection[Any, Any]") -> None:
    """What the process does."""
    import torch

    tempfile.tempdir = scratch
    if plan.dry:  # models so small that threads only wait for each other
        torch.set_num_threads(1)
    answer: Answer
    try:
        answer = check.run(plan, seconds)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        answer = f"{type(error).__name__}: {first}"[:LONGEST_ERROR]
    with suppress(BrokenPipeError):  # nobody waits for it any more
        answers.send(answer)


def _received(answers: "Connection[Any, Any]", seconds: float, process: multiprocessing.process.BaseProcess) -> Answer:
    """The process's answer, or why there is none."""
    if not answers.poll(seconds):
        return f"was ended after {seconds:.0f} s"
    try:
        answer: Answer = answers.recv()
    except EOFError:
        process.join(FAREWELL)
        return f"its process died with exit code {process.exitcode}"
    return answer
