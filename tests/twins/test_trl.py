"""TRL's DPO of the same weights and pairs: the same loss and the same gradients."""

import pytest
import torch
from tests.peers import Peer
from tests.unit.training.conftest import make_model
from tests.unit.training.test_preference import encoded, settings, shaken, step

from moreseek.model.weights import save_model
from moreseek.text.tokenizer import train_tokenizer
from moreseek.training.preference import PreferenceTraining

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = {
    "DPO": ({"beta": 0.3}, {"beta": 0.3, "loss_type": ["sigmoid"]}),
    "length-normalised": ({"beta": 3.0, "length_normalised": True}, {"beta": 3.0, "loss_type": ["sigmoid_norm"]}),
}


@pytest.fixture(scope="module")
def trl():
    peer = Peer("trl", environment={"HF_HUB_OFFLINE": "1"})
    yield peer
    peer.close()


@pytest.mark.parametrize("case", SETTINGS)
def test_loss_and_gradients_equal_trls(case, trl, tmp_path):
    tokenizer = train_tokenizer(["1+2=3;"], 264)
    model, pairs = make_model(tokenizer), encoded(tokenizer)
    ours, theirs = SETTINGS[case]
    method = PreferenceTraining(model, pairs, settings(**ours), seed=1)
    folders = [tmp_path / "reference", tmp_path / "policy"]
    for folder in folders:
        save_model(model, folder)
        tokenizer.save(folder)
        if folder.name == "reference":
            list(method.updates(1))
            shaken(model, 9)
    sides = [[[pair.sides[i].prompt_ids, pair.sides[i].completion_ids] for pair in pairs.train] for i in (0, 1)]
    found = trl.ask(
        "dpo", policy=str(folders[1]), reference=str(folders[0]), chosen=sides[0], rejected=sides[1], settings=theirs
    )
    assert step(method, 2)["loss"] == pytest.approx(found["loss"], rel=1e-5)
    compared = 0
    for name, parameter in model.named_parameters():
        theirs_here = found["gradients"].get(name if name.startswith("lm_head") else f"model.{name}")
        if theirs_here is not None and parameter.grad is not None and parameter.dim() > 0:
            expected = torch.tensor(theirs_here)
            torch.testing.assert_close(parameter.grad.flatten()[:64], expected, atol=1e-5, rtol=1e-3)
            compared += 1
    assert compared > 10
