"""The controller. Its matrices are small and its threads are many: linear algebra in more threads still would wait for
itself, for seconds on a busy machine, so it has one, here and in the processes that are started from here."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
