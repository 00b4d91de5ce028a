"""Build the kernels now instead of at first use: ``python -m moreseek.native``. Exit code 1 where they cannot be."""

import sys

from moreseek.native.bindings import build_facts, why_not

reason = why_not()
print(f"native kernels: {reason or f'ready, {build_facts()}'}", file=sys.stderr)
sys.exit(reason is not None)
