"""Contestants that fail, hang, flood or would lead inside: the battle is void, they rest, and nobody is told who."""

import json

import pytest
from tests.unit.arena.site.running import running, settings

from moreseek.arena.live.contestants import is_internal
from moreseek.arena.live.settings import ArenaSettings, load_arena
from moreseek.arena.store.export import write_ledger, write_preferences
from moreseek.arena.store.tables import answers, contestants, ends, pauses
from moreseek.errors import InputError


def rows(site, table):
    with site.arena.database.read() as connection:
        return list(connection.execute(table.select()))


FAILURES = {
    "fail": "HTTP status 500", "html": "no event stream", "redirect": "HTTP status 302", "garbage": "garbage",
    "error": "an error in", "broken": "broke off", "empty": "an empty answer", "flood": "more than", "hang": "silent",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILURES)
def test_a_contestant_that_fails_rests_and_the_battle_does_not_count(arena, kind):
    site = arena(("ok", kind), silence_s=1.0 if kind == "hang" else 20.0)
    browser = site.browser()
    battle = browser.battle()
    assert battle.html is None
    assert "does not count" in battle.error
    assert browser.vote(battle.id).status_code == 409
    (pause,) = rows(site, pauses)
    assert FAILURES[kind] in pause.reason
    assert rows(site, contestants)[pause.contestant_id - 1].model == kind
    assert [end.how for end in rows(site, ends)] == ["failed"]
    nobody = browser.post("/api/battles", {"prompt": "again"})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (503, "nobody")
    assert "secret-name" not in battle.raw + browser.http.get("/audit.json").text


@pytest.mark.parametrize(("kind", "said"), [("flood", "more than 60000 characters"), ("endless line", "a megabyte"),
                                            ("thinks for ever", "more than 60000 characters")])  # fmt: skip
def test_ten_megabytes_of_anything_void_the_battle_and_are_not_kept(arena, tmp_path, kind, said):
    site = arena(("ok", kind), silence_s=10, answer_timeout_s=20)
    battle = site.browser().battle()
    assert "does not count" in battle.error
    assert len(battle.raw) < 10_000
    assert said in rows(site, pauses)[0].reason
    assert rows(site, answers) == []
    assert sum(path.stat().st_size for path in tmp_path.glob("arena.sqlite*")) < 3_000_000


def test_an_answer_that_never_ends_is_cut_off(arena):
    site = arena(("ok", "slow"), answer_timeout_s=0.1)
    battle = site.browser().battle()
    assert battle.error
    assert "within 0.1 s" in rows(site, pauses)[0].reason


def test_the_others_go_on(arena):
    site = arena(("ok", "second", "fail"))
    browser = site.browser()
    outcomes = [browser.battle(f"question {i}").error for i in range(8)]
    assert outcomes[-1] is None
    assert sum(error is not None for error in outcomes) <= 1


def test_a_key_goes_to_its_contestant_and_nowhere_else(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    found = settings(endpoint.url, tmp_path / "a.sqlite", ("ok", "second"))
    keyed = [one.model_copy(update={"api_key_env": "A_KEY", "temperature": 0.5}) for one in found.contestant]
    endpoint.asked.clear()
    with running(found.model_copy(update={"contestant": tuple(keyed)})) as site:
        browser = site.browser()
        received = [browser.battle_and_vote().text, browser.http.get("/audit.json").text]
    assert [one["key"] for one in endpoint.asked] == ["Bearer sk-very-secret"] * 2
    assert endpoint.asked[0]["body"]["temperature"] == 0.5
    assert "sk-very" not in "".join(received)
    assert b"sk-very" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_an_endpoint_sends_back_reaches_no_page_log_or_export(
    endpoint, tmp_path, monkeypatch, caplog, capfd
):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    monkeypatch.setenv("MORESEEK_ARENA_ADMIN_KEY", "the key of the house")
    caplog.set_level("DEBUG")
    found = settings(endpoint.url, tmp_path / "a.sqlite", ("ok", "echo"))
    keyed = [one.model_copy(update={"api_key_env": "A_KEY"}) for one in found.contestant]
    with running(found.model_copy(update={"contestant": tuple(keyed)})) as site:
        browser = site.browser()
        received = [browser.battle().raw, *(browser.http.get(path).text for path in (
            "/", "/leaderboard", "/leaderboard.json", "/leaderboard.csv", "/votes", "/votes.json", "/audit",
            "/audit.json", "/admin", "/api/contestants"))]  # fmt: skip
        assert "HTTP status 401" in rows(site, pauses)[0].reason
        write_ledger(site.arena.database, tmp_path / "out.jsonl")
        write_preferences(site.arena.database, tmp_path / "pairs.jsonl")
    printed = capfd.readouterr()
    received += [caplog.text, printed.out, printed.err]
    assert "sk-very" not in "".join(received)
    assert b"sk-very" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_the_registry_only_grows_and_keeps_who_was_withdrawn(endpoint, tmp_path):
    path = tmp_path / "a.sqlite"
    before = settings(endpoint.url, path, ("ok", "second", "xss"))
    with running(before) as site:
        for i in range(4):
            site.browser().battle_and_vote(f"q{i}")
    gone = before.contestant[0].model_copy(update={"withdrawn": "replaced by v2"})
    with running(before.model_copy(update={"contestant": (gone, *before.contestant[1:])})) as site:
        browser = site.browser()
        for i in range(4):
            assert "Ok-9000" not in [one["name"] for one in browser.battle_and_vote(f"w{i}").json()["reveal"]]
        row = browser.http.get("/audit.json").json()["contestants"][0]
        assert (row["name"], row["withdrawn_reason"]) == ("Ok-9000", "replaced by v2")
        assert "Ok-9000" in browser.http.get("/leaderboard").text
    with pytest.raises(InputError, match="was withdrawn"), running(before):
        pass
    other = before.contestant[1].model_copy(update={"model": "another"})
    with (
        pytest.raises(InputError, match="entered with model 'second'"),
        running(before.model_copy(update={"contestant": (gone, other)})),
    ):
        pass
    with running(before.model_copy(update={"contestant": (gone,)})) as site:  # left out: not drawn, still listed
        assert len(site.browser().http.get("/audit.json").json()["contestants"]) == 3


def test_a_quota_ends_the_battles_of_a_contestant(endpoint, tmp_path):
    found = settings(endpoint.url, tmp_path / "a.sqlite", ("ok", "second"))
    limited = found.contestant[0].model_copy(update={"quota": 2})
    with running(found.model_copy(update={"contestant": (limited, found.contestant[1])})) as site:
        browser = site.browser()
        for i in range(2):
            browser.battle_and_vote(f"q{i}")
        assert browser.post("/api/battles", {"prompt": "q3"}).status_code == 503


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fd00::1", "0.0.0.0", "model-host",
     "box.local", "127.1", "2130706433", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_addresses_inside_are_refused_unless_allowed_by_name(host):
    assert is_internal(host)
    url = f"http://[{host}]/v1" if ":" in host else f"http://{host}/v1"
    table = {"name": "x", "class": "base", "url": url, "model": "m"}
    with pytest.raises(ValueError, match="internal = true"):
        ArenaSettings.model_validate({"contestant": [table]})
    assert ArenaSettings.model_validate({"contestant": [{**table, "internal": True}]})


def test_addresses_outside_are_fine():
    assert not any(map(is_internal, ("api.example.com", "8.8.8.8", "2606:4700::1")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[arena]\nvote_windw_s = 3\n", "Did you mean 'vote_window_s'"),
        ("[[contestant]]\nname = 'x'\n", "key 'contestant.0.class' is missing"),
        ("[[contestant]]\nname = 'x'\nclass = 'base'\n", "'x' needs one of url, run and path"),
        ("[[judge]]\nname = 'verifier'\nurl='https://a.b/v1'\nmodel='m'\n", "'verifier' is taken"),
        ("[[contestant]]\nname='x'\nurl='ftp://a.b/v1'\nmodel='m'\nclass='base'\n", "http:// or https://"),
        ("[[contestant]]\nname='x'\nurl='https://u:p@a.b/v1'\nmodel='m'\nclass='base'\n", "api_key_env"),
        (
            "[[contestant]]\nname='x'\nurl='https://a.b/v1'\nmodel='m'\nclass='base'\napi_key_env='NOT_SET_9'\n",
            "NOT_SET_9",
        ),
        ("[[contestant]]\nname='<b>'\nurl='https://a.b/v1'\nmodel='m'\nclass='base'\n", "visible characters"),
        ("[[contestant]]\nname='x'\nurl='https://a.b/v1'\nmodel='m'\nclass='huge'\n", "'base' or 'reasoning'"),
        ("[arena\n", "not valid TOML"),
        ("[arena]\ntrusted_proxies = ['nonsense']\n", "trusted_proxies"),
    ],
)
def test_mistakes_in_arena_toml_are_named(tmp_path, text, said):
    path = tmp_path / "arena.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_arena(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_two_contestants_of_one_name_are_refused():
    one = {"name": "x", "class": "base", "url": "https://a.b/v1", "model": "m"}
    with pytest.raises(ValueError, match="two contestants are called 'x'"):
        ArenaSettings.model_validate({"contestant": [one, {**one, "name": "X"}]})


def test_every_contestant_is_asked_the_same(endpoint, arena):
    endpoint.asked.clear()
    arena().browser().battle("What is 2 + 2?")
    first, second = (dict(one["body"]) for one in endpoint.asked)
    assert {first.pop("model"), second.pop("model")} == {"ok", "second"}
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert first["messages"] == [{"role": "user", "content": "What is 2 + 2?"}]


def test_two_that_fail_at_once_are_a_failure_and_not_a_voter_who_left(arena):
    site = arena(("empty", "broken"))
    battle = site.browser().battle()
    assert "does not count" in battle.error
    assert [end.how for end in rows(site, ends)] == ["failed"]
