"""Median milliseconds that rnncore takes to import after NumPy, in fresh processes; exits with 1 if more than 40."""

import statistics
import subprocess
import sys

CODE = "import numpy, time; begin = time.perf_counter(); import rnncore; print(time.perf_counter() - begin)"

times = [1e3 * float(subprocess.check_output([sys.executable, "-c", CODE])) for _ in range(11)]
median = statistics.median(times)
print(f"import: {median:.1f} ms after NumPy (from {min(times):.1f} to {max(times):.1f})")
sys.exit(median > 40)
