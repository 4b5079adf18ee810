#!/usr/bin/env bash
# One machine: PROCESSES is a number, or `gpu` for one process on each card.
#
#   examples/launch/torchrun.sh gpu mine/train_gpt.py data run0 --seed 0
#
# What stands behind OUTPUT goes to the script.  A run that was stopped goes on when the same command is given again:
# the script finds its last saved state in OUTPUT.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PROCESSES SCRIPT DATA OUTPUT [OPTION...]" >&2
    exit 2
fi
processes=$1 script=$2 data=$3 output=$4
shift 4
exec torchrun --standalone --nproc_per_node="$processes" "$script" --data "$data" --output "$output" "$@"
