"""langchain-deepseek, which reads the thinking: langchain_deepseek_client.py URL KEY"""

import sys

from langchain_deepseek import ChatDeepSeek

URL, KEY = sys.argv[1:]
model = ChatDeepSeek(model="tiny", api_base=f"{URL}/v1", api_key=KEY, max_tokens=20, seed=1, max_retries=0)
whole = model.invoke("hello")
thought = whole.additional_kwargs["reasoning_content"]
assert thought
parts = [chunk.additional_kwargs.get("reasoning_content", "") for chunk in model.stream("hello")]
assert "".join(parts) == thought
print("langchain-deepseek: thinking, whole and streamed")
