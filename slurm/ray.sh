# shellcheck shell=bash
# Sourced by nodes.sbatch: a Ray cluster on all nodes of the job, from start_ray to clean_up.
#
# Ray's processes, and xsample, ask each other for a token that is made for the job and is only in their environment.

WAIT_SECONDS=300
ray_id=

start_ray() {
    local nodes waiting log=slurm-$SLURM_JOB_ID-ray.out
    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    RAY_BIN=$(dirname "$(readlink -f "$(command -v xsample)")")
    [[ -x $RAY_BIN/ray && -x $RAY_BIN/python ]] ||
        give_up "ray and python are not beside xsample in $RAY_BIN: install it into an environment of its own"
    RAY_AUTH_MODE=token
    RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
    RAY_HEAD=$(head_address "${nodes[-1]}")
    export RAY_BIN RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_HEAD
    unset RAY_AUTH_TOKEN_PATH RAY_ADDRESS

    trap clean_up EXIT
    srun --overlap --ntasks-per-node=1 --job-name=ray --output="$log" --open-mode=append \
        "$XSAMPLE_HOME/slurm/ray-node.sh" &
    ray_id=$!
    say "starting Ray on ${nodes[*]}; what it says is in $log"
    wait_for_nodes "${#nodes[@]}" &
    waiting=$!
    if ! wait -n "$ray_id" "$waiting" && [[ -z $was_stopped ]]; then # a signal cuts it short
        give_up "Ray does not come up on ${#nodes[@]} nodes: see $log"
    fi
    kill -KILL "$waiting" 2>/dev/null || true # Ray hears nothing else while it looks for its head
}

# End Ray on all nodes; each removes its own files. SIGTERM for srun itself would be SIGKILL for them.
clean_up() {
    local step
    [[ $ray_id ]] || return 0
    step=$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format="%i %j" | awk '$2 == "ray" { print $1 }')
    [[ -z $step ]] || scancel --signal=TERM "$step" || true
    wait "$ray_id" || true
    ray_id=
}

# host:port for the head, on this node: the address that leads to the node $1, and a port that is free.
head_address() {
    local towards
    towards=$(scontrol --oneliner show node "$1" | sed 's/.* NodeAddr=\([^ ]*\).*/\1/')
    "$RAY_BIN/python" - "$towards" <<'PYTHON'
import socket, sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route, socket.socket() as port:
    route.connect((sys.argv[1], 9))  # sends nothing
    port.bind(("", 0))
    print(f"{route.getsockname()[0]}:{port.getsockname()[1]}")
PYTHON
}

# Wait until the cluster has $1 nodes. Runs in the background, in place of its shell: whoever kills that kills the waiting.
wait_for_nodes() {
    exec "$RAY_BIN/python" - "$RAY_HEAD" "$1" "$WAIT_SECONDS" <<'PYTHON'
import signal, socket, sys, time

address, num_nodes = sys.argv[1], int(sys.argv[2])
signal.alarm(int(sys.argv[3]))  # ends the process, whatever Ray is doing
host, _, port = address.rpartition(":")
while True:
    try:
        socket.create_connection((host, int(port)), 5).close()
        break
    except OSError:
        time.sleep(0.5)

import ray

ray.init(address=address, logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < num_nodes:
    time.sleep(0.5)
PYTHON
}
