# The API service: an unprivileged user without capabilities.
FROM debian:12-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 slipway \
 && useradd --uid 65532 --gid slipway --no-create-home --shell /usr/sbin/nologin slipway \
 && install -d -o slipway -g slipway /var/lib/slipway-api /run/slipway-api

WORKDIR /opt/slipway
COPY pyproject.toml README.md ./
COPY common ./common
COPY executor_service ./executor_service
COPY api_service ./api_service
COPY protos ./protos
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir .

USER slipway
ENTRYPOINT ["/opt/venv/bin/python", "-m", "api_service"]
