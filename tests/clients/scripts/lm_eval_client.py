"""lm-eval scores choices by the log-probabilities of an echoed prompt: lm_eval_client.py URL KEY

Leaves scores.json behind: for each problem its texts, the log-likelihood of each choice, and whether the right one won.
"""

import json
import sys
from pathlib import Path

from lm_eval import simple_evaluate

URL, KEY = sys.argv[1:]
PROBLEMS = [
    {"question": f"hello {i}, how", "choices": [" are you", " is the world"], "answer": i % 2} for i in range(8)
]

Path("problems.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
choices = {
    "task": "choices", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "problems.jsonl"}},
    "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}", "doc_to_choice": "{{choices}}", "target_delimiter": "",
    "metric_list": [{"metric": "acc"}],
}  # fmt: skip
server = {"model": "tiny", "base_url": f"{URL}/v1/completions", "tokenizer_backend": "remote", "auth_token": KEY}
found = simple_evaluate("local-completions", model_args=server, tasks=[choices], log_samples=True)
scores = [
    {
        "question": sample["doc"]["question"],
        "choices": sample["doc"]["choices"],
        "answer": sample["doc"]["answer"],
        "logprobs": [float(answer[0]) for answer in sample["filtered_resps"]],
    }
    for sample in found["samples"]["choices"]
]
Path("scores.json").write_text(json.dumps({"acc": found["results"]["choices"]["acc,none"], "samples": scores}))
print(f"lm-eval: local-completions, accuracy {found['results']['choices']['acc,none']:.3f}")
chat = {"model": "tiny", "base_url": f"{URL}/v1/chat/completions", "tokenizer_backend": None}
written = {
    "task": "written", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "problems.jsonl"}},
    "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8}, "metric_list": [{"metric": "exact_match"}],
}  # fmt: skip
found = simple_evaluate("local-chat-completions", model_args=chat, tasks=[written], apply_chat_template=True,
                        log_samples=True)  # fmt: skip
assert len(found["samples"]["written"]) == len(PROBLEMS)
print("lm-eval: local-chat-completions")
