"""The chat page on a server that answers with what a test wrote down, and waits where the test says so."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from moreseek.server.page import page_routes


class Gate(threading.Event):
    """Put into an answer: what follows comes only after set()."""


class Stub:
    """``answers``: by question, a list of texts, {"think": text}, {"sources": list}, Gate, {"error": message} or BREAK.

    {model: list} answers by model. A question without one is answered with "An answer to QUESTION."
    """

    BREAK = object()

    def __init__(self):
        self.answers, self.asked, self.left, self.with_documents = {}, [], threading.Event(), []
        self.models, self.key, self.url, self.pause_s = ["tiny", "large"], None, "", 0.0

    def app(self):
        routes = [Route("/v1/models", self._models), Route("/v1/chat/completions", self._chat, methods=["POST"])]
        return Starlette(routes=[*page_routes(), *routes])

    def _refusal(self, request):
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "The API key is missing or wrong."}}, 401)
        return None

    async def _models(self, request):
        data = [{"id": name, "documents": name in self.with_documents} for name in self.models]
        return self._refusal(request) or JSONResponse({"data": data})

    async def _chat(self, request):
        if refusal := self._refusal(request):
            return refusal
        body = await request.json()
        self.asked.append(body)
        question = body["messages"][-1]["content"]
        parts = self.answers.get(question, [f"An answer to {question}."])
        parts = parts[body["model"]] if isinstance(parts, dict) else parts
        if parts and isinstance(parts[0], int):
            return JSONResponse({"error": {"message": parts[1]}}, parts[0])
        return StreamingResponse(self._events(parts), media_type="text/event-stream")

    async def _events(self, parts):
        count = thoughts = 0
        try:
            yield chunk({"role": "assistant", "content": ""})
            for part in parts:
                if isinstance(part, Gate):
                    while not part.is_set():
                        await asyncio.sleep(0.005)
                elif part is self.BREAK:
                    return
                elif isinstance(part, dict) and "error" in part:
                    yield f"data: {json.dumps({'error': {'message': part['error']}})}\n\n"
                    return
                elif isinstance(part, dict) and "sources" in part:
                    yield f"data: {json.dumps({'choices': [], **part})}\n\n"
                else:
                    await asyncio.sleep(self.pause_s)
                    count += 1
                    thought = isinstance(part, dict)
                    thoughts += thought
                    yield chunk({"reasoning_content": part["think"]} if thought else {"content": part})
            yield chunk({}, "stop")
            details = {"reasoning_tokens": thoughts}
            usage = {"completion_tokens": count, "completion_tokens_details": details}
            yield f": a comment\n\ndata: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise


def chunk(delta, reason=None):
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': reason}]})}\n\n"


@contextmanager
def serving(app):
    """The app behind a port of its own; gives its address."""
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # connections wait here until the server takes them
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
