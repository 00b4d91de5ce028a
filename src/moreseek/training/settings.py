"""Settings of the training methods, as a recipe's ``[[stage]]`` tables spell them. No torch in here."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from moreseek.config import Settings
from moreseek.data.documents import DocumentSource
from moreseek.data.problems import ProblemSource
from moreseek.rewards.rubric import VerifierSettings

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Objective = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"]


class OptimizerSettings(Settings):
    """AdamW for everything, or Muon for hidden matrices and AdamW for the rest.

    The learning rate rises over ``warmup_steps``, stays, and falls over the last ``decay_share`` of the steps
    (all of them: 1.0) to ``final_lr_share`` of itself: linear or cosine.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(default=3e-4, gt=0)
    muon_lr: float = Field(default=0.02, gt=0)
    muon_momentum: Share = 0.95
    beta1: Share = 0.9
    beta2: Share = 0.95
    eps: float = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["linear", "cosine"] = "linear"
    decay_share: Share = 0.0
    final_lr_share: Share = 0.0


class StageSettings(Settings):
    """What every training stage has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    steps: Positive
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpoint_every_steps: Positive = 100
    keep_checkpoints: Positive = 2
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    bias_step: float = Field(default=0.0, ge=0)  # of the router bias (V3's gamma: 0.001; small models: 0.01)
    micro_batch_tokens: Positive = 16384  # tokens in one forward pass; larger batches accumulate gradients
    evaluate: bool = True


class TokenizerSettings(Settings):
    """Train a byte-level BPE tokenizer on the stage's own documents."""

    vocab_size: Positive = 4096
    training_documents: Positive = 20_000


class PretrainSettings(StageSettings):
    """Next-token training on documents, from random weights or from ``start_from``."""

    method: Literal["pretrain"]
    start_from: str | None = None
    model: dict[str, object] | None = None  # ModelConfig without vocab_size and token ids; checked when it is built
    tokenizer: TokenizerSettings | None = None
    documents: list[DocumentSource] = Field(min_length=1)
    sequence_length: Positive = 128
    batch_size: Positive = 32
    mtp_weight: float = Field(default=0.3, ge=0)
    balance_weight: float = Field(default=1e-4, ge=0)


class ReloadCall(Settings):
    """An HTTP POST that makes an outside engine read weights from a folder."""

    url: str = Field(pattern=r"^https?://")
    body: dict[str, object] = {}  # "{folder}" inside a text becomes the folder's path


class SamplerSettings(Settings):
    """An engine other than moreseek's own that samples the rollouts (docs/grpo.md, "An outside engine")."""

    engine: Literal["endpoint", "vllm"]
    url: str | None = Field(default=None, pattern=r"^https?://")
    model: str | None = None
    api_key_env: str | None = None
    at_once: Positive = 32
    timeout_s: float = Field(default=600.0, gt=0)
    body: dict[str, object] = {"return_token_ids": True, "skip_special_tokens": False}
    logprobs: Literal["raw", "sampled"] = "raw"
    options: dict[str, object] = {}
    renew_every_steps: int = Field(default=1, ge=0)
    reload: list[ReloadCall] = []
    ratio_cap: float = Field(default=2.0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "SamplerSettings":
        if self.engine == "vllm":
            return self
        if self.url is None or self.model is None:
            raise ValueError("engine = 'endpoint' needs url (http://…/v1) and model, its name there")
        if self.renew_every_steps and not self.reload:
            raise ValueError(
                "an endpoint must be told to read new weights: name the calls in [[stage.sampler.reload]], or set "
                "renew_every_steps = 0, and it samples from the weights that it has to the end"
            )
        return self


class GRPOSettings(StageSettings):
    """Group-relative policy optimisation on verifiable problems (DeepSeekMath §4, R1 §2.2)."""

    method: Literal["grpo"]
    start_from: str
    problems: ProblemSource | None = None  # default: the recipe's [problems]
    problem_count: Positive = 4096  # how many training problems to draw from the source
    system_prompt: str | None = None
    prompt_template: str = "{prompt}"
    rubric: list[VerifierSettings] = Field(default=[VerifierSettings(name="answer", verifier="problem")], min_length=1)
    prompts_per_step: Positive = 16
    group_size: int = Field(default=16, ge=2)
    max_completion_tokens: Positive = 128
    temperature: float = Field(default=1.0, gt=0)
    objective: Objective = "grpo"
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.2, gt=0)
    kl_weight: float = Field(default=0.0, ge=0)
    reference_refresh_steps: Positive | None = None
    epochs: Positive = 1  # passes over one batch of rollouts
    minibatches: Positive = 1  # optimizer updates in one pass
    dynamic_sampling: bool | None = None  # drop groups without signal and draw others; default: on for dapo
    max_sampling_rounds: Positive = 4
    mtp_weight: float = Field(default=0.0, ge=0)  # of the MTP module's own loss, which moves no other weight
    mask_truncated: bool = False  # completions cut at the limit give no gradient
    max_rows: Positive = 256  # completions sampled at once
    max_verifier_error_share: Share = 0.1
    logprob_gap_alarm: float = Field(default=0.02, gt=0)
    stop_reward: float | None = None  # end early once the mean reward of the last stop_window steps reaches it
    stop_window: Positive = 10
    sampler: SamplerSettings | None = None  # None: our own engine, on the very weights that are trained

    @model_validator(mode="after")
    def _comparable(self) -> "GRPOSettings":
        sampler = self.sampler
        if sampler and sampler.engine == "endpoint" and sampler.logprobs == "raw" and self.temperature != 1:
            raise ValueError(
                f"temperature {self.temperature:g} with sampler.logprobs = 'raw': log-probabilities from before the "
                "temperature cannot be compared with the policy's. Use temperature 1, or an endpoint that gives those "
                "of what it sampled from (vLLM: --logprobs-mode processed_logprobs) and logprobs = 'sampled'"
            )
        return self

    @field_validator("rubric")
    @classmethod
    def _distinct(cls, rubric: list[VerifierSettings]) -> list[VerifierSettings]:
        names = [verifier.name for verifier in rubric]
        if len(names) != len(set(names)):
            raise ValueError("two verifiers have the same name")
        return rubric

    @property
    def drops_silent_groups(self) -> bool:
        return self.objective == "dapo" if self.dynamic_sampling is None else self.dynamic_sampling


class PreferenceSettings(StageSettings):
    """Direct preference optimisation on pairs of answers (Rafailov et al. 2023)."""

    method: Literal["preference"]
    start_from: str
    data: str
    heldout_path: str | None = None
    system_prompt: str | None = None
    steps: Annotated[int, Field(ge=0)] = 0  # 0: as many as ``epochs`` passes take
    epochs: Positive = 1
    pairs_per_step: Positive = 32
    sequence_length: Positive = 1024  # of prompt and answer; longer pairs are left out and counted
    beta: float = Field(default=0.1, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    length_normalised: bool = False
    nll_weight: float = Field(default=0.0, ge=0)
    weight_by_votes: bool = False
    mtp_weight: float = Field(default=0.0, ge=0)  # of the MTP module's own loss, which moves no other weight
    heldout_every_steps: Positive = 50

    @model_validator(mode="after")
    def _one_length(self) -> "PreferenceSettings":
        if self.steps and "epochs" in self.model_fields_set:
            raise ValueError("steps and epochs both say how long to train: leave one out")
        return self


TrainingSettings = PretrainSettings | GRPOSettings | PreferenceSettings


class ExamineSettings(Settings):
    """Measure a model as it is: the "before" of a recipe that starts from somebody else's model."""

    method: Literal["eval"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    start_from: str
    evaluate: Literal[True] = True
