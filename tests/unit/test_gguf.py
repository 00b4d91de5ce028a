"""Opening .gguf files: the numbers, the names, the tokenizer, and what is refused. The files are made here."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import tokenizers
import torch
from tests.peers import Peer
from tokenizers import models, pre_tokenizers, trainers

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.gguf import gguf_name
from moreseek.model.layers import rope_frequencies
from moreseek.model.stored import open_stored
from moreseek.model.transformer import build
from moreseek.model.weights import export_tensors, load_model, save_model
from moreseek.text.gguf import load_gguf_tokenizer
from moreseek.text.gguf_file import read_gguf
from moreseek.text.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf", reason="pip install 'moreseek[gguf]'")

TEXT = "the cat sat on the mat 1234 5678, it's 12 o'clock; the dogs' 3.14 café naïve 你好 x = foo(bar)\n\n  return 42 "
SAMPLES = [
    "the cat's mat",
    "12345 a1b22 3.14159 ½ ٣٤",
    "  two   spaces 7 and   8\n\n\n\ttab \r\n end  ",
    "naïve café 你好 Ωmega — “quotes” 👩‍👩‍👧 🙂",
    "def f(x):\n    return x+1  # IT'S I'LL we'Ve",
    "a<|im_end|>b<think>c</think>",
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 320


@pytest.fixture(scope="session")
def vocabulary():
    """(tokens, types, merges) of a byte-level BPE whose merges cross digits, so that pre-tokenizers differ."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCAB - len(CONTROL) - 2
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEXT] * 3, trainer)
    words = [token for token, _ in sorted(backend.get_vocab().items(), key=lambda item: item[1])]
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    tokens = [*CONTROL, "<think>", "</think>", *words]
    types = [3] * len(CONTROL) + [4, 4] + [1] * len(words)
    return tokens, types, merges


@pytest.fixture
def write(tmp_path, vocabulary):
    """write(config=…, quantise=…, **metadata): a .gguf file, and the model that is in it."""
    tokens, types, merges = vocabulary

    def make(config=None, quantise=None, pre="smollm", extra=(), name="model.gguf", **metadata):
        config = config or shape("llama")
        model = build(config, seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
        writer = gguf.GGUFWriter(tmp_path / name, config.model_type)
        arch = config.model_type
        table = {
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "block_count": config.num_hidden_layers,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.kv_heads,
            "attention.key_length": config.attention_head_dim,
            "attention.value_length": config.attention_head_dim,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.freq_base": config.rope_theta,
        }
        table = {f"{arch}.{key}": value for key, value in table.items()}
        table |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.chat_template": TEMPLATE}
        table |= {"tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.bos_token_id": 1}
        for key, value in (table | {key.replace("__", "."): value for key, value in metadata.items()}).items():
            _add(writer, key, value)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        for key, tensor in export_tensors(model):
            rows = tensor.detach().numpy()
            if arch == "llama" and (".q_proj" in key or ".k_proj" in key):  # as llama.cpp's converter permutes
                half = config.attention_head_dim // 2
                rows = rows.reshape(-1, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
            if quantise is not None and rows.ndim == 2:
                writer.add_tensor(gguf_name(key), gguf.quants.quantize(rows, quantise), raw_dtype=quantise)
            else:
                writer.add_tensor(gguf_name(key), np.ascontiguousarray(rows))
        for key, rows in extra:
            writer.add_tensor(key, rows)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name, model.eval()

    return make


def _add(writer, key, value):
    kinds = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    if value is not None:
        kinds[type(value)](key, value)


def shape(family, **changes):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ModelConfig.model_validate(
        {"model_type": family, "vocab_size": VOCAB, "num_key_value_heads": 2, "max_position_embeddings": 128}
        | {"rms_norm_eps": 1e-5, "rope_theta": 50000.0}
        | sizes
        | changes
    )


SHAPES = {
    "llama": shape("llama"),
    "llama-tied": shape("llama", tie_word_embeddings=True, num_key_value_heads=4),
    "llama-bias": shape("llama", attention_bias=True),
    "qwen2": shape("qwen2", tie_word_embeddings=True),
    "qwen3": shape("qwen3", head_dim=32),
}
IDS = torch.randint(0, VOCAB, (2, 17), generator=torch.Generator().manual_seed(3))


# ------------------------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("name", SHAPES)
def test_a_float_file_gives_back_every_weight(write, name):
    path, model = write(SHAPES[name])
    loaded = load_model(path)
    written, read = dict(export_tensors(model)), dict(export_tensors(loaded))
    assert written.keys() == read.keys()
    for key, tensor in written.items():
        assert torch.equal(tensor, read[key]), key
    assert loaded.config.tie_word_embeddings == SHAPES[name].tie_word_embeddings
    assert torch.equal(loaded(IDS), model(IDS))
    assert torch.equal(open_stored(path)(IDS), model(IDS))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_a_quantised_file_gives_the_numbers_that_gguf_gives(write, kind):
    kind = gguf.GGMLQuantizationType[kind]
    path, model = write(SHAPES["qwen2"], quantise=kind)  # rows in their own order
    read = dict(export_tensors(load_model(path)))
    for key, tensor in export_tensors(model):
        rows = tensor.detach().numpy()
        if rows.ndim == 2:
            rows = gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)
        assert np.array_equal(read[key].numpy(), rows), key


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"])
def test_k_quants_are_read_in_any_chunk(write, kind):
    """gguf writes none of these, so the bytes are random; more than one chunk of them."""
    kind = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    config = shape("qwen2", hidden_size=256, tie_word_embeddings=True, num_hidden_layers=1)
    blocks = np.random.default_rng(0).integers(0, 60, (VOCAB, 256 // block * size), dtype=np.uint8)
    path, _ = write(config)
    original = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("k.gguf"), "qwen2")
    for key, field in original.fields.items():
        if key.startswith("qwen2."):
            _add(writer, key, field.contents())
    for tensor in original.tensors:
        if tensor.name == "token_embd.weight":
            writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = gguf.quants.dequantize(blocks, kind)
    loaded = load_model(path.with_name("k.gguf")).embed_tokens.weight.detach().numpy()
    assert np.array_equal(loaded, expected, equal_nan=True)


def test_precision_is_chosen_by_the_caller(write):
    path, _ = write()
    assert {p.dtype for p in load_model(path, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_metadata_become_the_config(write):
    path, _ = write(tokenizer__ggml__padding_token_id=2, llama__rope__dimension_count=16)
    config = load_model(path).config
    assert (config.rms_norm_eps, config.rope_theta, config.max_position_embeddings) == (1e-5, 50000.0, 128)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, [0, 2], 2)


ROPES = {
    "linear": ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {"factor": 4.0}),
    "yarn": (
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 32,
        },
        {"factor": 4.0, "original_max_position_embeddings": 32},
    ),
}


@pytest.mark.parametrize("kind", ROPES)
def test_rope_scaling_is_read(write, kind):
    metadata, expected = ROPES[kind]
    path, _ = write(**{key.replace(".", "__"): value for key, value in metadata.items()})
    assert load_model(path).config.rope_scaling == {"rope_type": kind, **expected}


def llama_3():
    """The rope of Llama 3.2, and the table of factors that its converter writes."""
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = shape("llama", rope_theta=500000.0, rope_scaling=scaling | {"original_max_position_embeddings": 8192})
    plain, _ = rope_frequencies(config.model_copy(update={"rope_scaling": None}))
    return config, (plain / rope_frequencies(config)[0]).numpy()


def test_llama_3_rope_is_recovered_from_its_table(write):
    config, table = llama_3()
    path, model = write(config, extra=[("rope_freqs.weight", table)])
    loaded = load_model(path)
    assert loaded.config.rope_scaling == config.rope_scaling
    assert torch.equal(loaded(IDS), model(IDS))
    with pytest.raises(InputError, match="not Llama 3's"):
        load_model(write(extra=[("rope_freqs.weight", np.sqrt(table))])[0])


@pytest.fixture(scope="module")
def llama_cpp():
    peer = Peer("llama")
    yield peer
    peer.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "qwen3", "linear", "yarn", "llama3"])
def test_logits_equal_llama_cpp_s_on_the_same_file(write, llama_cpp, name):
    if name == "llama3":
        config, table = llama_3()
        path, _ = write(config, extra=[("rope_freqs.weight", table)])
    elif name in ROPES:
        path, _ = write(**{key.replace(".", "__"): value for key, value in ROPES[name][0].items()})
    else:
        path, _ = write(SHAPES[name])
    ids = IDS.flatten()
    llama_cpp.ask("open_file", path=str(path))
    theirs = torch.tensor(llama_cpp.ask("logits", ids=ids.tolist()))
    ours = load_model(path)(ids.unsqueeze(0))[0].detach()
    # Rounding alone; a forgotten scaling gives 0.02 (llama3) to 2 (yarn).
    assert (ours - theirs).abs().max() < 0.005


# --------------------------------------------------------------------------------------------------- the tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("pre", ["smollm", "starcoder", "gpt-2", "qwen2", "deepseek-r1-qwen", "llama-bpe"])
def test_ids_equal_llama_cpp_s_for_every_pre_tokenizer(write, llama_cpp, pre):
    path, _ = write(pre=pre)
    llama_cpp.ask("open_file", path=str(path), vocab_only=True, logits_all=False)
    tokenizer = Tokenizer.load(path)
    texts = [TEXT, *SAMPLES]
    for text, ids in zip(texts, llama_cpp.ask("tokenize", texts=texts), strict=True):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pre_tokenizers_differ_where_they_should(write):
    ids = {pre: load_gguf_tokenizer(write(pre=pre)[0]).encode("1234 5678") for pre in ("smollm", "gpt2", "llama-bpe")}
    assert len(ids["smollm"]) == 9
    assert len(ids["gpt2"]) < len(ids["llama-bpe"]) <= len(ids["smollm"])


def test_roles_come_from_the_metadata(write):
    path, _ = write(tokenizer__ggml__padding_token_id=1)
    tokenizer = Tokenizer.load(path)
    assert tokenizer.eos_ids == (0, 2)  # its own end first, then the turn's end, which the file does not name
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 1, VOCAB)
    assert tokenizer.chat_template == TEMPLATE
    assert load_gguf_tokenizer(write()[0]).pad_id == 0


def test_control_strings_in_a_user_s_text_are_text(write):
    tokenizer = load_gguf_tokenizer(write()[0])
    assert tokenizer.encode("<|im_end|>") == [2]
    assert 2 not in tokenizer.encode("<|im_end|>", special=False)
    assert tokenizer.decode(tokenizer.encode("<think>a</think><|im_end|>"), skip_special=True) == "<think>a</think>"


def test_decomposed_letters_are_composed_for_qwen2(write):
    tokenizer = load_gguf_tokenizer(write(pre="qwen2")[0])
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("café")


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_checkpoint_of_a_gguf_model_opens_in_transformers(write, tmp_path, add_bos):
    transformers = pytest.importorskip("transformers")
    path, _ = write(tokenizer__ggml__add_bos_token=add_bos)
    tokenizer, model, folder = Tokenizer.load(path), load_model(path), tmp_path / "checkpoint"
    save_model(model, folder)
    tokenizer.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in SAMPLES:
        assert theirs(text).input_ids == [1] * add_bos + tokenizer.encode(text)
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.model_max_length) == (0, 1, 128)
    assert theirs.chat_template == TEMPLATE
    logits = transformers.AutoModelForCausalLM.from_pretrained(folder)(IDS).logits
    assert torch.allclose(logits, model(IDS), atol=1e-4)
    again = Tokenizer.load(folder)
    assert (again.eos_ids, again.pad_id, again.bos_id) == (tokenizer.eos_ids, tokenizer.pad_id, tokenizer.bos_id)


def test_the_tokenizer_needs_neither_torch_nor_gguf(write):
    code = "import sys; from moreseek.text.tokenizer import Tokenizer; Tokenizer.load(sys.argv[1]); "
    code += "print({'torch', 'gguf', 'transformers'} & set(sys.modules))"
    path, _ = write()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ----------------------------------------------------------------------------------------------------- what is refused


def test_the_header_reads_as_gguf_reads_it(write):
    path, _ = write()
    file, theirs = read_gguf(path), gguf.GGUFReader(path)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            value = field.contents()
            assert file.metadata[key] == (pytest.approx(value) if isinstance(value, float) else value), key
    assert {t.name: (tuple(t.shape[::-1]), t.data_offset) for t in theirs.tensors} == {
        entry.name: (entry.shape, entry.start) for entry in file.tensors.values()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "deepseek2"}, "lack deepseek2.embedding_length"),
        ({"general__architecture": "gemma3"}, "gemma3.*Supported: llama"),
        ({"llama__expert_count": 8}, "expert_count"),
        ({"llama__attention__sliding_window": 16}, "sliding-window"),
        ({"llama__rope__scaling__type": "longrope"}, "longrope"),
        ({"llama__rope__dimension_count": 8}, "rope.dimension_count"),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, "epsilon"),
        ({"llama__attention__layer_norm_rms_epsilon": None}, "lack llama.attention.layer_norm_rms_epsilon"),
        ({"llama__attention__head_count": "four"}, "head_count must be int, found str"),
        ({"llama__block_count": 3}, "blk.2.attn_norm.weight is missing"),
        ({"llama__block_count": 1}, "blk.1.attn_norm.weight is unknown"),
        ({"llama__block_count": 2**32 - 1}, "block_count"),
        ({"llama__feed_forward_length": 2**31}, "feed_forward_length"),
        ({"llama__embedding_length": 2**20}, "do not fit"),
        ({"llama__attention__head_count": 2**20, "llama__attention__key_length": 16}, "value_length|beyond any model"),
        ({"llama__attention__head_count": 3, "llama__attention__head_count_kv": 2}, "num_key_value_heads"),
        ({"tokenizer__ggml__eos_token_id": VOCAB}, "outside its vocabulary"),
        ({"split__count": 2}, "one part of several"),
    ],
)
def test_metadata_that_we_cannot_honour_are_named(write, changes, message):
    path, _ = write(**changes)
    _refused(load_model, path, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "smolm"}, "'smolm'.*Did you mean 'smollm'"),
        ({"pre": None}, "lack tokenizer.ggml.pre"),
        ({"tokenizer__ggml__model": "llama"}, "byte-level BPE"),
        ({"tokenizer__ggml__eos_token_id": 2**31}, "outside its vocabulary"),
        ({"tokenizer__chat_template": 7}, "chat_template must be str"),
    ],
)
def test_a_tokenizer_that_we_cannot_build_is_refused(write, changes, message):
    path, _ = write(**changes)
    _refused(Tokenizer.load, path, message)


def _refused(load, path, message="."):
    start = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert time.process_time() - start < 1.0


def _u64(number):
    return struct.pack("<Q", number)


HEADER = b"GGUF" + struct.pack("<I", 3)
HOSTILE = {
    "empty": b"",
    "another format": b"PK\x03\x04" + bytes(60),
    "only a magic": b"GGUF",
    "version 1": b"GGUF" + struct.pack("<I", 1) + bytes(40),
    "big-endian": b"GGUF" + struct.pack(">I", 3) + bytes(40),
    "2^64 keys": HEADER + _u64(0) + _u64(2**64 - 1) + bytes(64),
    "2^64 tensors": HEADER + _u64(2**64 - 1) + _u64(0) + bytes(64),
    "a key of 2^63 bytes": HEADER + _u64(0) + _u64(1) + _u64(2**63) + bytes(64),
    "an array of 2^62": HEADER + _u64(0) + _u64(1) + _u64(1) + b"k" + struct.pack("<II", 9, 4) + _u64(2**62),
    "a million empty texts": HEADER + _u64(0) + _u64(1) + _u64(1) + b"k" + struct.pack("<II", 9, 8) + _u64(10**6),
    "arrays of arrays": HEADER + _u64(0) + _u64(1) + _u64(1) + b"k" + struct.pack("<II", 9, 9) + _u64(1) + bytes(64),
    "an unknown type": HEADER + _u64(0) + _u64(1) + _u64(1) + b"k" + struct.pack("<I", 99) + bytes(64),
    "text that is not UTF-8": HEADER + _u64(0) + _u64(1) + _u64(2) + b"\xff\xfe" + bytes(64),
    "99 dimensions": HEADER + _u64(1) + _u64(0) + _u64(1) + b"t" + struct.pack("<I", 99) + bytes(64),
    "no tensors": HEADER + _u64(0) + _u64(0) + bytes(64),
    "a key twice": HEADER + _u64(0) + _u64(2) + 2 * (_u64(1) + b"k" + struct.pack("<II", 4, 7)),
    "a tensor twice": HEADER + _u64(2) + _u64(0) + 2 * (_u64(1) + b"t" + struct.pack("<IQIQ", 1, 1, 0, 0)) + bytes(64),
    "2^60 dimensions": HEADER + _u64(1) + _u64(0) + _u64(1) + b"t" + struct.pack("<IQQIQ", 2, 1 << 60, 16, 0, 0),
    "an alignment of 2^31": HEADER
    + _u64(0) + _u64(1) + _u64(17) + b"general.alignment" + struct.pack("<II", 4, 1 << 31) + bytes(64),
    "an alignment of 0": HEADER + _u64(0) + _u64(1) + _u64(17) + b"general.alignment" + struct.pack("<II", 4, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("load", [load_model, Tokenizer.load])
def test_a_hostile_file_is_refused_at_once(tmp_path, name, load):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    _refused(load, path)


def test_a_text_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "hostile.gguf"
    key = _u64(1) + b"k" + struct.pack("<I", 8)
    path.write_bytes(HEADER + _u64(0) + _u64(1) + key + _u64(50 << 30))
    with path.open("ab") as file:
        file.truncate(60 << 30)  # a hole takes no room on the disk
    _refused(load_model, path, "its header by")


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    for name in ("folder.gguf", "absent.gguf"):
        for load in (load_model, Tokenizer.load):
            _refused(load, tmp_path / name, "cannot be opened")


def test_a_file_cut_anywhere_is_refused(write):
    path, _ = write()
    data = path.read_bytes()
    header = read_gguf(path).tensors["token_embd.weight"].start
    for end in [*range(0, header, 997), header, (header + len(data)) // 2, len(data) - 1]:
        path.write_bytes(data[:end])
        _refused(load_model, path)


def test_tensors_that_share_bytes_or_have_absurd_sizes_are_refused(write):
    path, _ = write(SHAPES["llama"])
    data = path.read_bytes()
    reader = gguf.GGUFReader(path)
    fields = {tensor.name: tensor.field for tensor in reader.tensors}
    _name_length, name, _count, dimensions, _kind, offset = fields["blk.1.attn_v.weight"].parts
    at = fields["blk.1.attn_v.weight"].offset + 8 + len(name) + 4

    def patched(position, value):
        path.write_bytes(data[:position] + value + data[position + len(value) :])
        return path

    after = at + dimensions.nbytes
    shared = int(fields["blk.0.attn_v.weight"].parts[-1][0])
    assert int(offset[0]) != shared
    _refused(load_model, patched(after + 4, _u64(shared)), "belong to another tensor")
    _refused(load_model, patched(after + 4, _u64(1 << 40)), "outside the file")
    _refused(load_model, patched(after + 4, _u64(int(offset[0]) + 1)), "unaligned")
    _refused(load_model, patched(after, struct.pack("<I", 1000)), "type 1000")
    _refused(load_model, patched(after, struct.pack("<I", 12)), "blocks of 256")
    _refused(load_model, patched(at, _u64(1 << 62)), "do not fit the metadata")


def test_a_flipped_byte_in_the_header_gives_an_error_or_a_model_never_a_traceback(write):
    path, _ = write()
    data = bytearray(path.read_bytes())
    end = read_gguf(path).tensors["token_embd.weight"].start
    random = np.random.default_rng(5)
    for position in random.integers(0, end, 150):
        changed = bytearray(data)
        changed[position] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        for load in (load_model, Tokenizer.load):
            with contextlib.suppress(InputError):
                load(path)


def test_without_the_gguf_package_the_line_that_installs_it_is_shown(write, monkeypatch):
    path, _ = write()
    monkeypatch.setitem(sys.modules, "gguf", None)
    _refused(load_model, path, r"pip install 'moreseek\[gguf\]'")
