"""Build the kernels now instead of at first use: ``python -m moreseek.native``. Exit code 1 where they cannot be."""

import sys

from moreseek.native.bindings import lanes, why_not

reason = why_not()
print(f"native kernels: {reason or f'ready, {lanes()} floats a vector'}", file=sys.stderr)
sys.exit(reason is not None)
