"""Unmodified clients of others against a live server, each in its own environment (`make test-clients`)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_small_llama

ROOT = Path(__file__).resolve().parents[2]
NPM = sorted(path.stem for path in (Path(__file__).parent / "npm").glob("*.json"))
CLIENTS = sorted(path.stem for path in (Path(__file__).parent / "requirements").glob("*.txt"))
KEY = "a-key"
# No prices, no data sets, no telemetry from the network, and no pictures on the terminal.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_DATASETS_OFFLINE": "1", "INSPECT_DISPLAY": "none",
    "LANGSMITH_TRACING": "false", "DO_NOT_TRACK": "1",
}  # fmt: skip

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_800)]  # minutes on a busy machine


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    save_small_llama(folder, ["hello world, how are you"] * 5, 290, 4096)
    return folder


@pytest.fixture(scope="session")
def server(model, tmp_path_factory):
    """Its address, as it says when it listens. It has one document, which "hello" does not find."""
    documents = tmp_path_factory.mktemp("documents")
    (documents / "salt.md").write_text("# Salt\nSalt is kept in a dry place.\n")
    moreseek = [sys.executable, "-c", "from moreseek.cli import main; main()"]
    command = [*moreseek, "serve", str(model), "--port", "0", "--api-key", KEY, "--documents", str(documents)]
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
    run([python, script, server, KEY], tmp_path)
    if client == "lm-eval":
        compare_with_transformers(model, json.loads((tmp_path / "scores.json").read_text()))


@pytest.mark.parametrize("client", NPM)
def test_an_unmodified_client_of_npm_works(client, server, tmp_path):
    modules, node = ROOT / ".peers" / f"client-{client}-npm" / "node_modules", shutil.which("node")
    if node is None or not modules.is_dir():
        pytest.skip(f"no Node.js here, or {client} is not installed: make test-clients")
    run(
        [node, Path(__file__).parent / "scripts" / f"{client}_npm_client.cjs", server, KEY], tmp_path, NODE_PATH=modules
    )


def run(command, folder, **more):
    """The client in a folder of its own, with nothing of ours in its environment. It ends with 0."""
    environment = {**os.environ, **QUIET, "HOME": str(folder), "OPENAI_API_KEY": KEY}
    environment.pop("PYTHONPATH", None)
    environment |= {name: str(value) for name, value in more.items()}
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1_500)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


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
