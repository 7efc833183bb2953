#!/bin/bash
# Submit a run as an array of NUM_TASKS jobs, and after all of them the job that makes what they left, grades and
# reports. From the checkout:
#
#     slurm/submit-array.sh 8 --base MODEL --rl MODEL --task aime24 --out RUN
#
# XSAMPLE_SBATCH="--partition=gpu --cpus-per-task=16" are sbatch options of both jobs; SBATCH_PARTITION and the like too.

set -euo pipefail

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    echo >&2 "usage: slurm/submit-array.sh NUM_TASKS, then the options of \`xsample run\` with --out RUN"
    exit 2
fi
num_tasks=$1
shift
scripts=$(dirname "${BASH_SOURCE[0]}")

read -ra options <<<"${XSAMPLE_SBATCH:-}"

array=$(sbatch --parsable "${options[@]}" --array="1-$num_tasks" "$scripts/array.sbatch" "$@")
array=${array%%;*} # a site with several clusters adds its name
last=$(sbatch --parsable "${options[@]}" --dependency="afterany:$array" "$scripts/node.sbatch" "$@")
echo "array $array with $num_tasks tasks, then job ${last%%;*}"
