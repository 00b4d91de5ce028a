import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console

from moreseek.errors import InputError
from moreseek.evals import plots
from moreseek.evals.report import terminal_table, write_report

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Checks nesting, and keeps what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.links = [], [], [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)
            self.references |= set(re.findall(r"url\(#([^)]+)\)", value or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def written_page(run_folder):
    write_report(run_folder)
    return (run_folder / "report.html").read_text()


@pytest.fixture
def without_charts(monkeypatch):
    """For what a report says in words and numbers: drawing takes most of its time."""
    monkeypatch.setattr(plots, "_svg", lambda figure, name, alt: "<svg></svg>")


def rewrite(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_report_json_has_the_shape_that_scripts_rely_on(finished):
    report, _ = finished
    assert (report["run"], report["seed"], report["wall_s"]) == ("tiny-r1", 1, 243.2)
    assert [stage["name"] for stage in report["stages"]] == ["base", "zero"]
    base = report["stages"][0]
    assert {"name", "method", "model", "wall_s", "tokens", "flops", "cost_usd", "eval"} <= base.keys()
    assert base["cost_usd"] == pytest.approx(162.4 / 3600 * 0.10)
    assert base["eval"]["greedy"]["value"] == 0.388
    assert report["compared"] == ["base", "zero"]


def test_the_recipes_price_is_used(run_folder, without_charts):
    rewrite(run_folder / "run.json", lambda run: run["recipe"]["run"].update(price_usd_per_hour=3.6))
    page = written_page(run_folder)
    report = json.loads((run_folder / "report.json").read_text())
    assert report["stages"][0]["cost_usd"] == pytest.approx(0.1624)
    assert "$3.60 an hour" in page


def test_a_machine_that_costs_nothing_costs_nothing(run_folder, without_charts):
    rewrite(run_folder / "run.json", lambda run: run["recipe"]["run"].update(price_usd_per_hour=0.0))
    written_page(run_folder)
    report = json.loads((run_folder / "report.json").read_text())
    assert {stage["cost_usd"] for stage in report["stages"]} == {report["price_usd_per_hour"]} == {0.0}


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(finished):
    page = Page(finished[1])
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object"}
    assert all(link.startswith("#") for link in page.links)


def test_charts_share_no_ids_and_every_reference_resolves(finished):
    page = Page(finished[1])
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_the_page_can_be_heard_as_well_as_seen(finished):
    page = Page(finished[1])
    charts = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(charts) == 10
    assert all(attrs["role"] == "img" and re.search(r"\d", attrs["aria-label"]) for attrs in charts)
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert ("html", {"lang": "en"}) in page.tags


def test_charts_take_the_pages_colours(finished):
    _, text = finished
    assert "#010203" not in text
    assert "currentColor" in text
    assert "var(--after)" in text


def test_the_same_run_gives_the_same_page(run_folder, finished):
    assert written_page(run_folder) == finished[1]


EVIL = [
    "</div><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31mred\x07",
    "\u202egnp.exe\u2066",
    "half a character \ud800",
    "<!--",
    "]]>",
]


def test_whatever_a_model_writes_stays_text(run_folder):
    def spoil(value):
        for sample, evil in zip(value["samples"], EVIL * 2, strict=False):
            sample.update(completion=evil, thinking=evil, final=evil, prompt=evil, answer=evil)
        value["unseen_tasks"] = {evil: {"problems": 1, "greedy": None} for evil in EVIL}
        cell = {"problems": 1, "greedy": None, "mean_completion_tokens": 1.0}
        value["by_difficulty"] |= dict.fromkeys(EVIL, cell)

    rewrite(run_folder / "02-zero" / "eval.json", spoil)
    rewrite(run_folder / "02-zero" / "stage.json", lambda stage: stage.update(name="".join(EVIL)))
    rewrite(run_folder / "run.json", lambda run: run.update(name="".join(EVIL), started_at=EVIL[0]))
    rows = [{"step": 1, "prompt": evil, "completion": evil, "reward": 0.0} for evil in EVIL]
    (run_folder / "02-zero" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = written_page(run_folder)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert sum(tag == "style" for tag, _ in page.tags) == 11  # the page's own, and one in each chart
    assert not set("\x00\x1b\x07\u202e\u2066") & set(text)
    assert "{{ 7 * 7 }}" in text


def test_a_very_long_completion_is_cut_on_the_page_alone(run_folder, without_charts):
    rewrite(run_folder / "02-zero" / "eval.json", lambda value: value["samples"][0].update(final="1" * 50_000))
    assert "(47,000 more characters)" in written_page(run_folder)
    assert "1" * 50_000 in (run_folder / "report.json").read_text()


def test_a_run_that_is_going_on_has_a_page_already(run_folder):
    stage = run_folder / "02-zero" / "stage.json"
    rewrite(
        stage,
        lambda value: [value.pop(key) for key in ("wall_s", "tokens", "flops")] and value.update(status="running"),
    )
    (run_folder / "02-zero" / "eval.json").unlink()
    with (run_folder / "02-zero" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 63, "rew')
    Page(written_page(run_folder))
    report = json.loads((run_folder / "report.json").read_text())
    zero = report["stages"][1]
    assert (zero["status"], zero["eval"]) == ("running", None)
    assert zero["wall_s"] == pytest.approx(0.34 * 62)
    assert report["headline"] == "tiny-r1: 38.8\N{NO-BREAK SPACE}% of held-out problems right"


@pytest.mark.parametrize("left", [["run.json"], ["run.json", "01-base"]])
def test_a_run_that_has_just_begun_has_a_page_too(run_folder, left):
    for path in run_folder.iterdir():
        if path.name not in left:
            shutil.rmtree(path)
    for name in ("eval.json", "metrics.jsonl"):
        (run_folder / "01-base" / name).unlink(missing_ok=True)
    Page(written_page(run_folder))
    report = json.loads((run_folder / "report.json").read_text())
    assert report["findings"] == ["No stage has been evaluated yet."]
    Console(width=100, file=io.StringIO()).print(terminal_table(report))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not a run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "01-base/stage.json", "01-base/eval.json"])
def test_a_malformed_file_is_named(run_folder, name):
    (run_folder / name).write_text("{half")
    with pytest.raises(InputError, match=name):
        write_report(run_folder)


def test_a_malformed_line_in_the_middle_of_a_log_is_named(run_folder):
    (run_folder / "01-base" / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2"):
        write_report(run_folder)


def test_stages_beyond_nine_stay_in_order(run_folder, without_charts):
    (run_folder / "02-zero").rename(run_folder / "10-zero")
    report = write_report(run_folder)
    assert [stage["name"] for stage in report["stages"]] == ["base", "zero"]


def test_gaps_in_metrics_do_not_break_the_curves(run_folder):
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": float("nan")},
        {"step": 4, "loss": 1},
    ]
    (run_folder / "01-base" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Page(written_page(run_folder))


def test_the_terminal_shows_accuracy_length_and_cost_before_and_after(finished):
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(terminal_table(finished[0]))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "38.8 % → 100 % right, 3.8 → 29.4 tokens an answer (×7.7)" in text
    assert "2 min 42 s" in text
    assert "$0.0051" in text


def test_a_narrow_terminal_shows_fewer_columns_and_no_figure_cut_short(finished):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(finished[0], console.width))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "…" not in text
    assert "38.8 % (" in text
    assert "cost" not in text


def test_a_report_needs_no_torch(run_folder):
    code = (
        "import sys; from pathlib import Path; from moreseek.evals.report import write_report; "
        "write_report(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(run_folder)], env=environment, check=False).returncode == 0
