"""What torchrun does to processes that fail: it ends all of them when one has ended, so that one alone has to speak."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codec.errors import PgolfError
from codec.storage.atomic_files import refusal

if TYPE_CHECKING:
    from trainer.compute.ranks import Ranks

# How much later than another process the first one may find the same error: importing torch takes it 2 seconds, on a
# busy machine several times that.  An error that the first one does not have is said this much later.
GRACE = 30.0  # seconds


def is_another_rank() -> bool:
    """Whether torchrun started this process, and not as the first."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def let_the_first_speak() -> None:
    """Call before an error that all ranks find alike is said: torchrun ends the others when the first has said it.

    Returns in the others only if it did not.
    """
    if is_another_rank():
        time.sleep(GRACE)


@contextmanager
def told_once(ranks: "Ranks", stopped: str) -> Iterator[None]:
    """What all processes of torchrun find alike, the first one says; that another is lost, one of those left.

    torchrun ends all of them when one ends, so the others first give it time to speak.  Its signal is no word of
    theirs.  stopped: what the first one says on standard error of an interruption.
    """
    from trainer.compute.ranks import RankLost

    try:
        yield
    except RankLost:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which would come between asking and speaking
        if not ranks.first_to_report_loss():
            raise SystemExit(RankLost.exit_code) from None
        raise
    except PgolfError:
        let_the_first_speak()
        raise
    except OSError as error:
        let_the_first_speak()
        raise refusal(error) from error
    except KeyboardInterrupt:
        if not ranks.first:
            raise SystemExit(130) from None
        print(stopped, file=sys.stderr)
        raise
