"""`moreseek convert`: nothing is lost on the way and back, and what cannot be kept is said."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import FORMS, ROWS, TEXT, MakeFolder, make_folder, tokenizer

import moreseek.cli
from moreseek.cli.convert import convert
from moreseek.errors import InputError
from moreseek.model.folder import INDEX, WEIGHTS, read_tensors
from moreseek.model.weights import load_model
from moreseek.text.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf", reason="pip install 'moreseek[gguf]'")

__all__ = ["make_folder", "tokenizer"]
TEXTS = [TEXT, "12345 a1b22 ½ ٣٤ \r\n\n\ttab  it'S", "<|user|>Hi<think>naïve 你好 👩‍👩‍👧</think><|end|>"]
IDS = torch.randint(0, ROWS, (2, 17), generator=torch.Generator().manual_seed(3))
NUMBERS = {"rms_norm_eps", "rope_theta", "routed_scaling_factor"}


def config_of(folder: Path) -> dict[str, object]:
    table = json.loads((folder / "config.json").read_text())
    scaling = table["rope_scaling"]
    if scaling:
        table["rope_scaling"] = {"kind": scaling.pop("rope_type", None) or scaling.pop("type"), **scaling}
    return table


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["moreseek", "convert", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        moreseek.cli.main()
    return int(end.value.code or 0)


# --- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_to_gguf_and_back_every_weight_and_the_config_are_what_they_were(
    form: str, make_folder: MakeFolder, tmp_path: Path
) -> None:
    kind, changes = FORMS[form]
    source = make_folder(kind, **changes)
    assert convert(str(source), tmp_path / "model.gguf", None, None) == []
    assert convert(str(tmp_path / "model.gguf"), tmp_path / "back", None, None) == []
    before, after = read_tensors(source), read_tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert config_of(tmp_path / "back") == config_of(source)
    ours, again = Tokenizer.load(source), Tokenizer.load(tmp_path / "back")
    assert (again.eos_ids, again.pad_id, again.bos_id) == (ours.eos_ids, ours.pad_id, ours.bos_id)
    assert (again.vocab_size, again.chat_template) == (ours.vocab_size, ours.chat_template)
    assert again.special_tokens == ours.special_tokens
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)
        assert again.decode(ours.encode(text), skip_special=True) == ours.decode(ours.encode(text), skip_special=True)
    assert torch.equal(load_model(tmp_path / "model.gguf")(IDS), load_model(source)(IDS))


def test_the_mtp_block_goes_into_folders_and_its_loss_in_gguf_is_said(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder("v3")
    [note] = convert(str(source), tmp_path / "model.gguf", None, None)
    assert "multi-token-prediction block is left out" in note
    assert load_model(tmp_path / "model.gguf").mtp is None
    assert convert(str(source), tmp_path / "copy", None, None) == []
    before, after = read_tensors(source), read_tensors(tmp_path / "copy")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert config_of(tmp_path / "copy") == config_of(source)


def test_shards_become_one_folder_in_the_type_that_they_have(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder("v3", num_nextn_predict_layers=0)
    tensors = {name: t.to(torch.bfloat16) for name, t in load_file(source / WEIGHTS).items()}
    names = sorted(name for name in tensors if "e_score_correction_bias" not in name)  # a router without its bias
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, source / file)
    (source / WEIGHTS).unlink()
    (source / INDEX).write_text(json.dumps({"weight_map": {n: file for file, part in parts.items() for n in part}}))
    convert(str(source), tmp_path / "copy", None, None)
    after = read_tensors(tmp_path / "copy")
    assert all(torch.equal(after[name], tensors[name]) for name in names)
    assert not after["model.layers.1.mlp.gate.e_score_correction_bias"].any()
    assert config_of(tmp_path / "copy")["dtype"] == "bfloat16"
    convert(str(source), tmp_path / "model.gguf", None, None)
    assert {e.kind for e in gguf_tensors(tmp_path / "model.gguf").values() if len(e.shape) == 3} == {30}


def gguf_tensors(path: Path):
    from moreseek.text.gguf_file import read_gguf

    return read_gguf(path).tensors


def test_a_large_model_is_written_in_shards(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_folder("llama")
    monkeypatch.setattr("moreseek.model.folder.SHARD_BYTES", 60_000)
    convert(str(source), tmp_path / "copy", None, "bf16")
    files = sorted(path.name for path in (tmp_path / "copy").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "copy" / INDEX).read_text())
    assert set(index["weight_map"].values()) == set(files)
    expected = load_model(source, dtype=torch.bfloat16)
    assert torch.equal(load_model(tmp_path / "copy", dtype=torch.bfloat16)(IDS), expected(IDS))
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read_tensors(tmp_path / "copy").values())


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_each_type_gives_the_numbers_that_gguf_gives(kind: str, make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder("v3", num_nextn_predict_layers=0, hidden_size=64, moe_intermediate_size=32)
    convert(str(source), tmp_path / "model.gguf", None, kind)
    ggml = gguf.GGMLQuantizationType[kind.upper()]
    kinds = gguf_tensors(tmp_path / "model.gguf")
    before, after = load_file(source / WEIGHTS), load_model(tmp_path / "model.gguf")
    from moreseek.model.weights import export_tensors

    read = dict(export_tensors(after))
    for name, tensor in before.items():
        if tensor.dim() < 2 or name.endswith("mlp.gate.weight"):
            expected = tensor
        elif name.endswith("kv_b_proj.weight") and kind == "q8_0":
            assert kinds["blk.0.attn_k_b.weight"].kind == 1  # its rows of 10 fit no block, so they are F16
            continue
        elif kind == "q8_0" and tensor.shape[-1] % 32:
            expected = tensor.half().float()
        else:
            expected = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), ggml), ggml))
        assert torch.equal(read[name], expected), name


# --- what is written ----------------------------------------------------------------------------------------------


def test_the_gguf_package_reads_our_file(make_folder: MakeFolder, tmp_path: Path) -> None:
    convert(str(make_folder("v3")), tmp_path / "model.gguf", None, "q8_0")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.architecture"].contents() == "deepseek2"
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    assert reader.fields["tokenizer.ggml.pre"].contents() == "deepseek-r1-qwen"
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == ROWS
    allowed = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.DEEPSEEK2]}
    stems = {re.sub(r"^blk\.\d+", "blk.{bid}", tensor.name.rpartition(".")[0]) for tensor in reader.tensors}
    assert stems <= allowed
    shapes = {tensor.name: tuple(tensor.shape[::-1]) for tensor in reader.tensors}
    assert shapes["blk.1.ffn_gate_exps.weight"] == (8, 20, 48)
    assert shapes["blk.1.attn_k_b.weight"] == (4, 24, 10)


def test_a_folder_holds_what_vllm_asks_for(make_folder: MakeFolder, tmp_path: Path) -> None:
    convert(str(make_folder("v3", num_nextn_predict_layers=0)), tmp_path / "model.gguf", None, None)
    convert(str(tmp_path / "model.gguf"), tmp_path / "back", None, "bf16")
    table = config_of(tmp_path / "back")
    wanted = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "n_group": 1, "topk_group": 1}
    wanted |= {"hidden_act": "silu", "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    assert {key: table[key] for key in wanted} == wanted
    bias = read_tensors(tmp_path / "back")["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert bias.dtype == torch.float32
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "back" / name).is_file()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("model", ["--to", "gguf"], "name the file ….gguf"),
        ("model.gguf", ["--to", "hf"], "must not end in .gguf"),
        ("copy", ["--type", "q8_0"], "is for .gguf files"),
        ("copy", ["--type", "q4_0"], "Invalid value for '--type'"),
        ("copy", ["--to", "onnx"], "Invalid value for '--to'"),
        ("there", [], "exists already"),
        ("no/such/copy", [], "there is no folder"),
    ],
)
def test_a_wrong_command_is_refused_with_what_would_be_right(
    target: str, options: list[str], said: str, make_folder: MakeFolder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "there").mkdir()
    assert run(monkeypatch, make_folder("llama"), tmp_path / target, *options) == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_and_says_so(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, make_folder("v3"), tmp_path / "m.gguf", "--type", "f16") == 0
    said = capsys.readouterr()
    assert said.out == f"Wrote {tmp_path / 'm.gguf'}\n"
    assert "note: the multi-token-prediction block is left out" in said.err


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("v3", {"n_shared_experts": 0}, "n_shared_experts = 0"),
        ("v3", {"attention_bias": True, "q_lora_rank": 8}, "attention_bias"),
        ("v3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn without equal mscale and mscale_all_dim"),
        ("qwen2", {"head_dim": 20}, "head_dim"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
    ],
)
def test_a_model_that_llama_cpp_cannot_compute_is_refused(
    kind: str, changes: dict, said: str, make_folder: MakeFolder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"llama.cpp's .* cannot compute this model: it has .*{said}"):
        convert(str(make_folder(kind, **changes)), tmp_path / "model.gguf", None, None)
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".writing*"))


def test_numbers_beyond_float16_are_named_and_nothing_is_left(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder("llama")
    tensors = load_file(source / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e5
    save_file(tensors, source / WEIGHTS)
    for target, name in (("m.gguf", "blk.1.ffn_up.weight"), ("m", "model.layers.1.mlp.up_proj.weight")):
        with pytest.raises(InputError, match=rf"{name} has numbers .*--type bf16"):
            convert(str(source), tmp_path / target, None, "f16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_tokenizer_that_does_not_fit_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder("llama", vocab_size=300)
    for target in ("m.gguf", "m"):
        with pytest.raises(InputError, match=r"the tokenizer has 3.. ids, the model only 300"):
            convert(str(source), tmp_path / target, None, None)


def test_a_model_that_was_damaged_after_it_was_written_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    convert(str(make_folder("llama")), tmp_path / "copy", None, None)
    data = bytearray((tmp_path / "copy" / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy" / WEIGHTS).write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors was damaged after it was written"):
        convert(str(tmp_path / "copy"), tmp_path / "again", None, None)
