"""The openai package: openai_client.py URL KEY"""

import json
import sys

import openai
from pydantic import BaseModel

URL, KEY = sys.argv[1:]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
HELLO = [{"role": "user", "content": "hello"}]
BRIEF = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}


class Answer(BaseModel):
    yes: bool


class Weather(BaseModel):
    """The weather of a city."""

    sunny: bool


def models_and_chat() -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=1)
    assert answer.usage.completion_tokens == 20
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.reasoning_content
    plain = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=1, **BRIEF)
    assert plain.choices[0].message.content
    assert plain.choices[0].message.reasoning_content is None


def stream() -> None:
    more = {"model": "tiny", "messages": HELLO, "max_tokens": 20, "seed": 1, "logprobs": True, "top_logprobs": 2}
    more |= BRIEF
    whole = client.chat.completions.create(**more)
    text, logs, usage = "", [], None
    for chunk in client.chat.completions.create(**more, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            logs += choice.logprobs.content if choice.logprobs else []
    assert text == whole.choices[0].message.content
    assert logs == whole.choices[0].logprobs.content
    assert usage.completion_tokens == whole.usage.completion_tokens


def parse() -> None:
    answer = client.chat.completions.parse(model="tiny", messages=HELLO, response_format=Answer, **BRIEF)
    assert isinstance(answer.choices[0].message.parsed, Answer)
    response = client.responses.parse(model="tiny", input="hello", text_format=Answer, reasoning={"effort": "none"})
    assert isinstance(response.output_parsed, Answer)


def tools() -> None:
    offer = {"model": "tiny", "tools": [openai.pydantic_function_tool(Weather)], "tool_choice": "required", **BRIEF}
    offer["parallel_tool_calls"] = False
    answer = client.chat.completions.create(messages=HELLO, **offer)
    [call] = answer.choices[0].message.tool_calls
    Weather.model_validate_json(call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(messages=HELLO, **offer) as events:
        final = events.get_final_completion()
    [streamed] = final.choices[0].message.tool_calls
    assert isinstance(streamed.function.parsed_arguments, Weather)
    result = {"role": "tool", "tool_call_id": call.id, "content": "it is"}
    turns = [*HELLO, answer.choices[0].message, result]
    assert client.chat.completions.create(messages=turns, max_tokens=3, **offer | {"tool_choice": "auto"}).choices


def responses() -> None:
    more = {"model": "tiny", "input": "hello", "instructions": "be brief", "temperature": 0, "max_output_tokens": 20}
    whole = client.responses.create(**more)
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert [item.type for item in whole.output] == ["reasoning"]
    more["reasoning"] = {"effort": "none"}
    whole = client.responses.create(**more)
    told = list(client.responses.create(**more, stream=True))
    deltas = "".join(event.delta for event in told if event.type == "response.output_text.delta")
    assert told[-1].type == "response.incomplete"
    assert deltas == told[-1].response.output_text == whole.output_text != ""
    again = client.responses.create(**more | {"input": "and?", "previous_response_id": whole.id})
    assert again.usage.input_tokens > whole.usage.input_tokens
    tool = {"type": "function", "name": "weather", "parameters": Weather.model_json_schema()}
    more |= {"max_output_tokens": 500, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    with client.responses.stream(**more) as events:
        [call] = events.get_final_response().output
    Weather.model_validate(json.loads(call.arguments))


def completions() -> None:
    answer = client.completions.create(model="tiny", prompt="hello", echo=True, logprobs=1, max_tokens=2)
    logs = answer.choices[0].logprobs
    assert logs.token_logprobs[0] is None
    assert len(logs.tokens) == answer.usage.total_tokens
    assert answer.choices[0].text.startswith("hello")


def sources() -> None:
    more = {"model": "tiny", "messages": [{"role": "user", "content": "How is salt kept?"}], "max_tokens": 3}
    [source] = client.chat.completions.create(**more).model_extra["sources"]
    assert (source["index"], source["file"]) == (1, "salt.md")
    first = next(client.chat.completions.create(**more, stream=True))
    assert first.model_extra["sources"] == [source]
    assert client.responses.create(model="tiny", input="salt?", max_output_tokens=3).model_extra["sources"] == [source]
    plain = client.chat.completions.create(**more, extra_body={"retrieval": False})
    assert "sources" not in plain.model_extra


def errors() -> None:
    def refused(kind: type[openai.APIStatusError], **more: object) -> None:
        try:
            client.chat.completions.create(**{"model": "tiny", "messages": HELLO} | more)
        except kind as error:
            assert error.body["message"]
        else:
            raise AssertionError(f"not refused: {more}")

    refused(openai.NotFoundError, model="other")
    refused(openai.BadRequestError, temperature=-1)
    refused(openai.BadRequestError, messages=[{"role": "user", "content": "x" * 20_000}])
    try:
        client.with_options(api_key="wrong").models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was not refused")


def cancel() -> None:
    for _ in range(5):
        chunks = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        next(chunks)
        chunks.close()
    models_and_chat()


for check in (models_and_chat, stream, parse, tools, responses, completions, sources, errors, cancel):
    check()
    print(f"openai: {check.__name__}")
