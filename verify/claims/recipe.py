"""Which settings of runs make a recipe, and which differ from run to run by nature."""

import re
from collections.abc import Sequence

from verify.claims.log_reader import Log

PLACES = re.compile(
    r"(^|_)(seed|rank)$|run_id|logfile|_(dir|path|files)$|^rank|tokenizer_path|pattern"
)  # not the recipe


def differing_settings(logs: Sequence[Log]) -> list[str]:
    """Names of settings that all logs state, not all alike; one that is each log's seed under another name is none."""
    keys = set.intersection(*(set(log.settings) for log in logs)) if logs else set()
    seeds = [str(log.seed) for log in logs]
    return sorted(
        key
        for key in keys
        if not PLACES.search(key)
        and len({log.settings[key] for log in logs}) > 1
        and [log.settings[key] for log in logs] != seeds
    )
