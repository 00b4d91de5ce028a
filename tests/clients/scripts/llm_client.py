"""llm, by its command line: llm_client.py URL KEY"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

URL, KEY = sys.argv[1:]
LLM = Path(sys.executable).parent / "llm"

with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "extra-openai-models.yaml").write_text(
        f"- model_id: tiny\n  model_name: tiny\n  api_base: {URL}/v1\n  api_key_name: ours\n  supports_schema: true\n"
    )

    def llm(*words: str) -> str:
        environment = {**os.environ, "LLM_USER_PATH": folder}
        return subprocess.run([str(LLM), *words], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    ask = ["prompt", "-m", "tiny", "--key", KEY, "-o", "max_tokens", "200", "-o", "seed", "1", "hello"]
    assert llm(*ask, "--no-stream") == llm(*ask)
    assert '"tiny"' in llm("logs", "--json")
print("llm: prompt, stream, logs")
