"""litellm: litellm_client.py URL KEY"""

import json
import sys

import litellm

URL, KEY = sys.argv[1:]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"],
    "additionalProperties": False,
}}}  # fmt: skip

for provider in ("openai", "hosted_vllm"):
    asked = {"model": f"{provider}/tiny", "api_base": f"{URL}/v1", "api_key": KEY, "seed": 1}
    asked["messages"] = [{"role": "user", "content": "hello"}]
    whole = litellm.completion(**asked, max_tokens=20)
    assert whole.choices[0].message.reasoning_content, whole
    assert whole.usage.completion_tokens == 20
    deltas = [chunk.choices[0].delta for chunk in litellm.completion(**asked, max_tokens=20, stream=True)]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == whole.choices[0].message.reasoning_content
    called = litellm.completion(**asked, tools=[TOOL], tool_choice="required", parallel_tool_calls=False,
                                extra_body={"thinking_budget": 2})  # fmt: skip
    [call] = called.choices[0].message.tool_calls
    assert isinstance(json.loads(call.function.arguments)["sunny"], bool)
    try:
        litellm.completion(**asked, temperature=-1)
    except litellm.BadRequestError as error:
        assert "temperature" in str(error)
    else:
        raise AssertionError("a wrong temperature was not refused")
    print(f"litellm: {provider}")
