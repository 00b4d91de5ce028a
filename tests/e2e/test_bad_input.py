"""Wrong input is refused with exit code 2 before anything is spent on it, and told what would be right."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.conftest import Moreseek
from tests.e2e.forked import Command

EVAL = ("--problems", "moreseek.data.arithmetic:problems", "--count", "2", "--k", "1", "--max-tokens", "8")


def assert_refused(command: Command, *said: str) -> None:
    assert command.returncode == 2, command.stderr
    for text in said:
        assert text in command.stderr
    assert "Traceback" not in command.stderr


# --- recipes -----------------------------------------------------------------------------------------------------


def test_a_typo_on_the_command_line_gets_did_you_mean(recipe: Path, moreseek: Moreseek) -> None:
    assert_refused(moreseek("run", recipe, "--set", "zero.group_sice=4"), "group_sice", "Did you mean 'group_size'?")
    assert_refused(moreseek("run", recipe, "--stage", "zro"), "Did you mean 'zero'?")
    assert_refused(moreseek("rn", recipe), "Did you mean 'run'?")
    assert_refused(moreseek("run", "micro.tml"), "micro.tml: no such recipe")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("base.model.hidden_sise=8", "Did you mean 'hidden_size'?"),
        ('base.documents=[{source="file",path="gone.txt"}]', "gone.txt: no such file"),
        ('base.documents=[{source="moreseek.data.arithmetic:documens"}]', "Did you mean 'documents'?"),
        ("problems.settings.max_operands=9", "Did you mean 'max_operand'?"),
        ('problems={source="file",path="gone.jsonl"}', "gone.jsonl: no such file"),
        ('problems={source="reasoning-gym:chain_sam"}', "Did you mean 'chain_sum'?"),
        ('zero.rubric=[{name="mine",verifier="verifiers:lenght"}]', "Did you mean 'length'?"),
        ('zero.rubric=[{name="mine",verifier="verifyers:length"}]', "cannot import verifyers"),
        ('zero.rubric=[{name="mine",verifier="verifiers:always_right"}]', "gave 1 to the right"),
        ("eval.prompt_template=Solve.", "has no {prompt}"),
        ("eval.max_completion_tokens=9999", "[eval]: max_completion_tokens = 9999 leaves no room"),
        ("zero.max_completion_tokens=9999", "stage 'zero': max_completion_tokens = 9999 leaves no room"),
    ],
)
def test_what_a_later_stage_would_miss_is_told_before_the_first_step(
    setting: str, said: str, recipe: Path, tmp_path: Path, moreseek: Moreseek
) -> None:
    assert_refused(moreseek("run", recipe, "--dir", "run", "--set", setting), said)
    assert not (tmp_path / "run" / "01-base" / "metrics.jsonl").exists()


def test_a_malformed_problem_file_is_named_with_its_line(recipe: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": 3}\n')
    refused = moreseek("run", recipe, "--dir", "run", "--set", 'problems={source="file",path="sums.jsonl"}')
    assert_refused(refused, "sums.jsonl:2: answer")
    assert not (tmp_path / "run" / "01-base").exists()


def test_held_out_problems_that_are_trained_on_are_refused(recipe: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    lines = [json.dumps({"prompt": f"{a}+1=", "answer": str(a + 1)}) for a in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "exam.jsonl").write_text("\n".join(lines[-10:]))
    leak = 'problems={source="file",path="train.jsonl",settings={all=true}}'
    assert_refused(moreseek("run", recipe, "--set", leak), "also training problems", "'0+1='")
    leak = 'problems={source="file",path="train.jsonl",settings={heldout_path="exam.jsonl"}}'
    assert_refused(moreseek("run", recipe, "--set", leak), "also training problems", "'10+1='")


# --- changed settings --------------------------------------------------------------------------------------------

STOP = """
import os, signal
import moreseek.training.loop as loop
plain = loop.Loop._record
def stopping(self, *rest):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return plain(self, *rest)
loop.Loop._record = stopping
"""


def test_a_half_done_stage_with_other_settings_is_refused_and_goes_on_when_they_are_accepted(
    recipe: Path, tmp_path: Path, moreseek: Moreseek
) -> None:
    assert moreseek("run", recipe, "--dir", "run", before=STOP).returncode == 130
    changed = ("run", recipe, "--dir", "run", "--stage", "base", "--set", "base.optimizer.muon_lr=0.01")
    assert_refused(
        moreseek(*changed), "half done", "optimizer.muon_lr: 0.02 → 0.01", "--accept-changes", "--dir", "remove"
    )
    assert_refused(moreseek("run", recipe, "--dir", "run", "--seed", "8"), "run.seed: 3 → 8")
    accepted = moreseek(*changed, "--accept-changes")
    assert accepted.returncode == 0, accepted.stderr
    assert "going on after step 5" in accepted.stderr
    assert "done before, skipped" in moreseek(*changed).stderr


def test_a_finished_stage_with_other_settings_is_refused_whatever_is_accepted(
    base: Path, recipe: Path, moreseek: Moreseek
) -> None:
    changed = ("run", recipe, "--dir", "run", "--set", "base.steps=31")
    assert_refused(moreseek(*changed), "finished with other settings", "steps: 30 → 31")
    assert_refused(moreseek(*changed, "--accept-changes"), "finished with other settings")
    assert (base / "01-base" / "model" / "model.safetensors").is_file()


def test_what_does_not_change_the_weights_may_change(base: Path, recipe: Path, moreseek: Moreseek) -> None:
    again = moreseek("run", recipe, "--dir", "run", "--stage", "base", "--set", "eval.k=1", "--set", "run.threads=2")
    assert again.returncode == 0, again.stderr
    assert "[base] done before, skipped" in again.stderr
    assert "held-out accuracy" in again.stderr  # measured again, as it was asked for


# --- models and folders ------------------------------------------------------------------------------------------


def edit_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    (model / "manifest.json").unlink(missing_ok=True)


def damage_weights(model: Path) -> str:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    return "model.safetensors was damaged"


def cut_weights_short(model: Path) -> str:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-100])
    (model / "manifest.json").unlink()
    return "model.safetensors"


def use_a_pickle(model: Path) -> str:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (model / "manifest.json").unlink()
    return "is a pickle"


def change_a_shape(model: Path) -> str:
    edit_config(model, intermediate_size=65)
    return "gate_proj.weight is (64, 32), config.json asks for (65, 32)"


def shrink_the_vocabulary(model: Path) -> str:
    tensors = load_file(model / "model.safetensors")
    cut = {name: tensor[:200].clone() if tensor.shape[0] == 264 else tensor for name, tensor in tensors.items()}
    save_file(cut, model / "model.safetensors")
    edit_config(model, vocab_size=200)
    return "the tokenizer has 264 ids, the model only 200"


@pytest.mark.parametrize(
    "spoil", [damage_weights, cut_weights_short, use_a_pickle, change_a_shape, shrink_the_vocabulary]
)
def test_a_start_model_that_cannot_be_right_is_refused_with_the_reason(
    spoil, base: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek
) -> None:
    shutil.copytree(base / "01-base" / "model", tmp_path / "mine" / "model")
    said = spoil(tmp_path / "mine" / "model")
    text = recipe.read_text().replace('start_from = "base"', 'start_from = "mine/model"')
    recipe.write_text(text[: text.index("[[stage]]")] + text[text.rindex("[[stage]]\nname") :])
    assert_refused(moreseek("run", recipe, "--dir", "other"), said, "mine/model")
    if spoil is not damage_weights:
        assert_refused(moreseek("eval", "mine/model", *EVAL), said)


def test_a_damaged_model_of_an_earlier_stage_is_refused(base: Path, recipe: Path, moreseek: Moreseek) -> None:
    said = damage_weights(base / "01-base" / "model")
    assert_refused(moreseek("run", recipe, "--dir", "run"), said, "Run the stage that made it again")


@pytest.mark.parametrize(("file", "text"), [("01-base/stage.json", "{"), ("01-base/stage.json", "{}")])
def test_a_damaged_record_is_named_with_what_to_do(
    file: str, text: str, base: Path, recipe: Path, moreseek: Moreseek
) -> None:
    (base / file).write_text(text)
    for command in (("run", recipe, "--dir", "run"), ("status", "run")):
        assert_refused(moreseek(*command), f"run/{file}: cannot be read", "Remove it")


def test_a_folder_that_cannot_be_a_run_is_refused(recipe: Path, moreseek: Moreseek) -> None:
    assert_refused(moreseek("run", recipe, "--dir", recipe), "cannot be a run's folder", "--dir")


# --- eval, chat, status ------------------------------------------------------------------------------------------


def test_problem_files_given_to_eval_are_named_with_their_lines(base: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    def refused(content: bytes, said: str) -> None:
        (tmp_path / "mine.jsonl").write_bytes(content)
        assert_refused(moreseek("eval", base, "--problems", "mine.jsonl", "--max-tokens", "8"), said)

    good = b'{"prompt": "1+1=", "answer": "2"}\n'
    refused(good + b'{"prompt": "1+2="', "mine.jsonl:2: not a JSON object")
    refused(
        good + good + b'{"prompt": "1+2=", "anser": "3"}', "mine.jsonl:3: unknown key 'anser'. Did you mean 'answer'?"
    )
    refused(good + b'{"prompt": "\xff"}', "mine.jsonl:2: not UTF-8")
    refused(good + rb'{"prompt": "\ud800", "answer": "2"}', "mine.jsonl:2: holds half of a character")
    refused(b"", "mine.jsonl")
    assert_refused(moreseek("eval", base, "--problems", "gone.jsonl"), "gone.jsonl: no such file")


def test_numbers_out_of_range_and_unknown_names_are_refused(base: Path, moreseek: Moreseek) -> None:
    for option, value in (("--k", "0"), ("--count", "0"), ("--max-tokens", "0"), ("--k", "many")):
        assert_refused(moreseek("eval", base, *EVAL, option, value), f"Invalid value for '{option}'")
    assert_refused(moreseek("eval", base, *EVAL, "--temperature", "nan"), "temperature")
    assert_refused(moreseek("chat", base, "--temperature", "-1", stdin="1+1=\n"), "temperature")
    assert_refused(moreseek("eval", f"{base}/bse", *EVAL), "Did you mean 'base'?")
    assert_refused(moreseek("eval", "runs/nothing", *EVAL), "neither a run")
    assert_refused(moreseek("status", "runs/nothing"), "not a run folder")


def test_a_turn_that_is_too_long_does_not_end_the_chat(base: Path, moreseek: Moreseek) -> None:
    chat = moreseek("chat", base, "--max-tokens", "4", stdin="1+1= " * 200 + "\n/temperature warm\n1+2=\n/help\n")
    assert chat.returncode == 0, chat.stderr
    assert "context of 256" in chat.stdout
    assert "/temperature warm" in chat.stdout
    assert chat.stdout.rstrip().endswith("/quit")
