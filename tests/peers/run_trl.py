"""TRL's side of tests/twins/test_trl.py; runs in .peers/trl."""

import tempfile
from typing import Any

import torch
from answering import answer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def dpo(policy: str, reference: str, chosen: list[Any], rejected: list[Any], settings: dict[str, Any]) -> Any:
    """DPOTrainer's loss of one batch and its gradients; answers are (prompt ids, completion ids)."""
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (policy, reference)]
    tokenizer = AutoTokenizer.from_pretrained(policy)
    unused = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    arguments = DPOConfig(
        tempfile.mkdtemp(), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **settings
    )
    trainer = DPOTrainer(
        models[0], models[1], args=arguments, train_dataset=unused, processing_class=tokenizer
    )  # fmt: skip
    texts = [*chosen, *rejected]
    width = max(len(prompt) + len(completion) for prompt, completion in texts)
    ids, seen, mine = (torch.zeros(len(texts), width, dtype=torch.int64) for _ in range(3))
    for row, (prompt, completion) in enumerate(texts):
        end = len(prompt) + len(completion)
        ids[row, :end], seen[row, :end], mine[row, len(prompt) : end] = torch.tensor(prompt + completion), 1, 1
    inputs = {"input_ids": ids, "attention_mask": seen, "completion_mask": mine}
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    gradients = {n: p.grad.flatten()[:64].tolist() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return {"loss": float(loss), "gradients": gradients}


if __name__ == "__main__":
    answer(dpo)
