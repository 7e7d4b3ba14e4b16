"""The flow, the tables, storage, the run: all that knows of Ray Data."""

import os

# Threads of torch that have nothing to do would spin, on cores that decoders and encoders need: a shard of
# four pictures then costs 13 times the CPU seconds. OpenMP reads this when torch is loaded: it stands first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
