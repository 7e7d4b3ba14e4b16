"""What a run runs on: connecting, sizes of the pools, and checks before any work is done."""
