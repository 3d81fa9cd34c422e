"""Messages of `slipway.executor.v1` to the executor's own words and back; no other folder knows both."""
