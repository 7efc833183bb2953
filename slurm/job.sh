# shellcheck shell=bash
# Sourced by the job scripts: finds xsample, runs it to its end, and puts the job back into the queue where it was stopped.
#
# XSAMPLE_HOME: the checkout, where it is not the folder that the job was submitted from.
# XSAMPLE_MAX_RESTARTS: how often a job may be started again before it is left alone; 100.

STOPPED=143 # what xsample ends with after SIGTERM: everything that was finished is committed
was_stopped=
command_id=
trap 'was_stopped=1; [[ -z $command_id ]] || kill -TERM "$command_id" 2>/dev/null || true' TERM

say() {
    echo >&2 "job ${SLURM_JOB_ID:-}: $1"
}

give_up() {
    say "$1"
    exit 2
}

if ! command -v xsample >/dev/null; then
    PATH=$XSAMPLE_HOME/.venv/bin:$PATH
    command -v xsample >/dev/null ||
        give_up "no xsample on PATH nor in $XSAMPLE_HOME/.venv/bin: submit from a checkout after \`make install\`, or set XSAMPLE_HOME"
fi

# Run a command to its end, and end the job with its exit code. SIGTERM is handed on to it.
run_to_the_end() {
    local code=$STOPPED
    says_where "$@" || give_up "give --out: a job that is started again must find what it has made"
    if [[ -z $was_stopped ]]; then
        "$@" &
        command_id=$!
        wait_for_command && code=0 || code=$?
        say "xsample ended with $code"
    fi
    trap '' TERM
    if declare -F clean_up >/dev/null; then
        clean_up
    fi
    if ((code == STOPPED)); then
        requeue
    fi
    exit "$code"
}

# Whether the command has an --out, or a --config file with one.
says_where() {
    local option value
    while (($#)); do
        option=${1%%=*} value=${1#*=}
        [[ $1 == *=* ]] || value=${2:-}
        [[ $option != --out ]] || return 0
        [[ $option != --config ]] || ! grep -qs "^out:" "$value" || return 0
        shift
    done
    return 1
}

# The exit code of the command. A signal cuts `wait` short, and its trap says so.
wait_for_command() {
    local code
    while true; do
        was_stopped=
        wait "$command_id" && code=0 || code=$?
        [[ $was_stopped ]] || return "$code"
    done
}

requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0} id=$SLURM_JOB_ID
    # One task of an array has the array's number as its job id, which alone would mean all of its tasks.
    [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if ((restarts >= ${XSAMPLE_MAX_RESTARTS:-100})); then
        say "not started again after $restarts times (XSAMPLE_MAX_RESTARTS); the same sbatch command goes on with the run"
    elif [[ $(squeue --noheader --jobs="$id" --states=all --format=%T) == RUNNING ]]; then # else it was cancelled
        say "back into the queue"
        scontrol requeue "$id"
    fi
}
