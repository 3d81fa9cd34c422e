#!/usr/bin/env bash
# A container's life through the public API. Both services run as an instance of their own in a network namespace of their
# own, so nothing of the host's network is touched; everything is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly instance=demo
readonly socket=/run/slipway-$instance/api.sock
readonly python=$PWD/.venv/bin/python
readonly grpcurl=$PWD/.venv/bin/grpcurl
scratch=$(mktemp -d)
namespace=$scratch/netns
pids=()

bold() { printf '\033[1m%s\033[0m\n' "$*"; }

clean_up() {
    status=$?
    trap - EXIT
    trap '' INT TERM
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
    [[ -e $namespace ]] && { nsenter --net="$namespace" "$python" -m executor_service reset --instance "$instance" --images >>"$scratch/log" 2>&1 || status=1; }
    umount "$namespace" 2>/dev/null || true
    rm -rf "/var/lib/slipway-$instance" "/run/slipway-$instance"
    if ((status)); then
        echo "the demo failed; what the services said:" >&2
        tail -n 40 "$scratch/log" >&2
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

start_services() {
    touch "$namespace"
    unshare --net="$namespace" ip link set lo up
    nsenter --net="$namespace" "$python" -m executor_service --instance "$instance" >>"$scratch/log" 2>&1 &
    pids+=($!)
    nsenter --net="$namespace" "$python" -m api_service --instance "$instance" >>"$scratch/log" 2>&1 &
    pids+=($!)
    "$python" -m common.healthcheck --wait 60 "unix://$socket" "unix:///run/slipway-$instance/executor.sock"
}

# call SERVICE/METHOD JSON: show the line, then run exactly that.
call() {
    bold "\$ grpcurl -plaintext -unix -d '$2' $socket slipway.v1.$1"
    "$grpcurl" -plaintext -unix -d "$2" "$socket" "slipway.v1.$1"
}

# With a registry on this machine (Debian's docker-registry), the image goes there and comes back as images usually come.
pull_image() {
    local place=127.0.0.1:5000/busybox
    printf '%s' "{\"version\": 0.1, \"log\": {\"level\": \"error\", \"accesslog\": {\"disabled\": true}}," \
        "\"storage\": {\"filesystem\": {\"rootdirectory\": \"$scratch/registry\"}}, \"http\": {\"addr\": \"${place%/*}\"}}" >"$scratch/registry.yml"
    nsenter --net="$namespace" docker-registry serve "$scratch/registry.yml" >>"$scratch/log" 2>&1 &
    pids+=($!)
    timeout 20 nsenter --net="$namespace" bash -c 'until { exec 3<>/dev/tcp/127.0.0.1/5000; } 2>/dev/null; do sleep 0.1; done'
    call ImageService/TagImage '{"image": "busybox", "target": "'$place'"}'
    call ImageService/PushImage '{"image": "'$place'"}'
    call ImageService/RemoveImage '{"image": "busybox"}'
    call ImageService/RemoveImage '{"image": "'$place'"}'
    call ImageService/PullImage '{"reference": "'$place'"}'
    call ImageService/TagImage '{"image": "'$place'", "target": "busybox"}'
    call ImageService/RemoveImage '{"image": "'$place'"}'
}

load_image() {
    bold "\$ split -b 1M --filter='printf \"{\\\"chunk\\\":\\\"%s\\\"}\" \"\$(base64 -w0)\"' busybox.tar | grpcurl -plaintext -unix -d @ $socket slipway.v1.ImageService/LoadImage"
    split -b 1M --filter='printf "{\"chunk\":\"%s\"}" "$(base64 -w0)"' "$scratch/busybox.tar" |
        "$grpcurl" -plaintext -unix -d @ "$socket" slipway.v1.ImageService/LoadImage
}

"$python" -m tests.fixtures.busybox "$scratch/busybox.tar"
start_services
load_image
if command -v docker-registry >/dev/null; then pull_image; fi
call ContainerService/CreateContainer '{"name": "hello", "config": {"image": "busybox", "cmd": ["sh", "-c", "echo hello from $(hostname); ip -4 addr show eth0; exec sleep 300"], "stop_timeout": 1}}'
call ContainerService/StartContainer '{"container": "hello"}'
call ContainerService/InspectContainer '{"container": "hello"}'
call ContainerService/ListContainers '{}'
call ContainerService/StopContainer '{"container": "hello"}'
call ContainerService/WaitContainer '{"container": "hello"}'
bold "\$ grpcurl … StreamLogs, its data decoded"
"$grpcurl" -plaintext -unix -d '{"container": "hello"}' "$socket" slipway.v1.ContainerService/StreamLogs |
    sed -n 's/^ *"data": "\(.*\)".*$/\1/p' | while read -r line; do base64 -d <<<"$line"; done
call ContainerService/RemoveContainer '{"container": "hello"}'
call ImageService/RemoveImage '{"image": "busybox"}'
bold "done: created, started, inspected, stopped, read and removed"
