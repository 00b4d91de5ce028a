"""llama.cpp, greedy, all prompts in one batch. Prints one JSON line; benchmarks/generate.py reads it.

.peers/llama/bin/python benchmarks/peers/llama_generate.py --model FILE.gguf --batch 8

Its C functions are called directly: the Python package's own class runs one sequence at a time.
"""

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from generation import parse_args, prompts_of, timed

BATCH_TOKENS = 2048  # as llama.cpp's own default


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    pass


class Generator:
    """A model, and a context for so many sequences of so many tokens."""

    def __init__(self, path: Path, rows: int, tokens: int, threads: int) -> None:
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp does not open it")
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max, params.n_ctx = rows, rows * -(-tokens // 256) * 256
        params.n_batch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        shape = (BATCH_TOKENS,)
        self.token = np.ctypeslib.as_array(self.batch.token, shape)
        self.place = np.ctypeslib.as_array(self.batch.pos, shape)
        self.wanted = np.ctypeslib.as_array(self.batch.logits, shape)
        np.ctypeslib.as_array(self.batch.n_seq_id, shape)[:] = 1

    def run(self, tokens: np.ndarray, places: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """One call of the model over flat tokens; the likeliest token after each wanted one."""
        count = self.batch.n_tokens = len(tokens)
        self.token[:count], self.place[:count], self.wanted[:count] = tokens, places, wanted
        for at, row in enumerate(rows.tolist()):
            self.batch.seq_id[at][0] = row
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        logits = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, (int(wanted.sum()), self.vocabulary)).argmax(1)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        rows, length = len(prompts), len(prompts[0])
        tokens, places = np.array(prompts).ravel(), np.tile(np.arange(length), rows)
        owners, last = np.repeat(np.arange(rows), length), places == length - 1
        cuts = [slice(low, low + BATCH_TOKENS) for low in range(0, len(tokens), BATCH_TOKENS)]
        newest = np.concatenate([self.run(tokens[cut], places[cut], owners[cut], last[cut]) for cut in cuts])
        written = [newest]
        every = np.ones(rows, bool)
        for at in range(length, length + new_tokens - 1):
            newest = self.run(newest, np.full(rows, at), np.arange(rows), every)
            written.append(newest)
        return np.stack(written, 1).tolist()


def main() -> None:
    args = parse_args(__doc__)
    generator = Generator(args.model, args.batch, args.prompt_tokens + args.new_tokens, args.threads)
    prompts = prompts_of(args, generator.vocabulary)
    times = timed(lambda lengths: generator.generate(prompts, lengths[0]), args)
    print(json.dumps(times | {"version": llama_cpp.__version__}))


if __name__ == "__main__":
    main()
