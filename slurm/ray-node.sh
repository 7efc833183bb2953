#!/bin/bash
# One node of the job's Ray cluster: srun starts this on every node, the first is the head. SIGTERM ends it, and Ray with
# all that runs in it; nothing is left on the node.

set -euo pipefail

# Not in TMPDIR, which may be long: a socket's path has at most 107 bytes. Ray opens its own folder to everybody, so that
# lies in one that is not.
folder=$(mktemp --directory "/tmp/ray-$SLURM_JOB_ID-XXXX")
trap 'rm -rf "$folder"' EXIT
export TMPDIR=$folder
export RAY_prestart_worker_first_driver=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # all nodes end at once: there is nobody to hand work over to

host=${RAY_HEAD%:*} port=${RAY_HEAD##*:}
if ((SLURM_PROCID == 0)); then
    role=(--head --node-ip-address="$host" --port="$port" --include-dashboard=false --no-monitor)
else
    role=(--address="$RAY_HEAD")
    until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
        sleep 0.5
    done
fi

"$RAY_BIN/ray" start "${role[@]}" --num-cpus="$SLURM_CPUS_ON_NODE" --object-store-memory=268435456 \
    --temp-dir="$folder/r" --include-log-monitor=false --disable-usage-stats --block &
trap 'kill -TERM "$!" 2>/dev/null || true; wait "$!" || true; exit 0' TERM
wait "$!"
