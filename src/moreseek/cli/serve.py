"""`moreseek serve`: models behind an OpenAI-compatible API and a chat page."""

from pathlib import Path

from rich.console import Console

from moreseek.cli.site import listen, run
from moreseek.engine.llm import LLM
from moreseek.engine.precision import Asked
from moreseek.errors import FaultError, InputError
from moreseek.server.app import Served, build_app


def serve(models: list[str], host: str, port: int, api_key: str | None, queue: int, precision: Asked) -> None:
    """Load the models, then answer until told to stop; what runs then gets ten seconds to end."""
    console = Console(stderr=True, highlight=False, markup=False)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise FaultError(f"{host}:{port} cannot be listened on ({error.strerror}). Choose another --port.") from error
    loaded: dict[str, LLM] = {}
    for model in models:
        name = served_name(model)
        if name in loaded:
            raise InputError(f"two models would be served as {name}. Give folders with different names.")
        console.print(f"loading {model}")
        loaded[name] = LLM(model, precision=precision)
    address = f"http://{host}:{listening.getsockname()[1]}"
    console.print(f"{', '.join(loaded)} at {address}/v1, a chat page at {address}/")
    run(build_app(Served(loaded, api_key, queue)), listening)


def served_name(model: str) -> str:
    """runs/tiny-r1/zero is served as tiny-r1/zero, a folder or a file by its last name."""
    path = Path(model)
    if path.suffix == ".gguf":
        return path.stem
    path = path.resolve() if path.name in ("", ".", "..") else path
    if path.name == "model" and len(path.parts) > 2:  # inside a run
        return "/".join(path.parts[-3:-1])
    parts = path.parts
    return "/".join(parts[parts.index("runs") + 1 :]) if "runs" in parts[:-1] else path.name
