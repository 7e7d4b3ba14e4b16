"""The flow, the tables, storage, the run: all that knows of Ray Data."""

import stages as stages  # before anything loads torch: it says how idle threads wait
