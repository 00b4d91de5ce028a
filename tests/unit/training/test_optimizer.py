"""The schedule, Muon and AdamW, and an optimizer state that survives a file under parameter names."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import build
from moreseek.training.optimizer import Muon, Optimizers, lr_factor, orthogonalise
from moreseek.training.settings import OptimizerSettings

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 4,
    "moe_intermediate_size": 8, "num_nextn_predict_layers": 1,
}  # fmt: skip


@pytest.fixture
def model():
    return build(ModelConfig.model_validate(SHAPE), seed=1)


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


# --- schedule ----------------------------------------------------------------------------------------------------


def test_warm_up_stable_and_linear_decay():
    settings = OptimizerSettings(warmup_steps=4, decay_share=0.4)
    factors = [lr_factor(step, 10, settings) for step in range(1, 11)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine_decay_to_a_share():
    settings = OptimizerSettings(decay="cosine", decay_share=1.0, final_lr_share=0.1)
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(1, 5)]
    assert [lr_factor(step, 4, settings) for step in range(1, 5)] == pytest.approx(expected)


def test_without_warm_up_or_decay_the_rate_is_constant():
    assert {lr_factor(step, 7, OptimizerSettings()) for step in range(1, 8)} == {1.0}


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 30])
def test_no_step_is_wasted_on_a_rate_of_zero_and_none_exceeds_the_peak(decay, warmup):
    settings = OptimizerSettings(warmup_steps=warmup, decay=decay, decay_share=0.5)
    factors = [lr_factor(step, 20, settings) for step in range(1, 21)]
    assert all(0 < factor <= 1 for factor in factors)


# --- Muon --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 8, 40), (3, 40, 8), (1, 64, 64)])
def test_orthogonalise_pushes_singular_values_towards_one(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape) * 1e-3))
    assert values.max() < 1.3
    assert values.median() > 0.65


def test_orthogonalise_keeps_the_singular_vectors():
    matrix = torch.randn(1, 12, 20)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.mT @ orthogonalise(matrix) @ vh.mT  # diagonal, if the vectors are the same
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


def test_orthogonalise_a_batch_equals_one_by_one():
    stack = torch.randn(5, 6, 9) * torch.tensor([1e-4, 1.0, 7.0, 0.1, 50.0]).view(-1, 1, 1)
    for matrix, together in zip(stack, orthogonalise(stack), strict=True):
        torch.testing.assert_close(orthogonalise(matrix[None])[0], together, atol=1e-5, rtol=1e-4)


def test_orthogonalise_of_zero_is_zero():
    assert not orthogonalise(torch.zeros(2, 4, 6)).any()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 6, 9)])
def test_muon_equals_one_matrix_at_a_time(shape):
    """Three parameters of one shape (a stack of experts is many matrices), three steps, plain formulas."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    plain = [p.detach().clone().view(-1, *shape[-2:]) for p in parameters]
    momentum = [torch.zeros_like(p) for p in plain]
    muon = Muon(parameters, lr=0.1, momentum=0.9, weight_decay=0.2)
    for _ in range(3):
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.randn(shape)
            for i, gradient in enumerate(parameter.grad.view_as(plain[index])):
                momentum[index][i] = 0.9 * momentum[index][i] + 0.1 * gradient
                update = orthogonalise((0.1 * gradient + 0.9 * momentum[index][i])[None])[0]
                scale = max(1.0, shape[-2] / shape[-1]) ** 0.5
                plain[index][i] = plain[index][i] * (1 - 0.1 * 0.2) - 0.1 * scale * update
        muon.step()
    for parameter, expected in zip(parameters, plain, strict=True):
        torch.testing.assert_close(parameter.detach().view_as(expected), expected, atol=1e-5, rtol=1e-4)


def test_muon_lowers_a_quadratic():
    target, weight = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    muon = Muon([weight], lr=0.05, momentum=0.9, weight_decay=0.0)
    losses = []
    for _ in range(150):
        loss = (weight - target).square().sum()
        weight.grad = None
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# --- which parameter goes where ----------------------------------------------------------------------------------


def test_muon_takes_hidden_matrices_and_adamw_the_rest(model):
    optimizers = Optimizers(model, OptimizerSettings(name="muon"), CPU)
    (adamw, _), (muon, _) = optimizers.parts
    by_muon = {optimizers.names[p] for group in muon.param_groups for p in group["params"]}
    by_adamw = {optimizers.names[p] for group in adamw.param_groups for p in group["params"]}
    assert by_muon.isdisjoint(by_adamw)
    assert by_muon | by_adamw == {name for name, _ in model.named_parameters()}
    assert {"embed_tokens.weight", "lm_head.weight", "layers.1.mlp.gate.weight", "norm.weight"} <= by_adamw
    assert {"layers.1.mlp.experts.gate_up_proj", "mtp.eh_proj.weight", "layers.0.self_attn.o_proj.weight"} <= by_muon
    assert "mtp.block.mlp.gate.weight" in by_adamw
    assert not {name for name in by_muon if "norm" in name or name.endswith("bias")}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_norms_are_not_decayed(model, name):
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizers = Optimizers(model, OptimizerSettings(name=name, lr=0.1, muon_lr=0.1, weight_decay=0.5), CPU)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(1.0)
    for n, parameter in model.named_parameters():
        expected = before[n] * (0.95 if parameter.dim() >= 2 else 1.0)
        torch.testing.assert_close(parameter.detach(), expected, msg=lambda m, n=n: f"{n}: {m}")


def test_the_factor_scales_both_learning_rates_and_gradients_are_cleared(model):
    optimizers = Optimizers(model, OptimizerSettings(name="muon", lr=0.01, muon_lr=0.2), CPU)
    give_gradients(model, 1)
    optimizers.step(0.5)
    assert [group["lr"] for part, _ in optimizers.parts for group in part.param_groups] == [0.005, 0.005, 0.1]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_adamw_equals_the_formula():
    model = torch.nn.Linear(3, 2)
    weight = model.weight.detach().double().clone()
    settings = OptimizerSettings(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.1)
    optimizers = Optimizers(model, settings, CPU)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 4):
        give_gradients(model, step)
        gradient = model.weight.grad.double().clone()
        optimizers.step(1.0)
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        update = (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-6)
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * update
    torch.testing.assert_close(model.weight.detach().double(), weight, atol=1e-6, rtol=1e-5)


# --- state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_goes_through_a_file_by_name_and_continues_bit_for_bit(model, name, tmp_path):
    settings = OptimizerSettings(name=name, weight_decay=0.1)
    optimizers = Optimizers(model, settings, CPU)
    for step in range(3):
        give_gradients(model, step)
        optimizers.step(1.0)
    save_file({key: value.contiguous() for key, value in optimizers.state()}, tmp_path / "state.safetensors")
    other = build(model.config, seed=2)
    other.load_state_dict(model.state_dict())
    resumed = Optimizers(other, settings, CPU)
    resumed.load_state(load_file(tmp_path / "state.safetensors"))
    for step in range(3, 6):
        for each, part in ((model, optimizers), (other, resumed)):
            give_gradients(each, step)
            part.step(0.7)
    for (n, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), n
    mine, theirs = dict(optimizers.state()), dict(resumed.state())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize(("device", "expected"), [("cuda", "meta"), ("xpu", "meta"), ("mps", "cpu")])
def test_a_loaded_step_count_lies_where_adamw_counts_on(model, device, expected):
    """Fused kernels read the count on their own device; the plain ones count on the CPU. A GPU's pointer to the CPU's
    memory ends the process. (Parameters on "meta" stand for those of the accelerator.)
    """
    count = {f"{name}/step": torch.tensor(3.0) for name, _ in model.named_parameters()}
    optimizers = Optimizers(model.to("meta"), OptimizerSettings(), torch.device(device))
    optimizers.load_state(count)
    assert {part.state[p]["step"].device.type for part, _ in optimizers.parts for p in part.state} == {expected}


def test_loaded_state_is_a_copy(model):
    settings = OptimizerSettings()
    optimizers = Optimizers(model, settings, CPU)
    give_gradients(model, 0)
    optimizers.step(1.0)
    saved = {key: value.clone() for key, value in optimizers.state()}
    kept = {key: value.clone() for key, value in saved.items()}
    resumed = Optimizers(model, settings, CPU)
    resumed.load_state(saved)
    give_gradients(model, 1)
    resumed.step(1.0)
    assert all(torch.equal(saved[key], kept[key]) for key in kept)


def test_state_names_are_parameter_names(model):
    optimizers = Optimizers(model, OptimizerSettings(name="muon"), CPU)
    assert dict(optimizers.state()) == {}
    give_gradients(model, 0)
    optimizers.step(1.0)
    names = dict(optimizers.state()).keys()
    assert {"embed_tokens.weight/exp_avg", "embed_tokens.weight/exp_avg_sq", "embed_tokens.weight/step"} <= names
    assert "layers.0.self_attn.o_proj.weight/momentum" in names
