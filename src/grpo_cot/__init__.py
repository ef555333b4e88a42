"""Teach a small language model to reason with GRPO, and prove that it worked."""

import logging

# On a CPU bitsandbytes says at every import that an optional kernel of a hub is not there. It is not needed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
