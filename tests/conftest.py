"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# No example is too slow, for a busy machine is no failure, and each run tries the same ones, so that it fails for what
# was changed. Other ones are tried by who looks for longer (see `examples` in fixtures/state_walk.py).
settings.register_profile("slipway", settings.get_profile("ci"), derandomize="SLIPWAY_TEST_EXAMPLES" not in os.environ)
settings.load_profile("slipway")
