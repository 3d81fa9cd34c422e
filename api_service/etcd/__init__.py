"""The store and the claims of a cluster, on etcd: a client for its own gRPC API, and what is built of it."""
