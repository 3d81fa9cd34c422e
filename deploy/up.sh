#!/usr/bin/env bash
# Run both services in the foreground until Ctrl-C or until one of them ends. Containers go on running: stopping the services
# stops none of them.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
pids=()
stop() {
    trap '' INT TERM
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 0' INT TERM

"$python" -m executor_service "$@" &
pids+=($!)
"$python" -m api_service "$@" &
pids+=($!)
wait -n "${pids[@]}"
