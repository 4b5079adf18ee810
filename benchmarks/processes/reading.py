"""What `codec.measurement.foreign` asks of its process, and what that took.

python -m benchmarks.processes.reading ROOT state|ledger < FILE -> the answer on stdout, JSON of the usage on stderr.
"""

import json
import resource
import sys

from benchmarks.machine import high_water
from codec.measurement.foreign import answer

if __name__ == "__main__":
    answer()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sys.stderr.write(json.dumps({"seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": high_water()}))
