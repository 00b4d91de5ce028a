"""Our side of benchmarks/generate.py: seconds of greedy generation. Prints the peer's JSON line.

python benchmarks/harness/generate_step.py --model FOLDER --batch 8
"""

import json
import sys
from pathlib import Path

import torch

from moreseek.engine.engine import Engine
from moreseek.engine.precision import choose_precision
from moreseek.engine.sampling import SamplingParams
from moreseek.model.weights import load_model
from moreseek.training.device import keep_freed_memory

sys.path.insert(0, str(Path(__file__).parent))
from generation import parse_args, prompts_of, timed


def main() -> None:
    args = parse_args(__doc__)
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    prompts = prompts_of(args, model.config.vocab_size)
    if args.dtype == "auto":  # as a server has it: packed once, in the precision that pays
        engine = Engine(model, args.batch, frozen=True, precision=choose_precision(model))
    else:  # as rollouts have it: every call packs the weights anew
        engine = Engine(model, args.batch)

    def generate(lengths: list[int]) -> list[list[int]]:
        engine.scheduler.blocks.forget()  # every repetition reads its prompts
        if len(set(lengths)) == 1:
            params = SamplingParams(temperature=0, max_tokens=lengths[0], ignore_eos=True)
            return [completion.token_ids for completion in engine.generate(prompts, params)]
        engine.refresh()
        requests = [
            engine.add(prompt, SamplingParams(temperature=0, max_tokens=length, ignore_eos=True))
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        while engine.scheduler.busy:
            engine.step()
        return [request.output for request in requests]

    print(json.dumps(timed(generate, args) | {"precision": engine.precision}))


if __name__ == "__main__":
    main()
