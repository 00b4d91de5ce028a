"""Reading and writing models: Hugging Face folders and .gguf files in, folders out. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.folder import INDEX, WEIGHTS, FolderTensors, save_tensors
from moreseek.model.folder import read_tensors as read_tensors
from moreseek.model.gguf import GGUFTensors, open_gguf
from moreseek.model.slots import EMBEDDING, HEAD, Slot, is_routing_bias, slots
from moreseek.model.transformer import Transformer


def save_model(model: Transformer, folder: Path | str, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors, loadable by transformers and vLLM unmodified.

    Only files are added; the tokenizer is saved beside them by its owner.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    tensors = {}
    for key, tensor in export_tensors(model):
        keep_fp32 = is_routing_bias(key)
        tensors[key] = tensor.detach().to("cpu", torch.float32 if keep_fp32 else dtype).contiguous()
    save_tensors(tensors, folder / WEIGHTS)
    (folder / INDEX).unlink(missing_ok=True)  # of shards that were there before
    write_config(folder, model.config, name)


def write_config(folder: Path, config: ModelConfig, dtype: str) -> None:
    """Write config.json and generation_config.json. ``dtype`` is the weights', as torch names it: float32, …."""
    (folder / "config.json").write_text(json.dumps(config.to_hf(dtype), indent=2) + "\n", encoding="utf-8")
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    generation |= {"pad_token_id": config.pad_token_id}
    text = json.dumps({key: value for key, value in generation.items() if value is not None}, indent=2) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")


def load_model(path: Path | str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Transformer:
    """Load a Hugging Face folder or a .gguf file as a module: model(ids: (B, T) int64) → logits (B, T, V).

    Raises InputError for a missing or corrupt file, a pickle, an unknown architecture, or shapes that do not fit.
    """
    config, tensors = open_weights(Path(path))
    return from_tensors(config, tensors, str(path), dtype=dtype, device=device)


def open_weights(path: Path) -> tuple[ModelConfig, FolderTensors | GGUFTensors]:
    """The shape of a folder's or .gguf file's model, and its tensors by Hugging Face's names, none of them read yet."""
    if path.suffix == ".gguf":
        return open_gguf(path)
    return open_folder(path)


def open_folder(folder: Path) -> tuple[ModelConfig, FolderTensors]:
    """A Hugging Face folder's shape and its tensors, none of them read yet. They are checked to fit one another."""
    config, tensors = ModelConfig.load(folder), FolderTensors(folder)
    if config.num_nextn_predict_layers and f"model.layers.{config.num_hidden_layers}.eh_proj.weight" not in tensors:
        config = config.model_copy(update={"num_nextn_predict_layers": 0})  # transformers drops MTP when it saves
    routed = max(0, config.num_hidden_layers - config.first_k_dense_replace) if config.is_deepseek else 0
    wanted = config.num_hidden_layers + routed * config.n_routed_experts
    if wanted > len(tensors):  # before a model of that many modules is even sketched
        raise InputError(
            f"{folder}: the weights do not fit config.json: {config.num_hidden_layers} layers need at least {wanted} "
            f"tensors, and there are {len(tensors)}."
        )
    with torch.device("meta"):
        _check_fit(Transformer(config), tensors.shapes, str(folder))
    return config, tensors


def from_tensors(
    config: ModelConfig, tensors: Mapping[str, Tensor], where: str, dtype: torch.dtype, device: torch.device | str
) -> Transformer:
    """Build a model from tensors under Hugging Face's names. Raises InputError naming what is missing or misshapen."""
    model = Transformer(config)  # its weights are memory that nobody has touched yet
    import_tensors(model, tensors, where)
    return cast(model, dtype).to(device).eval()  # short first: half the room on the way to a GPU


def cast(model: Transformer, dtype: torch.dtype) -> Transformer:
    """Change the weights' precision; rope frequencies and the router's bias stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def export_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor) of every weight, MTP with its tied copies of embedding and head."""
    for slot in slots(model):
        yield slot.name, slot.view.reshape(slot.shape)
    weights = {EMBEDDING: model.embed_tokens.weight, HEAD: model.head}
    for copy, name in tied_copies(model.config).items():
        yield copy, weights[name].clone()


def tied_copies(config: ModelConfig) -> dict[str, str]:
    """The MTP block's copies of embedding and head, as checkpoints have them, and the weight that each is a copy of."""
    if not config.num_nextn_predict_layers:
        return {}
    prefix, embedding = f"model.layers.{config.num_hidden_layers}.", EMBEDDING
    head = embedding if config.tie_word_embeddings else HEAD
    return {f"{prefix}embed_tokens.weight": embedding, f"{prefix}shared_head.head.weight": head}


@torch.no_grad()
def import_tensors(model: Transformer, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill the model in place. Raises InputError that names what is missing or misshapen."""
    if isinstance(tensors, dict):
        _check_fit(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, where)
    fill(slots(model), tensors)


@torch.no_grad()
def fill(wanted: Iterable[Slot], tensors: Mapping[str, Tensor]) -> None:
    """Read what belongs there; what has no tensor is 0."""
    for name, view, _ in wanted:
        if name in tensors:
            view.copy_(tensors[name].reshape(view.shape))
        else:
            view.zero_()


def _check_fit(model: Transformer, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise InputError that names what is missing or misshapen; only the router's bias may be absent (it is 0 then)."""
    problems: list[str] = []
    for name, _, shape in slots(model):
        found = shapes.get(name)
        if found is None and not is_routing_bias(name):
            problems.append(f"{name} is missing")
        elif found is not None and found != shape:
            problems.append(f"{name} is {found}, config.json asks for {shape}")
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InputError(f"{where}: the weights do not fit config.json: {shown}.")
