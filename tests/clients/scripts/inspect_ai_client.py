"""inspect-ai examines the model: inspect_ai_client.py URL KEY"""

import os
import sys
import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

URL, KEY = sys.argv[1:]
os.environ |= {"MORESEEK_BASE_URL": f"{URL}/v1", "MORESEEK_API_KEY": KEY}

with tempfile.TemporaryDirectory() as folder:
    task = Task(dataset=[Sample("hello", target="o"), Sample("how are you", target="zzzz")], solver=generate(),
                scorer=includes())  # fmt: skip
    [log] = eval(task, model="openai-api/moreseek/tiny", max_tokens=30, seed=1, log_dir=folder)
    assert log.status == "success", log.error
    assert log.samples is not None
    assert all(0 < sample.output.usage.output_tokens <= 30 for sample in log.samples)
    assert all(sample.output.message.content for sample in log.samples)
print("inspect-ai: eval")
