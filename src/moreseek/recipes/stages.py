"""What each stage does between the recipe and the training loop: data, model, method."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from moreseek.config import parse
from moreseek.data.documents import Document, iter_documents
from moreseek.data.loader import PackedLoader
from moreseek.data.preferences import PreferenceSplit, load_preferences
from moreseek.data.problems import check_disjoint, load_problems
from moreseek.data.shards import TokenShards, write_shards
from moreseek.data.split import check_apart
from moreseek.errors import InputError
from moreseek.evals.tasks import load_exam
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.model.weights import load_model
from moreseek.recipes.recipe import Recipe
from moreseek.records import Conversation, Problem
from moreseek.run_folder import StageFolder
from moreseek.text.chat import encode_conversations
from moreseek.text.prompts import PLACEHOLDER, problem_messages
from moreseek.text.tokenizer import Tokenizer, train_tokenizer
from moreseek.training.checkpoint import require_whole, write_folder, write_pair
from moreseek.training.grpo import GRPO
from moreseek.training.loop import Loop, Method
from moreseek.training.pairs import encode_pairs
from moreseek.training.preference import PreferenceTraining
from moreseek.training.pretrain import Pretrain
from moreseek.training.progress import StageProgress, counter
from moreseek.training.sampler import open_sampler
from moreseek.training.settings import GRPOSettings, PreferenceSettings, PretrainSettings, TrainingSettings

SPARE_TOKENS = 1.02  # packing leaves a little padding, so an exact token budget would start a second epoch
BATCH_OF_DOCUMENTS = 4096


@dataclass
class Prepared:
    """A stage that is ready to train."""

    model: Transformer
    tokenizer: Tokenizer
    method: Method
    settings: TrainingSettings  # the stage's, with what only its data tells


def train_stage(
    recipe: Recipe,
    stage: TrainingSettings,
    folder: StageFolder,
    start: Path | None,
    device: torch.device,
    precision: torch.dtype,
    on_step: Callable[[int], None] | None = None,
) -> Loop:
    """Prepare, train (resuming), and write the stage's model folder. Returns the loop for its figures."""
    if start is not None:
        require_whole(start)
    prepare = {
        "pretrain": _prepare_pretrain,
        "grpo": partial(_prepare_grpo, precision=precision),
        "preference": partial(_prepare_preference, precision=precision),
    }[stage.method]
    ready = prepare(recipe, stage, folder, start, device)
    loop = Loop(
        ready.model, ready.tokenizer, ready.method, ready.settings, folder.path, precision,
        tensorboard=recipe.run.tensorboard,
    )  # fmt: skip
    loop.run(on_step)
    write_pair(ready.model, ready.tokenizer, folder.model)
    return loop


def load_pair(path: Path, device: torch.device | str = "cpu") -> tuple[Transformer, Tokenizer]:
    """A model and its tokenizer. Raises InputError when the two do not belong together."""
    tokenizer = Tokenizer.load(path)
    model = load_model(path, device=device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids, the model only {model.config.vocab_size}: "
            "they do not belong together. Put the tokenizer that the model was trained with beside it."
        )
    return _with_token_ids(model, tokenizer), tokenizer


def _with_token_ids(model: Transformer, tokenizer: Tokenizer) -> Transformer:
    """Make the config name every id that ends a completion: the tokenizer knows them all."""
    eos = list(tokenizer.eos_ids)
    update: dict[str, Any] = {"eos_token_id": eos[0] if len(eos) == 1 else eos}
    update |= {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id}
    model.config = model.config.model_copy(update=update)
    return model


# --- pretraining -------------------------------------------------------------------------------------------------


def _prepare_pretrain(
    recipe: Recipe, stage: PretrainSettings, folder: StageFolder, start: Path | None, device: torch.device
) -> Prepared:
    seed = recipe.run.seed
    if start is not None:
        model, tokenizer = load_pair(start, device)
    else:
        tokenizer = _tokenizer(stage, folder, seed)
        where = f"{recipe.path}: stage '{stage.name}': model"
        table = {"max_position_embeddings": max(4096, stage.sequence_length), **(stage.model or {})}
        config = parse(ModelConfig, {"vocab_size": tokenizer.vocab_size, **table}, where)
        if config.vocab_size < tokenizer.vocab_size:
            raise InputError(
                f"{where}: vocab_size {config.vocab_size} is below the tokenizer's {tokenizer.vocab_size}."
            )
        model = _with_token_ids(build(config, seed).to(device), tokenizer)
    shards = _shards(recipe, stage, tokenizer, folder)
    loader = PackedLoader(shards, stage.sequence_length, stage.batch_size, seed, pad_id=tokenizer.pad_id)
    return Prepared(model, tokenizer, Pretrain(model, loader, stage), stage)


def _tokenizer(stage: PretrainSettings, folder: StageFolder, seed: int) -> Tokenizer:
    """Train the tokenizer once; a resume reads it back."""
    saved = folder.path / "data" / "tokenizer"
    if (saved / "tokenizer.json").is_file():
        return Tokenizer.load(saved)
    if stage.tokenizer is None:
        raise InputError(f"stage '{stage.name}': a model from random weights needs a [stage.tokenizer] table.")
    sample = islice(iter_documents(stage.documents, seed), stage.tokenizer.training_documents)
    tokenizer = train_tokenizer(_texts(sample), stage.tokenizer.vocab_size)
    write_folder(saved, tokenizer.save)
    return tokenizer


def _texts(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        if isinstance(document, Conversation):
            for message in document.messages:
                yield message.content
                yield message.reasoning_content or ""
        else:
            yield document


def training_documents(recipe: Recipe, stage: PretrainSettings) -> Iterator[Document]:
    """The stage's documents. Raises InputError at a conversation in which a user asks what the recipe evaluates on."""
    examined = _examined_prompts(recipe)
    for document in iter_documents(stage.documents, recipe.run.seed):
        turns = document.messages if isinstance(document, Conversation) else ()
        leaked = next((turn.content for turn in turns if turn.content in examined), None)
        if leaked is not None:
            raise InputError(
                f"{recipe.path}: stage '{stage.name}': a training conversation asks a problem that is held out for "
                f"evaluation: {leaked[:80]!r}. Remove such conversations from the documents."
            )
        yield document


def _shards(recipe: Recipe, stage: PretrainSettings, tokenizer: Tokenizer, folder: StageFolder) -> TokenShards:
    """Tokenise once; a resume opens what is there."""
    path = folder.path / "data" / "shards"
    if path.is_dir():
        return TokenShards.open(path, tokenizer.fingerprint())
    budget = int(stage.steps * stage.batch_size * stage.sequence_length * SPARE_TOKENS)
    documents = _encoded(training_documents(recipe, stage), tokenizer)
    return write_shards(path, documents, tokenizer.vocab_size, tokenizer.fingerprint(), budget)


def _encoded(documents: Iterator[Document], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Token ids of documents, a batch at a time; plain text ends with the end token.

    The next batch is made while this one is encoded, which mostly happens outside Python.
    """
    with ThreadPoolExecutor(1, "documents") as maker:
        coming = maker.submit(_batch, documents)
        while batch := coming.result():
            coming = maker.submit(_batch, documents)
            if isinstance(batch[0], Conversation) and all(isinstance(item, Conversation) for item in batch):
                yield from encode_conversations(tokenizer, batch)  # pyright: ignore[reportArgumentType]
                continue
            for item in batch:
                if isinstance(item, Conversation):
                    yield from encode_conversations(tokenizer, [item])
                else:
                    yield [*tokenizer.encode(item, special=False), tokenizer.eos_ids[0]]


def _batch(documents: Iterator[Document]) -> list[Document]:
    return list(islice(documents, BATCH_OF_DOCUMENTS))


# --- reinforcement learning --------------------------------------------------------------------------------------


def _prepare_grpo(
    recipe: Recipe, stage: GRPOSettings, folder: StageFolder, start: Path | None, device: torch.device,
    precision: torch.dtype,
) -> Prepared:  # fmt: skip
    assert start is not None
    model, tokenizer = load_pair(start, device)
    problems = training_problems(recipe, stage)
    outside = stage.sampler and open_sampler(stage.sampler, tokenizer, folder.path / "sampler")
    method = GRPO(model, tokenizer, problems, stage, recipe.run.seed, outside, precision)
    return Prepared(model, tokenizer, method, stage)


def training_problems(recipe: Recipe, stage: GRPOSettings) -> list[Problem]:
    """The training problems, checked to share nothing with what the recipe evaluates on."""
    source = recipe.problems_of(stage)
    count = None if source.source == "file" else stage.problem_count
    problems = load_problems(source, count, "train", recipe.run.seed)
    check_disjoint(problems, _examined(recipe))
    return problems


def _examined(recipe: Recipe) -> list[Problem]:
    """The problems that the recipe evaluates on."""
    if recipe.eval is None or recipe.problems is None:
        return []
    exam = load_exam(recipe.problems, recipe.eval)
    return [*exam.main, *(exam.longer or ()), *(problem for task in exam.unseen.values() for problem in task)]


def _examined_prompts(recipe: Recipe) -> set[str]:
    """Their prompts, and what the evaluation makes of them by its template."""
    problems, template = _examined(recipe), recipe.eval.prompt_template if recipe.eval else PLACEHOLDER
    posed = {problem_messages(problem, None, template)[-1].content for problem in problems}
    return posed | {problem.prompt for problem in problems}


# --- preferences -------------------------------------------------------------------------------------------------


def _prepare_preference(
    recipe: Recipe, stage: PreferenceSettings, folder: StageFolder, start: Path | None, device: torch.device,
    precision: torch.dtype,
) -> Prepared:  # fmt: skip
    assert start is not None
    model, tokenizer = load_pair(start, device)
    limit = min(stage.sequence_length, model.config.max_position_embeddings)
    pairs = encode_pairs(tokenizer, training_pairs(recipe, stage), limit, stage.system_prompt)
    steps = stage.steps or math.ceil(stage.epochs * len(pairs.train) / stage.pairs_per_step)
    stage = stage.model_copy(update={"steps": steps})
    left_out = f"; {pairs.too_long} longer than {limit} tokens are left out" if pairs.too_long else ""
    console = Console(stderr=True)
    StageProgress(stage.name, steps, console=console).note(
        f"{len(pairs.train)} pairs to train on, {len(pairs.heldout)} held out{left_out}; {steps} steps"
    )
    scored = counter(console, f"[{stage.name}] under the starting model")
    return Prepared(
        model, tokenizer, PreferenceTraining(model, pairs, stage, recipe.run.seed, precision, scored), stage
    )


def training_pairs(recipe: Recipe, stage: PreferenceSettings) -> PreferenceSplit:
    """The stage's pairs, those to train on checked to ask nothing that the recipe evaluates on."""
    pairs = load_preferences(stage.data, stage.heldout_path)
    asked = (turn.content for pair in pairs.train for turn in pair.prompt)
    check_apart(asked, _examined_prompts(recipe), "pairs")
    return pairs
