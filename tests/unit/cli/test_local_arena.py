"""A run as an arena: its stages and checkpoints as contestants, judged from the command line."""

import json
import shutil
import sys

import pytest
from tests.unit.arena.site.running import running

from moreseek.arena.live.settings import load_arena
from moreseek.cli import main, run_arena
from moreseek.cli.local_models import local_models
from moreseek.cli.run_arena import arena_of
from moreseek.errors import InputError

SOURCE = {"source": "moreseek.data.arithmetic:problems", "settings": {"max_operand": 9, "max_operations": 2}}


@pytest.fixture
def run_folder(make_folder, tmp_path, monkeypatch):
    """A run with two finished stages and two checkpoints, of random weights."""
    monkeypatch.setattr(run_arena, "_smollm2_is_installed", lambda: False)
    model = make_folder(["1+2=3 4-5 6*7 89 0 "], 264, 256)
    run = tmp_path / "runs" / "tiny"
    for number, (name, method) in enumerate([("base", "pretrain"), ("zero", "grpo")], start=1):
        stage = run / f"{number:02d}-{name}"
        shutil.copytree(model, stage / "model")
        record = {"name": name, "method": method, "status": "finished", "fingerprint": "f", "identity": {}}
        (stage / "stage.json").write_text(json.dumps(record), encoding="utf-8")
        for step in (2, 4):
            shutil.copytree(model, stage / "checkpoints" / f"step-{step:06d}" / "model")
    recipe = {"problems": SOURCE, "eval": {"max_completion_tokens": 12, "seed": 3}}
    (run / "run.json").write_text(json.dumps({"recipe": recipe}), encoding="utf-8")
    return run


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["moreseek", "arena", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == code, said.err
        return said

    return run


def test_a_run_becomes_an_arena_that_is_judged_and_goes_on(run_folder, command):
    said = command("judge", run_folder, "--count", 6)
    assert "6 battles fought, 6 judged by verifier" in said.err
    assert "overall, judge verifier: 6 votes" in said.out
    config, database = run_folder / "arena" / "arena.toml", run_folder / "arena" / "arena.sqlite"
    assert f"moreseek arena serve --config {config}" in said.out
    settings = load_arena(config)
    assert [(one.name, one.kind) for one in settings.contestant] == [("tiny base", "base"), ("tiny zero", "reasoning")]
    assert len(settings.arena.suggestions) == 6
    again = command("judge", run_folder, "--count", 6, "--json")
    assert "0 battles fought, 0 judged" in again.err
    board = json.loads(again.out)["board"]
    assert json.loads(command("leaderboard", database, "--judge", "verifier", "--json").out) == board
    assert "verifier (6 judgements)" in command("leaderboard", database).out
    compared = json.loads(
        command("compare", "tiny base", "tiny zero", "--votes", database, "--judge", "verifier", "--json").out
    )
    assert compared["direct"]["battles"] == 6
    unjudged = command("compare", "tiny base", "tiny zero", "--votes", database, code=2).err
    assert "nobody has voted there; with --judge it is what verifier said" in unjudged
    nothing = command("export", database, run_folder / "pairs.jsonl", "--preferences").err
    assert "What a judge preferred is exported by --judge verifier." in nothing
    assert "no judge 'gpt'" in command("judge", run_folder, "--judge", "gpt", code=2).err
    assert "no judge 'gpt'" in command("leaderboard", database, "--judge", "gpt", code=2).err


def test_stages_that_finish_later_are_added_and_edits_stay(run_folder):
    shutil.move(run_folder / "02-zero", run_folder.parent / "elsewhere")
    with pytest.raises(InputError, match="needs two finished stages"):
        arena_of(run_folder)
    shutil.move(run_folder.parent / "elsewhere", run_folder / "02-zero")
    path = arena_of(run_folder)
    path.write_text("# mine\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copytree(run_folder / "02-zero", run_folder / "03-r1")
    record = json.loads((run_folder / "03-r1" / "stage.json").read_text(encoding="utf-8"))
    (run_folder / "03-r1" / "stage.json").write_text(json.dumps({**record, "name": "r1"}), encoding="utf-8")
    assert [one.stage for one in load_arena(arena_of(run_folder)).contestant] == ["base", "zero", "r1"]
    assert path.read_text(encoding="utf-8").startswith("# mine\n")
    before = path.read_text(encoding="utf-8")
    assert arena_of(run_folder) == path
    assert path.read_text(encoding="utf-8") == before


def test_a_preference_stage_is_of_the_class_that_it_starts_from(run_folder):
    stages = [{"name": "base", "method": "pretrain"}, {"name": "zero", "method": "grpo"}]
    for number, start in enumerate(["base", "zero", "mine/model"], start=3):
        settings = {"name": f"p{number}", "method": "preference", "start_from": start}
        stages.append(settings)
        shutil.copytree(run_folder / "02-zero", run_folder / f"{number:02d}-p{number}")
        path = run_folder / f"{number:02d}-p{number}" / "stage.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | settings | {"settings": settings}), encoding="utf-8")
    run = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    run["recipe"]["stage"] = stages
    (run_folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    classes = {one.stage: one.kind for one in load_arena(arena_of(run_folder)).contestant}
    assert classes == {"base": "base", "zero": "reasoning", "p3": "base", "p4": "reasoning", "p5": "base"}


def test_a_folder_that_is_no_run_and_a_run_without_problems_are_named(run_folder, tmp_path):
    with pytest.raises(InputError, match=r"neither an arena\.toml nor a run"):
        arena_of(tmp_path)
    (run_folder / "run.json").write_text(json.dumps({"recipe": {"problems": None}}), encoding="utf-8")
    with pytest.raises(InputError, match=r"no \[problems\]"):
        arena_of(run_folder)


def arena_toml(folder, *tables):
    path = folder / "arena.toml"
    text = [f"[[contestant]]\nname = {json.dumps(name)}\nclass = 'base'\n{rest}\n" for name, rest in tables]
    path.write_text("\n".join(text), encoding="utf-8")
    return load_arena(path)


def test_models_on_this_machine_answer_like_any_other_and_share_their_engines(run_folder, monkeypatch):
    settings = arena_toml(
        run_folder,
        ("zero", "run = '.'\nstage = 'zero'\nmax_tokens = 8"),
        ("zero, warmer", "run = '.'\ntemperature = 0.9\nmax_tokens = 8"),
        ("a folder", "path = '01-base/model'\nmax_tokens = 8"),
    )
    quick = settings.arena.model_copy(update={"characters_per_s": 1e6})
    with local_models(settings.model_copy(update={"arena": quick})) as there:
        zero, warmer, folder = there.contestant
        assert zero.model == warmer.model != folder.model
        assert zero.model.startswith("tiny/zero sha256:")
        assert zero.family == "tiny"
        assert {one.url for one in there.contestant} == {zero.url}
        with running(there) as site:
            browser = site.browser()
            battle = browser.battle("1+2=")
            if battle.error is None:  # random weights may say nothing at all, which is a failure
                assert browser.vote(battle.id).status_code == 200
    import httpx

    with pytest.raises(httpx.TransportError):
        httpx.get(f"{zero.url}/models", trust_env=False)


def test_checkpoints_are_contestants_with_a_trend(run_folder, command):
    arena_toml(run_folder, ("zero", "run = '.'\nstage = 'zero'\ncheckpoints = true\nmax_tokens = 8"),
               ("base", "run = '.'\nstage = 'base'\nmax_tokens = 8"))  # fmt: skip
    problems = run_folder / "problems.jsonl"
    problems.write_text("".join(f'{{"prompt": "{i}+1=", "answer": "{i + 1}"}}\n' for i in range(5)), encoding="utf-8")
    command("judge", run_folder / "arena.toml", "--problems", problems)
    database = run_folder / "arena.sqlite"
    (trend,) = json.loads(command("leaderboard", database, "--judge", "verifier", "--trend", "--json").out)
    assert (trend["run"], trend["stage"]) == ("tiny", "zero")
    assert [(point["step"], point["name"], point["battles"]) for point in trend["points"]] == [
        (2, "zero @2", 10), (4, "zero @4", 10),
    ]  # fmt: skip
    assert trend["points"][0]["change"] is None
    assert trend["slope"]["ci_low"] <= trend["slope"]["value"] <= trend["slope"]["ci_high"]
    assert "100 steps more" in command("leaderboard", database, "--judge", "verifier", "--trend").out
    assert "no checkpoint" in command("leaderboard", database, "--trend", code=2).err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("run = '.'\nstage = 'zer'", "contestant '.*no finished stage 'zer'"),
        ("run = '.'\nstage = 'zer'\nstep = 2", "no stage 'zer'. Did you mean 'zero'"),
        ("run = '.'\nstage = 'zero'\nstep = 3", r"no checkpoint of step 3 .*kept: 2, 4"),
        ("run = '..'\nstage = 'zero'\nstep = 3", "is not a run"),
        ("path = '../nothing'", "contestant '.*neither a run"),
        ("path = 'x'\nrun = 'y'", "needs one of url, run and path"),
        ("url = 'https://a.example/v1'", "url and model belong together"),
        ("path = 'x'\nstage = 'zero'", "belong to a run"),
        ("run = '.'\nstep = 3", "say stage with step"),
    ],
)
def test_models_that_are_not_there_are_named(run_folder, table, said):
    with pytest.raises(InputError, match=said), local_models(arena_toml(run_folder, ("x", table))):
        pass


def test_who_is_withdrawn_needs_no_files_and_other_weights_are_another_contestant(run_folder):
    from moreseek.arena.web.arena import open_arena

    stage = "run = '.'\nstage = 'zero'"
    with local_models(arena_toml(run_folder, ("zero", stage))) as there:
        open_arena(there).database.close()
    weights = run_folder / "02-zero" / "model" / "generation_config.json"
    weights.write_text('{"eos_token_id": 1}', encoding="utf-8")
    (run_folder / "02-zero" / "model" / "manifest.json").unlink(missing_ok=True)
    with (
        local_models(arena_toml(run_folder, ("zero", stage))) as there,
        pytest.raises(InputError, match="its votes were on another one"),
    ):
        open_arena(there)
    shutil.rmtree(run_folder / "02-zero")
    with local_models(arena_toml(run_folder, ("zero", f"{stage}\nwithdrawn = 'gone'"))) as there:
        open_arena(there).database.close()
