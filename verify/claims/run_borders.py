"""Where one run ends and the next begins in a log file that several were appended to."""

from dataclasses import dataclass

from verify.claims.log_events import EvaluationTime, Event, Hyperparameters, Metric, Size, Targets, Training

PROGRESS = (Training, Metric, Size, EvaluationTime)  # what a run has to tell after its settings
FEW = 2  # settings stated again that make a new beginning; a phase may state one again


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a line tells.  shape: its text without digits, by which the first line of a run is known again."""

    line: int
    events: tuple[Event, ...]
    shape: str = ""

    @property
    def progress(self) -> bool:
        """Whether it tells of the run itself, not of what it is about to do."""
        return any(isinstance(event, PROGRESS) for event in self.events)


def split_runs(entries: list[Told]) -> list[list[Told]]:
    """The lines of each run.

    A run has begun where training is at an earlier step than before, or where the settings that a run began with are
    stated once more; its first line is then the first that looks like one of the beginning before it.
    """
    runs: list[list[Told]] = [[]]
    began, since, farthest, progressed = set[str](), set[str](), 0, False
    for each in entries:
        stated, step = _stated(each), _step(each)
        if progressed and ((step is not None and step < farthest) or (stated and _again(began, since | stated))):
            border = _border(runs[-1])
            runs.append(runs[-1][border:])
            del runs[-2][border:]
            began, since, farthest, progressed = set[str]().union(*map(_stated, runs[-1])), set(), 0, False
        runs[-1].append(each)
        farthest, progressed = max(farthest, step or 0), progressed or each.progress
        if not progressed:
            began |= stated
        since = set() if each.progress else since | stated
    return runs


def _again(began: set[str], since: set[str]) -> bool:
    """Whether these settings are those of a beginning."""
    again = began & since
    return bool(again) and len(again) >= min(len(began), max(FEW, len(began) // 2))


def _step(each: Told) -> int | None:
    """The step of a validation in training; where training stopped is stated again and begins nothing."""
    steps = [event.step for event in each.events if isinstance(event, Training) and not event.stopped]
    return next((step for step in steps if step is not None), None)


def _stated(each: Told) -> set[str]:
    names = {"targets"} if any(isinstance(event, Targets) for event in each.events) else set[str]()
    return names.union(
        *(event.values for event in each.events if isinstance(event, Hyperparameters) and not event.phase)
    )


def _border(run: list[Told]) -> int:
    """Index of the first line behind the run's last progress that looks like one of its beginning."""
    done = [index for index, each in enumerate(run) if each.progress]
    header = {each.shape for each in run[: done[0]] if each.shape.strip()}
    last = done[-1] + 1
    return next((index for index in range(last, len(run)) if run[index].shape in header), len(run))
