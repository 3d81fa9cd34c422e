"""Where the records live: one Protocol, an embedded and an in-memory implementation."""
