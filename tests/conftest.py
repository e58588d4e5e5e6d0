"""Two test processes share two cores: one thread each, also in the programs that they start."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
