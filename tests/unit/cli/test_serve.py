"""What models are called when they are served, and which keys clients may have."""

import json

import pytest

from moreseek.cli.serve import named_models, read_keys, served_name
from moreseek.errors import InputError


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/tiny-r1", "tiny-r1"), ("runs/tiny-r1/zero", "tiny-r1/zero"), ("/a/runs/x/zero", "x/zero"),
        ("/data/my-model", "my-model"), ("models/small.gguf", "small"), ("/a/r1/02-zero/model", "r1/02-zero"),
    ],
)  # fmt: skip
def test_a_served_name_is_short_and_tells_stages_apart(model, name):
    assert served_name(model) == name


@pytest.fixture
def run(tmp_path):
    """A run of two finished stages and one that is not."""
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    for place, stage in enumerate(("base", "zero", "late"), 1):
        model = folder / f"0{place}-{stage}" / "model"
        model.mkdir(parents=True)
        (model.parent / "stage.json").write_text(json.dumps({"name": stage}))
        if stage != "late":
            (model / "config.json").write_text("{}")
    return folder


def test_a_run_is_served_with_its_finished_stages_by_name(run):
    found = named_models([str(run)])
    assert list(found) == ["r1", "r1/base", "r1/zero"]
    assert found["r1"] == found["r1/zero"] == (run / "02-zero" / "model").resolve()


def test_names_can_be_given_and_several_names_may_have_one_model(run):
    found = named_models([f"mine={run}", f"gpt-4o={run}/base", str(run / "zero")])
    assert list(found) == ["mine", "mine/base", "mine/zero", "gpt-4o", "r1/zero"]
    assert found["gpt-4o"] == found["mine/base"]


def test_a_path_with_an_equals_sign_is_a_path(run):
    strange = run.rename(run.parent / "lr=1")
    assert list(named_models([str(strange)])) == ["lr=1", "lr=1/base", "lr=1/zero"]


def test_two_models_of_one_name_are_refused_with_a_way_out(run):
    with pytest.raises(InputError, match="two models would be served as m"):
        named_models([f"m={run}/base", f"m={run}/zero"])


@pytest.mark.parametrize("argument", ["m=", "=runs/x", "runs/nothing", "m=runs/nothing"])
def test_what_is_no_model_is_refused(argument):
    with pytest.raises(InputError):
        named_models([argument])


def test_keys_come_from_options_and_from_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# team one\nsk-1\n\n  sk-2  \nsk-0\n")
    assert read_keys(["sk-0"], file) == ("sk-0", "sk-1", "sk-2")
    assert read_keys([], None) == ()


@pytest.mark.parametrize(
    ("given", "text", "word"),
    [
        ([""], None, "API key 1 of 1"), (["a b"], None, "no spaces"), (["schlüssel"], None, "ASCII"),
        ([], "# nothing\n", "no key in it"), ([], "sk-1\nsk 2\n", "API key 2 of 2"),
        ([], b"\xff\xfe", "cannot be read"),
    ],
)  # fmt: skip
def test_bad_keys_are_refused_and_not_shown(tmp_path, given, text, word):
    file = None if text is None else tmp_path / "keys"
    if file is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=word) as refused:
        read_keys(given, file)
    assert not any(key and key in str(refused.value) for key in given)


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_keys([], tmp_path / "nowhere")
