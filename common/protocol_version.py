"""The version of the protocol between the services, `slipway.executor.v1`.

What is added to it needs no new version, as unknown fields and RPCs are refused by name; what means something else than
before does. Each service says which versions it speaks, from the oldest on, and the API compares (see
api_service/executor_client/protocol.py). An executor that says nothing speaks version 0, from before there were any.
"""

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1
