"""langchain-openai: langchain_openai_client.py URL KEY"""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

URL, KEY = sys.argv[1:]


class Weather(BaseModel):
    """The weather of a city."""

    sunny: bool


def model(**more: object) -> ChatOpenAI:
    settings = {"model": "tiny", "base_url": f"{URL}/v1", "api_key": KEY, "seed": 1, "max_retries": 0}
    return ChatOpenAI(**settings | {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}} | more)


whole = model(max_tokens=20).invoke("hello")
assert whole.content
assert whole.usage_metadata["output_tokens"] == 20
assert "".join(chunk.content for chunk in model(max_tokens=20).stream("hello")) == whole.content
print("langchain-openai: invoke, stream")
called = model().bind_tools([Weather], tool_choice="required", parallel_tool_calls=False).invoke("hello")
[call] = called.tool_calls
Weather.model_validate(call["args"])
turns = [HumanMessage("hello"), called, ToolMessage("it is", tool_call_id=call["id"])]
assert model(max_tokens=3).bind_tools([Weather]).invoke(turns).usage_metadata
for method in ("json_schema", "function_calling"):
    assert isinstance(model().with_structured_output(Weather, method=method).invoke("hello"), Weather)
print("langchain-openai: tools, structured output")
answer = model(use_responses_api=True, max_tokens=20, extra_body=None, seed=None, reasoning={"effort": "none"}).invoke(
    "hello"
)
assert answer.text
print("langchain-openai: responses")
