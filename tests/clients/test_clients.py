"""Unmodified clients of others against a live server, each in its own environment (`make test-clients`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_small_llama

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = sorted(path.stem for path in (Path(__file__).parent / "requirements").glob("*.txt"))
KEY = "a-key"
# No prices, no data sets, no telemetry from the network, and no pictures on the terminal.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_DATASETS_OFFLINE": "1", "INSPECT_DISPLAY": "none",
    "LANGSMITH_TRACING": "false", "DO_NOT_TRACK": "1",
}  # fmt: skip

pytestmark = pytest.mark.clients


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    save_small_llama(folder, ["hello world, how are you"] * 5, 290, 4096)
    return folder


@pytest.fixture(scope="session")
def server(model):
    """Its address, as it says when it listens."""
    moreseek = [sys.executable, "-c", "from moreseek.cli import main; main()"]
    command = [*moreseek, "serve", str(model), "--port", "0", "--api-key", KEY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            told = ""
            for line in process.stderr:
                told += line
                if " at http://" in line:
                    yield line.split(" at ")[1].split("/v1")[0]
                    break
            else:
                pytest.fail(f"the server did not begin:\n{told}")
        finally:
            process.terminate()


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unmodified_client_works(client, server, model, tmp_path):
    python = ROOT / ".peers" / f"client-{client}" / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{client} is not installed: make test-clients")
    script = Path(__file__).parent / "scripts" / f"{client.replace('-', '_')}_client.py"
    environment = {**os.environ, **QUIET, "HOME": str(tmp_path), "OPENAI_API_KEY": KEY}
    environment.pop("PYTHONPATH", None)
    command = [str(python), str(script), server, KEY]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    if client == "lm-eval":
        compare_with_transformers(model, json.loads((tmp_path / "scores.json").read_text()))


def compare_with_transformers(folder, found):
    """The same choices scored by transformers: log-likelihoods within 1e-3, the accuracy equal."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    scorer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    right = 0
    for sample in found["samples"]:
        context = tokenizer(sample["question"], add_special_tokens=False).input_ids
        expected = []
        for choice in sample["choices"]:
            ids = tokenizer(sample["question"] + choice, add_special_tokens=False).input_ids
            with torch.no_grad():
                logprobs = scorer(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected.append(sum(float(logprobs[place - 1, ids[place]]) for place in range(len(context), len(ids))))
        assert sample["logprobs"] == pytest.approx(expected, abs=1e-3)
        right += max(range(len(expected)), key=expected.__getitem__) == sample["answer"]
    assert found["acc"] == right / len(found["samples"])
