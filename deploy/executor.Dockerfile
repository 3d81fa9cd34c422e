# The executor: root, privileged, the host's cgroups. Debian's own Python and programs, nothing from elsewhere.
FROM debian:12-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        conmon crun runc libnftables1 python3 python3-venv tar tini util-linux \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/slipway
COPY pyproject.toml README.md ./
COPY common ./common
COPY executor_service ./executor_service
COPY api_service ./api_service
COPY protos ./protos
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir .

ENTRYPOINT ["/opt/venv/bin/python", "-m", "executor_service"]
