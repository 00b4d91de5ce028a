"""schemathesis with all its checks on /openapi.json: schemathesis_client.py URL KEY

Twice: with models' names as it invents them, which are refused, and with the served model's, which reach the engine.
There a well-formed request may be too long or absurd, and its 400 is right: a schema has no words for a context.
"""

import os
import subprocess
import sys
from pathlib import Path

URL, KEY = sys.argv[1:]
HOOKS = """
import schemathesis

@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        body["model"] = "tiny"
    return body
"""
ACCEPTED = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404]
"""
TOLD = (
    "Test cases:",
    "generated",
    "Seed:",
    "Test Phases",
    "✅",
    "❌",
    "passed",
    "failed",
    "found",
    "Operations",
    "Selected",
    "Tested",
)


def run(name: str, examples: int, *options: str, **more: str) -> None:
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, *options, "run", f"{URL}/openapi.json", "--checks", "all", "--max-examples", str(examples)]
    command += ["--header", f"Authorization: Bearer {KEY}", "--seed", "1", "--request-timeout", "60"]
    done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-12_000:] + done.stderr[-2_000:])
    print(
        f"schemathesis, {name}:",
        *[line.strip() for line in done.stdout.splitlines() if any(word in line for word in TOLD)],
        sep="\n  ",
    )


run("invented names", 40)
Path("of_ours.py").write_text(HOOKS, encoding="utf-8")
Path("accepted.toml").write_text(ACCEPTED, encoding="utf-8")
run("the served model", 15, "--config-file", "accepted.toml", SCHEMATHESIS_HOOKS="of_ours", PYTHONPATH=".")
