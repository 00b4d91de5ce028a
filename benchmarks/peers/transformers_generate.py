"""transformers.generate, greedy, with its cache, in fp32. Prints one JSON line; benchmarks/generate.py reads it."""

import json
import sys
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from generation import parse_args, prompts_of, timed


def main() -> None:
    args = parse_args(__doc__)
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    prompts = prompts_of(args, model.config.vocab_size)

    def generate(lengths: list[int]) -> list[list[int]]:
        found: list[list[int]] = []
        for low in range(0, len(prompts), args.batch):  # a batch runs until its longest is done
            ids = torch.tensor(prompts[low : low + args.batch])
            longest = max(lengths[low : low + args.batch])
            with torch.inference_mode():
                out = model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=longest, min_new_tokens=longest,
                    do_sample=False, pad_token_id=0,
                )  # fmt: skip
            rows = out[:, ids.shape[1] :].tolist()
            found.extend(row[:length] for row, length in zip(rows, lengths[low : low + args.batch], strict=True))
        return found

    print(json.dumps(timed(generate, args) | {"version": transformers.__version__}))


if __name__ == "__main__":
    main()
