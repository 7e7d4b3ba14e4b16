"""One step a file. Nothing in here knows of Ray: a stage maps a row (a dict) to rows."""

import os

# Threads of torch that have nothing to do would spin, on cores that decoders and encoders need: a shard of
# four pictures then costs 13 times the CPU seconds. OpenMP reads this when torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Likewise those of numpy, whose matrices are small here: two of them cost four times what one does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
