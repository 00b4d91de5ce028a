"""What models are called when they are served."""

import pytest

from moreseek.cli.serve import served_name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/tiny-r1", "tiny-r1"), ("runs/tiny-r1/zero", "tiny-r1/zero"), ("/a/runs/x/zero", "x/zero"),
        ("/data/my-model", "my-model"), ("models/small.gguf", "small"), ("/a/r1/02-zero/model", "r1/02-zero"),
    ],
)  # fmt: skip
def test_a_served_name_is_short_and_tells_stages_apart(model, name):
    assert served_name(model) == name
