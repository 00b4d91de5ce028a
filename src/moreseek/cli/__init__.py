"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

import errno
import io
import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import moreseek
from moreseek.cli import arena
from moreseek.errors import MoreseekError
from moreseek.imports import collector_at_rest

app = typer.Typer(
    help="Make a reasoning model of your own, and show honestly how good it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(arena.app, name="arena")

Model = Annotated[str, typer.Argument(help="a run, run/stage, a Hugging Face folder or a .gguf file", metavar="MODEL")]


class Form(StrEnum):
    """What `moreseek convert` writes."""

    HF = "hf"
    GGUF = "gguf"


class Type(StrEnum):
    """Types of weights that `moreseek convert` writes; q8_0 only into .gguf files."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


class Sampling(StrEnum):
    """In what a model's matrices are multiplied while it answers."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


Precision = Annotated[
    Sampling,
    typer.Option(help="of the matrices while sampling; auto: the fastest here that keeps perplexity; on a GPU bf16"),
]
Batches = Annotated[list[int], typer.Option(help="requests at once; may be given several times", min=1, max=16_384)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


def main() -> None:
    """Entry point: runs a command and turns a MoreseekError into its message and exit code."""
    _calm_openmp()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # not every terminal has all that models write; '?' is no crash
    sys.path.append(str(Path.cwd()))  # a recipe may name functions of the user's own modules
    try:
        code = app(standalone_mode=False)  # typer hands an Exit's code back instead of raising it
    except MoreseekError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _complain(_system_fault(error))
        sys.exit(3)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own usage errors carry one; anything else is a defect
            raise
        _complain_of_usage(error)
        sys.exit(2)
    if code == 130:  # typer answers Ctrl-C with this code and without a word
        _complain("stopped.")
    sys.exit(code if isinstance(code, int) else 0)


def _calm_openmp() -> None:
    """Shorten OpenMP's spinning when the machine is busy; it must be said before torch is imported.

    Threads that wait for one another by spinning are fastest when they have the cores to themselves, and several
    times slower as soon as anything else computes (LOG.md has the figures). A value that the user set is kept.
    """
    if 2 * _others_running() >= (os.cpu_count() or 1):
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _others_running() -> int:
    """How many other threads compute at this instant (0 where the system does not say).

    Not the load average: that remembers what ended a minute ago, such as the set-up before `make demo`.
    """
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return 0


def _system_fault(error: OSError) -> str:
    """What the system refused, where, and what to do about it."""
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full. What was complete is kept: make room and start the same command again."
    return f"{where}{error.strerror or error}."


def _complain_of_usage(error: Any) -> None:
    """What click says of a wrong command line, and where its help is; without any argument the help itself."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("Usage:"):
        sys.stderr.write(f"{message}\n")
    else:
        end = "" if message.endswith((".", "?")) else "."
        _complain(message + (f"{end} `{context.command_path} --help` shows how." if context else ""))


def _complain(message: str) -> None:
    sys.stderr.write(f"moreseek: {message}\n")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moreseek {moreseek.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print version")] = False,
) -> None:
    del version


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a recipe, for example recipes/tiny-r1.toml", metavar="RECIPE.toml")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="override a setting: zero.steps=40")] = None,
    directory: Annotated[Path | None, typer.Option("--dir", help="run folder (default: runs/NAME)")] = None,
    stage: Annotated[str | None, typer.Option(help="run up to and with this stage")] = None,
    seed: Annotated[int | None, typer.Option(help="replaces run.seed")] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="go on with a half-done stage whose settings changed")
    ] = False,
) -> None:
    """Run a recipe: skip what is done, resume the rest, write a report."""
    from moreseek.recipes.recipe import load_recipe
    from moreseek.run_folder import RunFolder

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside a training step too, `kill` is like Ctrl-C
    loaded = load_recipe(recipe, set_ or [], seed)
    folder = RunFolder(directory or Path("runs") / loaded.run.name)

    with collector_at_rest():
        from moreseek.recipes.runner import Runner

    Runner(loaded, folder, accept_changes, stage).run()
    typer.echo(f"\nReport: {folder.path / 'report.html'}")
    if folder.finished():
        typer.echo(f"Talk to it: moreseek chat {folder.path}")


@app.command()
def status(
    run: Annotated[Path | None, typer.Argument(help="a run folder (default: every one under runs/)")] = None,
    as_json: Json = False,
) -> None:
    """Show where a run stands: its stages, their progress and results."""
    from moreseek.cli.status import describe_runs, print_runs

    found = describe_runs(run)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        print_runs(found)


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="one or more, each as for chat, or NAME=MODEL", metavar="MODEL…")],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 is every one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port; 0 takes a free one", min=0, max=65535)] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="clients must send it; may be given several times", envvar="MORESEEK_API_KEY"),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="a file of keys, one a line")] = None,
    running: Annotated[int, typer.Option(help="completions that a model writes at once", min=1)] = 256,
    queue: Annotated[int, typer.Option(help="requests that wait for a model at most", min=0)] = 256,
    memory: Annotated[float | None, typer.Option(help="GiB for the weights of all loaded models", min=0)] = None,
    idle: Annotated[
        float | None, typer.Option(help="seconds after which a model that nobody uses is unloaded", min=0)
    ] = None,
    drain: Annotated[float, typer.Option(help="seconds that answers get to end after SIGTERM", min=0)] = 60,
    documents: Annotated[
        list[str] | None,
        typer.Option(help="a folder to answer from, with sources; NAME=FOLDER for one of the models"),
    ] = None,
    precision: Precision = Sampling.AUTO,
) -> None:
    """Serve models: an OpenAI-compatible API at /v1 and a page to chat."""
    with collector_at_rest():
        from moreseek.cli.serve import read_keys
        from moreseek.cli.serve import serve as start

    keys = read_keys(api_key or [], api_key_file)
    start(models, host, port, keys, running, queue, memory, idle, drain, precision.value, documents or [])


@app.command()
def bench(
    model: Model,
    batch: Batches = [1, 8, 64],  # noqa: B006  (typer reads it as the default)
    prompt_tokens: Annotated[int, typer.Option(help="tokens of a prompt", min=1)] = 64,
    new_tokens: Annotated[int, typer.Option(help="tokens that are written", min=1)] = 128,
    precision: Precision = Sampling.AUTO,
    as_json: Json = False,
) -> None:
    """Measure tokens a second here, and how far that is from the limit."""
    with collector_at_rest():
        from moreseek.cli.bench import measure, print_result

    result = measure(model, batch, prompt_tokens, new_tokens, precision.value)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        print_result(result)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: what would be fast, slow or impossible."""
    from moreseek.cli.doctor import examine, print_findings

    findings = examine()
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    else:
        print_findings(findings)
    if any(item["verdict"] == "impossible" for item in findings["checks"]):
        raise typer.Exit(3)


@app.command()
def chat(
    model: Model,
    system: Annotated[str | None, typer.Option(help="system prompt")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy")] = 0.6,
    max_tokens: Annotated[int, typer.Option(min=1, help="longest answer, thinking included")] = 512,
    seed: Annotated[int, typer.Option(help="the same seed gives the same answers")] = 0,
    precision: Precision = Sampling.AUTO,
) -> None:
    """Talk to a model. Its thinking is shown dimmed, apart from the answer."""
    with collector_at_rest():
        from moreseek.cli.chat import talk

    talk(model, system, temperature, max_tokens, seed, precision.value)


@app.command(name="eval")
def eval_(
    model: Model,
    problems: Annotated[str, typer.Option(help="a .jsonl file, reasoning-gym:TASK, or package.module:function")],
    k: Annotated[int, typer.Option(min=1, help="sampled completions a problem")] = 16,
    count: Annotated[int, typer.Option(min=1, help="how many problems")] = 500,
    max_tokens: Annotated[int, typer.Option(min=1, help="longest completion")] = 256,
    temperature: Annotated[float, typer.Option(help="of the sampled completions")] = 1.0,
    system: Annotated[str | None, typer.Option(help="system prompt")] = None,
    prompt_template: Annotated[str, typer.Option(help="{prompt} is replaced by the problem")] = "{prompt}",
    seed: Annotated[int, typer.Option(help="of problems and samples")] = 0,
    as_json: Json = False,
) -> None:
    """Measure a model on problems. Greedy accuracy, pass@1, pass@k and cons@k, with 95 % intervals."""
    with collector_at_rest():
        from moreseek.cli.evaluate import evaluate_model, print_result

    result = evaluate_model(
        model, problems, k=k, count=count, max_tokens=max_tokens, temperature=temperature, system=system,
        prompt_template=prompt_template, seed=seed,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        print_result(result)


@app.command()
def convert(
    model: Model,
    target: Annotated[Path, typer.Argument(help="a new folder, or a new .gguf file", metavar="TARGET")],
    to: Annotated[Form | None, typer.Option(help="the form to write (default: told by TARGET's name)")] = None,
    type_: Annotated[
        Type | None, typer.Option("--type", help="type of the weights (default: what the model has)")
    ] = None,
) -> None:
    """Convert a model: Hugging Face folders, .gguf files, runs. Nothing is overwritten."""
    from moreseek.cli.convert import convert as write

    for note in write(model, target, to and to.value, type_ and type_.value):
        typer.echo(f"note: {note}.", err=True)
    typer.echo(f"Wrote {target}")
