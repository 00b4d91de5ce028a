"""Folders that are made to harm: headers that lie about their tensors, files that fill the memory or never end."""

import json
import os
import struct
import time

import pytest

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.export import open_model
from moreseek.model.transformer import build
from moreseek.model.weights import load_model, save_model
from moreseek.text.tokenizer import Tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHAPE = {
    "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path):
    save_model(build(ModelConfig.model_validate(SHAPE), seed=1), tmp_path / "model")
    return tmp_path / "model"


def refused_at_once(folder, message, loads=(load_model, open_model)):
    """Within a second of processor time: the machine may be busy with something else."""
    for load in loads:
        start = time.process_time()
        with pytest.raises(InputError, match=message) as caught:
            load(folder)
        assert time.process_time() - start < 1.0
        assert len(str(caught.value)) < 1000
        assert str(folder) in str(caught.value)


def with_entry(folder, **changes):
    """The same file, with other words about its last norm in the header."""
    data = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header[NORM] |= changes
    write(folder, json.dumps(header), data[8 + length :])


def write(folder, header, data=b""):
    text = header.encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)


def span(folder, name):
    data = (folder / WEIGHTS).read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])[name]["data_offsets"]


def test_tensors_that_share_bytes_are_refused(folder):
    with_entry(folder, data_offsets=span(folder, "model.layers.0.input_layernorm.weight"))
    refused_at_once(folder, "belongs to another tensor too|leaves bytes unused")


def test_offsets_beyond_the_file_are_refused(folder):
    with_entry(folder, data_offsets=[1 << 40, (1 << 40) + 64])
    refused_at_once(folder, "leaves bytes unused before it")


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1 << 60]},
        {"shape": [1 << 60, 0]},
        {"shape": [1 << 32, 1 << 32, 16]},  # 16 modulo 2^64
        {"shape": [10**400]},
        {"shape": [16.0]},
        {"shape": [True] * 4},
        {"shape": [-4, -4]},
        {"shape": "16"},
        {"shape": [[16]]},
        {"shape": [1] * 100_000},
        {"data_offsets": [0]},
        {"data_offsets": [0, 64, 128]},
        {"data_offsets": [64, 0]},
        {"data_offsets": [0, 2**64 - 1]},
        {"data_offsets": [None, None]},
        {"dtype": None},
        {"dtype": "x" * 100_000},
    ],
    ids=lambda changes: str(changes)[:30],
)
def test_an_entry_that_cannot_be_is_refused(folder, changes):
    with_entry(folder, **changes)
    refused_at_once(folder, NORM)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"a": NaN}', "damaged"),
        ('{"a": {}}', "no proper dtype"),
        ('{"": 1}', "no proper dtype"),
        ("[]", "no table"),
        ('"text"', "no table"),
        ('{"__metadata__": []}', "there are 0"),
        ("\ud800", "not JSON"),
        ("{" * 1_000_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        (" " * 20_000_000, "does not fit"),
        ("1" * 1_000_000, "not JSON|no table"),
    ],
    ids=lambda value: value[:12],
)
def test_a_header_of_nonsense_is_refused(folder, header, message):
    text = header.encode("utf-8", "surrogatepass")
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)
    refused_at_once(folder, message)


def test_sixty_thousand_tensors_with_a_fault_at_the_end(folder):
    entries = {f"tensor.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(60_000)}
    write(folder, json.dumps(entries | {"last": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}))
    refused_at_once(folder, "its tensors need 4 bytes, and it holds 0")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, INDEX, "tokenizer.json", "chat_template.jinja"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    (folder / "tokenizer.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    load = load_model if name in ("config.json", WEIGHTS) else Tokenizer.load if "tok" in name else None
    if load is not None:
        refused_at_once(folder, "missing|no tokenizer.json|no config.json", [load])


@pytest.mark.parametrize(
    ("name", "size", "load"),
    [("config.json", 10**6 + 1, load_model), (INDEX, 10**9, load_model), ("tokenizer.json", 10**11, Tokenizer.load)],
)
def test_a_file_that_would_fill_the_memory_is_not_read(folder, name, size, load):
    if name == INDEX:
        (folder / WEIGHTS).unlink()
    with (folder / name).open("ab") as file:
        file.truncate(size)  # holes take no room on the disk
    refused_at_once(folder, "more than any such file has", [load])


def test_an_index_of_a_hundred_thousand_missing_shards_names_the_first(folder):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {str(n): f"{n:06d}.safetensors" for n in range(60_000)}}))
    refused_at_once(folder, r"000000\.safetensors is missing")
