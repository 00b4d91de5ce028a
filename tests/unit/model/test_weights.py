"""Model folders that are hostile, damaged or of another shape are refused with a reason, and good ones are not."""

import errno
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.folder import save_tensors
from moreseek.model.transformer import build
from moreseek.model.weights import export_tensors, load_model, read_tensors, save_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 4,
    "moe_intermediate_size": 8, "num_nextn_predict_layers": 1, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA = {key: SHAPE[key] for key in list(SHAPE)[:5]} | {"model_type": "llama", "num_key_value_heads": 1}


@pytest.fixture
def folder(tmp_path):
    save_model(build(ModelConfig.model_validate(SHAPE), seed=1), tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    table = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(table))


def edit_tensors(folder, edit):
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def split_into_shards(folder):
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    (folder / WEIGHTS).unlink()
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    return str(caught.value)


# --- pickles -----------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_a_pickle_is_refused_with_the_reason_and_never_opened(folder, name):
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert name in refused(folder, r"is a pickle, which can run any code when it is opened.*Convert it to safetensors")


def test_a_pickle_under_the_name_of_a_safetensors_file_is_not_opened(folder):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    refused(folder, "damaged or not a safetensors file")


def test_a_pickle_beside_good_weights_does_no_harm(folder):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    load_model(folder)


def test_a_shard_that_is_a_pickle_is_refused(folder):
    weight_map = split_into_shards(folder)
    (folder / "a.safetensors").unlink()
    (folder / "a.bin").write_bytes(pickle.dumps(Bomb()))
    moved = {name: file.replace("a.safetensors", "a.bin") for name, file in weight_map.items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": moved}))
    refused(folder, r"a\.bin")


# --- damaged files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -1, -1000])
def test_a_truncated_file_is_damaged(folder, size):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:size])
    assert WEIGHTS in refused(folder, "damaged")


def test_a_file_with_bytes_behind_its_end_is_damaged(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")
    refused(folder, "damaged")


def write_header(folder, header):
    data = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    text = header(data[8 : 8 + length].decode()).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize("length", [0, 1, 10**6, 10**12, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused_before_it_is_read(folder, length):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + data[8:])
    refused(folder, "its header does not fit")


def test_a_header_that_names_a_tensor_twice_is_refused(folder):
    name = '"model.norm.weight"'
    entry = '{"dtype":"F32","shape":[16],"data_offsets":[0,64]}'
    write_header(folder, lambda text: f"{{{name}:{entry},{text[1:]}")
    refused(folder, "names a tensor twice")


@pytest.mark.parametrize(
    "header",
    [
        lambda text: "{" + "[" * len(text),
        lambda text: "[" * 200_000,
        lambda text: "not json at all",
        lambda text: text.replace("F32", "F99", 1),
        lambda text: text.replace('"data_offsets":[0,', '"data_offsets":[-8,', 1),
        lambda text: text.replace('"shape":[', '"shape":[999999999999,', 1),
    ],
    ids=["open", "deep", "text", "dtype", "offset", "shape"],
)
def test_a_header_that_makes_no_sense_is_damaged(folder, header):
    write_header(folder, header)
    refused(folder, "damaged")


# --- shards ------------------------------------------------------------------------------------------------------


def test_shards_load_like_one_file(folder):
    whole = dict(export_tensors(load_model(folder)))
    split_into_shards(folder)
    for name, tensor in export_tensors(load_model(folder)):
        assert torch.equal(tensor, whole[name]), name


def test_a_missing_shard_is_named(folder):
    split_into_shards(folder)
    (folder / "b.safetensors").unlink()
    refused(folder, r"b\.safetensors is missing")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "deep/a.safetensors", ".."])
def test_a_shard_outside_the_folder_is_refused(folder, name):
    shutil.move(folder / WEIGHTS, folder.parent / "outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    refused(folder, "leaves the folder|is missing")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', "\ud800"], ids=repr)
def test_an_index_that_is_no_index_is_refused(folder, text):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, INDEX)


def test_weights_in_one_file_go_before_an_index_that_was_left_behind(folder):
    whole, model = (folder / WEIGHTS).read_bytes(), load_model(folder)
    split_into_shards(folder)
    for file in ("a.safetensors", "b.safetensors"):
        save_file({name: tensor + 1 for name, tensor in load_file(folder / file).items()}, folder / file)
    assert not torch.equal(load_model(folder).norm.weight, model.norm.weight)
    (folder / WEIGHTS).write_bytes(whole)
    assert torch.equal(load_model(folder).norm.weight, model.norm.weight)


def test_saving_over_shards_leaves_no_index_behind(folder):
    model = load_model(folder)
    split_into_shards(folder)
    save_model(model, folder)
    assert not (folder / INDEX).exists()
    assert torch.equal(load_model(folder).norm.weight, model.norm.weight)


# --- shapes, names, architectures --------------------------------------------------------------------------------


def test_shapes_that_do_not_fit_are_named_with_both_shapes(folder):
    edit_config(folder, hidden_size=24)
    message = refused(folder, r"model.embed_tokens.weight is \(40, 16\), config.json asks for \(40, 24\)")
    assert "more" in message  # not a page of them


def test_a_missing_tensor_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.experts.2.up_proj.weight"))
    refused(folder, r"model.layers.1.mlp.experts.2.up_proj.weight is missing")


def test_a_missing_router_bias_is_zero(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.gate.e_score_correction_bias"))
    assert not load_model(folder).layers[1].mlp.gate.bias.any()


def test_weights_without_mtp_load_without_it(folder):
    edit_tensors(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.2." in name])
    model = load_model(folder)
    assert model.mtp is None
    assert model.config.num_nextn_predict_layers == 0


def test_tensors_that_nobody_asked_for_are_left_alone(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"model.layers.9.mlp.gate.weight": torch.zeros(4, 16)}))
    load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"},
        {"architectures": None, "model_type": "gpt2"},
        {"architectures": [], "model_type": None},
    ],
)
def test_an_unknown_architecture_is_refused_with_those_that_are_known(folder, changes):
    edit_config(folder, **changes)
    refused(folder, r"is not supported\. Supported: DeepseekV3ForCausalLM, LlamaForCausalLM")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("mlp_bias", True),
        ("use_sliding_window", True),
        ("scoring_func", "softmax"),
        ("rope_interleave", False),
        ("quantization_config", {"quant_method": "fp8"}),
    ],
)
def test_a_setting_that_changes_the_maths_is_refused_by_name(folder, key, value):
    edit_config(folder, **{key: value})
    refused(folder, f"{key} = .* is not supported")


def test_what_a_config_of_v3_leaves_out_is_what_transformers_takes_it_to_be(folder):
    """All of these change the result and no shape: with our own defaults, for small models, it was another model."""
    transformers = pytest.importorskip("transformers")
    table = json.loads((folder / "config.json").read_text())
    for key in ("n_group", "topk_group", "num_experts_per_tok", "routed_scaling_factor", "norm_topk_prob"):
        del table[key]
    table["n_routed_experts"] = 256
    found, expected = ModelConfig.from_hf(table), transformers.DeepseekV3Config()
    for key in ("n_group", "topk_group", "num_experts_per_tok", "routed_scaling_factor", "norm_topk_prob"):
        assert getattr(found, key) == getattr(expected, key), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "yarn, linear or llama3"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "yarn, linear or llama3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok must not exceed"),
        ({"n_group": 3}, "n_group must divide"),
        ({"attention_bias": True, "q_lora_rank": None}, "attention_bias needs a q_lora_rank"),
    ],
)
def test_a_config_that_cannot_be_is_refused(folder, changes, message):
    edit_config(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize("scaling", [{}, {"factor": 0}, {"factor": "2"}, {"factor": math.inf}], ids=str)
@pytest.mark.parametrize("kind", ["yarn", "linear", "llama3"])
def test_rope_scaling_without_its_numbers_is_refused(folder, kind, scaling):
    edit_config(folder, rope_scaling={"rope_type": kind, **scaling})
    refused(folder, "rope_scaling")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\ud800"], ids=repr)
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, r"config\.json")


def test_a_folder_without_a_config_or_weights_says_so(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, rf"{WEIGHTS} is missing")
    (folder / "config.json").unlink()
    refused(folder, r"no config\.json, so this is not a model folder")
    refused(folder / "absent", r"no config\.json")


def test_remote_code_in_a_config_is_ignored(folder):
    (folder / "evil.py").write_text("raise SystemExit")
    edit_config(folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
    load_model(folder)


# --- tied weights, precision -------------------------------------------------------------------------------------


@pytest.fixture(params=[SHAPE, LLAMA], ids=["v3", "llama"])
def tied(request, tmp_path):
    model = build(ModelConfig.model_validate(request.param | {"tie_word_embeddings": True}), seed=1)
    save_model(model, tmp_path)
    return model, tmp_path


def test_tied_weights_are_one_tensor_in_memory_and_on_disk(tied):
    model, folder = tied
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    again = load_model(folder)
    assert again.lm_head is None
    assert again.head is again.embed_tokens.weight
    assert len(list(again.parameters())) == len(list(model.parameters()))


def test_a_tied_model_that_also_lists_its_head_loads(tied):
    _, folder = tied
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    load_model(folder)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_weights_are_readable_by_whom_the_files_beside_them_are(folder, tmp_path, mask, mode):
    model = load_model(folder)
    before = os.umask(mask)
    try:
        save_model(model, tmp_path / "new")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {mode}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_what_the_system_refuses_while_weights_are_written_is_an_error_of_the_system(tmp_path, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr("moreseek.model.folder.save_file", refuse)
    with pytest.raises(OSError, match=r"w\.safetensors") as caught:
        save_tensors({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert caught.value.errno == number


def test_saved_bf16_weights_load_in_any_precision(folder):
    model = load_model(folder)
    save_model(model, folder, dtype=torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    for dtype in (torch.float32, torch.bfloat16):
        again = load_model(folder, dtype=dtype)
        assert {p.dtype for p in again.parameters()} == {dtype}
        assert again.layers[1].mlp.gate.bias.dtype == torch.float32
        assert again.rope.frequencies.dtype == torch.float32
        torch.testing.assert_close(again.norm.weight.float(), model.norm.weight, atol=1e-2, rtol=1e-2)
    assert torch.isfinite(again(torch.randint(40, (1, 8)))).all()


def test_a_loaded_model_can_be_trained(folder):
    model = load_model(folder)
    assert not model.training
    model.train()(torch.randint(40, (1, 8))).sum().backward()
    assert model.layers[1].mlp.gate.load.sum() == 8 * 2


def test_read_tensors_reads_every_name(folder):
    model = load_model(folder)
    assert set(read_tensors(folder)) == {name for name, _ in export_tensors(model)}


def test_loading_and_running_a_model_imports_neither_torchs_compiler_nor_sympy(folder):
    """They take two seconds of every start; on the meta device a random weight or an arange needs them."""
    code = (
        "import sys, torch\n"
        "from moreseek.engine.engine import Engine\n"
        "from moreseek.engine.sampling import SamplingParams\n"
        "from moreseek.model.weights import load_model\n"
        "Engine(load_model(sys.argv[1])).generate([[1, 2, 3]], SamplingParams(max_tokens=2))\n"
        "sys.exit(', '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
