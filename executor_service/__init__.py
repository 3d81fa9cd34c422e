"""The executor service: one per node, privileged; sets up what a container is made of, and keeps it."""

import os

# Read by gRPC when it is imported. Its fork handlers fight the children that are spawned beside its threads; ours exec
# at once and need none: https://grpc.github.io/grpc/core/md_doc_fork_support.html
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
