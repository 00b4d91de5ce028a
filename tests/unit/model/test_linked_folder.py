"""Links in model folders: those of Hugging Face's cache and within a folder are followed, others are not."""

import json
import os
import shutil

import pytest
from tests.conftest import save_small_llama

from moreseek.cli.convert import convert
from moreseek.cli.serve import named_models, served_model
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import InputError
from moreseek.model.weights import load_model
from moreseek.text.tokenizer import Tokenizer

SHARD, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
OF_THE_MODEL = ["config.json", "model.safetensors", INDEX, SHARD]
OF_THE_TOKENIZER = [
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "chat_template.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    save_small_llama(folder, ["hello world, how are you"] * 5, 290, 256)
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "in" / "model")


def sharded(folder):
    """Its weights as a shard with an index."""
    (folder / "model.safetensors").rename(folder / SHARD)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": SHARD}}))


def written(path):
    """A greedy answer of the model that `serve` would load from there."""
    llm = served_model("m", path).open()
    try:
        return llm.generate(["hello"], SamplingParams(max_tokens=12, temperature=0))[0].token_ids
    finally:
        llm.loop.close()


def linked_out(folder, name):
    """The same file, outside, with a link to it in its place."""
    if name in (INDEX, SHARD):
        sharded(folder)
    outside = folder.parent / f"private-{name}"
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.write_text("{}")
        if name == "chat_template.json":  # read where there is no other template
            (folder / "chat_template.jinja").unlink()
    (folder / name).symlink_to(outside)
    return outside


@pytest.mark.parametrize("name", [*OF_THE_MODEL, *OF_THE_TOKENIZER])
def test_a_file_that_is_a_link_out_of_its_folder_is_refused_and_not_read(folder, name):
    outside = linked_out(folder, name)
    load = load_model if name in OF_THE_MODEL else Tokenizer.load
    os.truncate(outside, 0)  # whoever reads it finds nothing, and says something else
    with pytest.raises(InputError, match="a link that leads out of its folder") as refused:
        load(folder)
    assert str(folder / name) in str(refused.value)
    with pytest.raises(InputError, match="a link that leads out of its folder"):
        served_model("m", folder).open()


def cached(plain, repository, inside="."):
    """The folder as Hugging Face's cache keeps it: every file a relative link to a blob named for its content."""
    snapshot = repository / "snapshots" / "5f9c7e0a" / inside
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for number, file in enumerate(sorted(plain.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.mark.parametrize("inside", [".", "fp32", "a/b"])
def test_a_folder_of_the_hugging_face_cache_is_served_as_it_is(plain, tmp_path, inside):
    snapshot = cached(plain, tmp_path / "models--some--model", inside)
    assert written(named_models([f"m={snapshot}"])["m"]) == written(plain)


def test_a_gguf_file_of_the_hugging_face_cache_is_served_as_it_is(plain, tmp_path):
    (tmp_path / "file").mkdir()
    convert(str(plain), tmp_path / "file" / "small.gguf", None, "f32")
    snapshot = cached(tmp_path / "file", tmp_path / "models--some--model-GGUF")
    [(name, path)] = named_models([str(snapshot / "small.gguf")]).items()
    assert name == "small"
    assert written(path) == written(plain)


def test_a_repository_of_the_cache_reaches_no_other(plain, tmp_path):
    mine, other = tmp_path / "models--some--model", tmp_path / "models--a--private-one"
    snapshot = cached(plain, mine)
    cached(plain, other)
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(next((other / "blobs").iterdir()))
    with pytest.raises(InputError, match="leads out of its folder"):
        served_model("m", snapshot).open()


def test_a_folder_that_is_a_link_and_links_within_it_are_followed(plain, folder, tmp_path):
    (folder / "files").mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).rename(folder / "files" / name)
        (folder / name).symlink_to(f"files/{name}")
    (tmp_path / "latest").symlink_to(folder)
    assert written(named_models([f"m={tmp_path / 'latest'}"])["m"]) == written(plain)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("target", ["itself", "nothing"])
def test_a_link_in_a_circle_or_to_nothing_is_said(folder, name, target):
    (folder / name).unlink()
    (folder / name).symlink_to(name if target == "itself" else "not-there")
    load = load_model if name == "model.safetensors" else Tokenizer.load
    if target == "itself":
        with pytest.raises(InputError, match="leads back to itself"):
            load(folder)
    elif name != "chat_template.jinja":
        with pytest.raises(InputError, match=r"is missing|no tokenizer\.json"):
            load(folder)
    else:  # as where a folder has none
        assert load(folder).chat_template is None
