"""Our models against transformers', which opens the folders that we write. `pytest -s` prints each difference."""

import json
from collections.abc import Iterator

import pytest
import torch

from moreseek.model.weights import export_tensors, load_model, read_tensors, save_model

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
V3_YARN = {"rope_scaling": YARN | {"beta_fast": 32, "beta_slow": 1, "mscale": 0.7, "mscale_all_dim": 1.0}}
GROUPS = {"n_group": 4, "topk_group": 2}
GRID = {
    "v3": ("v3", {}),
    "v3-without-mtp": ("v3", {"num_nextn_predict_layers": 0}),
    "v3-shared-0": ("v3", {"n_shared_experts": 0}),
    "v3-shared-2": ("v3", {"n_shared_experts": 2}),
    "v3-groups": ("v3", GROUPS),
    "v3-one-of-four-groups": ("v3", {"n_group": 4, "topk_group": 1, "num_experts_per_tok": 2}),
    "v3-q-lora": ("v3", {"q_lora_rank": 32}),
    "v3-q-lora-groups-shared-2": ("v3", {"q_lora_rank": 32, "n_shared_experts": 2, **GROUPS}),
    "v3-yarn": ("v3", V3_YARN),
    "v3-yarn-equal-mscales": ("v3", {"rope_scaling": V3_YARN["rope_scaling"] | {"mscale": 1.0}}),
    "v3-yarn-without-mscale": ("v3", {"rope_scaling": YARN}),
    "v3-attention-bias-q-lora": ("v3", {"attention_bias": True, "q_lora_rank": 32}),
    "v3-unnormalised": ("v3", {"norm_topk_prob": False}),
    "v3-wide-values": ("v3", {"v_head_dim": 32}),
    "v3-tied": ("v3", {"tie_word_embeddings": True}),
    "v3-all-dense": ("v3", {"first_k_dense_replace": 3, "num_nextn_predict_layers": 0}),
    "v3-everything": ("v3-q-lora-groups-yarn", {"n_shared_experts": 2, "num_nextn_predict_layers": 1}),
    "llama-gqa": ("llama", {}),
    "llama-mha": ("llama", {"num_key_value_heads": 4}),
    "llama-mqa-tied": ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama-bias": ("llama", {"attention_bias": True}),
    "llama-theta": ("llama", {"rope_theta": 5e5}),
    "llama-llama3-rope": ("llama", {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 32}}),
    "llama-linear-rope": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama-yarn": ("llama", {"rope_scaling": YARN}),
    "llama-wide-heads": ("llama", {"head_dim": 20}),
    "qwen2-tied": ("qwen2", {}),
    "qwen2-untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", {}),
    "qwen3-gqa-tied": ("qwen3", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3-bias": ("qwen3", {"attention_bias": True}),
    "qwen3-yarn": ("qwen3", {"rope_scaling": YARN | {"attention_factor": 1.3}}),
}
LARGEST: dict[str, float] = {}


@pytest.fixture(scope="module", autouse=True)
def _largest_difference() -> Iterator[None]:
    yield
    if LARGEST:
        name = max(LARGEST, key=LARGEST.__getitem__)
        print(f"\nlargest difference of {len(LARGEST)} configurations: {LARGEST[name]:.2e} ({name})")


@pytest.fixture(scope="module", params=GRID)
def pair(request, make_model, tmp_path_factory):
    """(name, our model, transformers' from the folder that we wrote, folders "ours" and "theirs", loading report)."""
    kind, changes = GRID[request.param]
    ours, written = make_model(kind, **changes), tmp_path_factory.mktemp("model")
    save_model(ours, written / "ours")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        written / "ours", dtype=torch.float32, output_loading_info=True
    )
    theirs.eval().save_pretrained(written / "theirs")
    return request.param, ours, theirs, written, report


@torch.no_grad()
def test_logits_equal_transformers_s(pair):
    name, ours, theirs, *_ = pair
    ids = torch.randint(ours.config.vocab_size, (3, 48), generator=torch.Generator().manual_seed(7))
    expected = theirs(ids).logits
    difference = float((ours(ids) - expected).abs().max())
    LARGEST[name] = difference
    print(f"{name}: {difference:.2e}, logits up to {float(expected.abs().max()):.1f}")
    assert difference < TOLERANCE
    assert expected.std() > 0.5, "the comparison is about nothing when every logit is near 0"


def test_their_save_loads_here_with_the_same_weights(pair):
    _, ours, _, written, _ = pair
    again = load_model(written / "theirs")
    assert again.mtp is None  # transformers keeps no MTP weights
    expected = {name: t for name, t in export_tensors(ours) if not is_mtp(ours.config, name)}
    found = dict(export_tensors(again))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_our_save_loads_here_with_the_same_weights(pair):
    _, ours, _, written, _ = pair
    again = load_model(written / "ours")
    assert again.config.to_hf() == ours.config.to_hf()
    mine = ours.state_dict()
    assert again.state_dict().keys() == mine.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, mine[name]), name


def test_transformers_finds_every_weight_and_no_stranger(pair):
    _, ours, theirs, _, report = pair
    wanted = {name: t for name, t in theirs.named_parameters() if t.numel()}  # no shared experts: empty matrices there
    assert not set(report["missing_keys"]) & wanted.keys()
    assert not report["mismatched_keys"]
    assert all(is_mtp(ours.config, name) for name in report["unexpected_keys"])


def test_config_json_holds_what_other_engines_ask_for(make_model, tmp_path):
    save_model(make_model("v3"), tmp_path)
    table = json.loads((tmp_path / "config.json").read_text())
    assert (table["scoring_func"], table["topk_method"], table["moe_layer_freq"]) == ("sigmoid", "noaux_tc", 1)
    assert (table["n_group"], table["topk_group"], table["num_nextn_predict_layers"]) == (1, 1, 1)
    assert table["architectures"] == ["DeepseekV3ForCausalLM"]


def test_the_router_s_bias_stays_fp32_in_a_bf16_folder(make_model, tmp_path):
    ours = make_model("v3")
    save_model(ours, tmp_path, dtype=torch.bfloat16)
    tensors = read_tensors(tmp_path)
    biases = {name: t for name, t in tensors.items() if name.endswith("e_score_correction_bias")}
    assert len(biases) == 3  # two layers and the MTP block
    assert all(t.dtype == torch.float32 for t in biases.values())
    assert {t.dtype for name, t in tensors.items() if name not in biases} == {torch.bfloat16}
    assert torch.equal(biases["model.layers.1.mlp.gate.e_score_correction_bias"], ours.layers[1].mlp.gate.bias)


def is_mtp(config, name):
    return name.startswith(f"model.layers.{config.num_hidden_layers}.")
