# A member of the store: Debian's etcd, as an unprivileged user.
FROM debian:12-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends etcd-client etcd-server \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 slipway \
 && useradd --uid 65532 --gid slipway --no-create-home --shell /usr/sbin/nologin slipway \
 && install -d -m 0700 -o slipway -g slipway /var/lib/slipway-etcd

USER slipway
ENTRYPOINT ["/usr/bin/etcd"]
