"""Writes a benchmark's model in the form that a peer reads: SmolLM2-135M as a folder, or any of them as a .gguf file.

    python benchmarks/harness/model_files.py SOURCE TARGET --type q8_0

The models with random weights have words for tokens that no .gguf file can name, so it gets no vocabulary.
"""

import argparse
from pathlib import Path

from moreseek.cli.convert import convert
from moreseek.model.export import open_model
from moreseek.model.gguf_export import KINDS, write_model
from moreseek.packages import package_file
from moreseek.text.folder_files import read_json_object


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="a folder, or package:PACKAGE/FILE")
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=["f32", "bf16", "q8_0"], required=True)
    args = parser.parse_args()
    source = package_file(args.source) if args.source.startswith("package:") else Path(args.source)
    words = source.is_dir() and read_json_object(source / "tokenizer.json")["model"]["type"] == "WordLevel"
    if args.target.suffix != ".gguf" or not words:
        convert(str(source), args.target, None, args.type)
        return
    opened, nameless = open_model(source), {"tokenizer.ggml.model": "none"}
    unfinished = args.target.with_name(f".writing-{args.target.name}")
    kind = KINDS[args.type.upper()]
    write_model(unfinished, opened.config, opened.weights, kind, nameless, args.target.stem, lambda *_: None)
    unfinished.rename(args.target)


if __name__ == "__main__":
    main()
