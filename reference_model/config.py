"""Settings of a run: frozen, validated, one environment variable per field; `presets` holds the named ones.

The names are the competition's own where it has one, so that published run commands work unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_type_hints

from reference_model.backends import CONV_BACKENDS, ELEMENTWISE_BACKENDS, SCAN_BACKENDS, WINDOW_BACKENDS
from reference_model.evalconfig import EvalConfig
from reference_model.settings import ConfigError, Section, Setting, format_setting, parse_setting, section_settings


@dataclass(frozen=True)
class ModelConfig(Section):
    """Shape of the network; the defaults are those of pull request 599."""

    vocab_size: Annotated[int, Setting("VOCAB_SIZE", 2, 1 << 17)] = 1024
    num_layers: Annotated[int, Setting("NUM_LAYERS", 1, 256)] = 7
    model_dim: Annotated[int, Setting("MODEL_DIM", 8, 1 << 14)] = 512
    num_heads: Annotated[int, Setting("NUM_HEADS", 1, 256)] = 8
    num_kv_heads: Annotated[int, Setting("NUM_KV_HEADS", 1, 256)] = 4
    mlp_mult: Annotated[int, Setting("MLP_MULT", 1, 64)] = 4
    # 0: MLP_MULT times the width.
    mlp_hidden: Annotated[int, Setting("MLP_HIDDEN", 0, 1 << 20)] = 0
    activation: Annotated[str, Setting("ACTIVATION", choices=("relu2", "leaky_relu2", "silu"))] = "relu2"
    leaky_relu_slope: Annotated[float, Setting("LEAKY_RELU_SLOPE", 0, 1)] = 0.9
    tie_embeddings: Annotated[bool, Setting("TIE_EMBEDDINGS")] = True
    tied_embed_init_std: Annotated[float, Setting("TIED_EMBED_INIT_STD", 1e-6, 10)] = 0.005
    use_smeargate: Annotated[bool, Setting("USE_SMEARGATE")] = True
    use_bigram_hash: Annotated[bool, Setting("USE_BIGRAM_HASH")] = True
    bigram_buckets: Annotated[int, Setting("BIGRAM_BUCKETS", 1, 1 << 24)] = 4096
    bigram_dim: Annotated[int, Setting("BIGRAM_HASH_DIM", 1, 1 << 14)] = 128
    use_unet_skips: Annotated[bool, Setting("USE_UNET_SKIPS")] = True
    use_hymba: Annotated[bool, Setting("USE_HYMBA")] = True
    # Off: hybrid layers scan alone.
    use_attention: Annotated[bool, Setting("USE_ATTENTION")] = True
    # None (auto): all. Layers beyond the last are left out, as in pull request 1961.
    hybrid_layers: Annotated[tuple[int, ...] | None, Setting("HYMBA_LAYERS", 0, 255)] = None
    # How attention and scan meet: a learned weight (#599), side by side as heads (#1961), a mean of norms (the paper).
    fusion: Annotated[str, Setting("HYMBA_FUSION", choices=("weight", "heads", "norms"))] = "weight"
    meta_tokens: Annotated[int, Setting("HYMBA_META_TOK", 0, 4_096)] = 0
    kv_share: Annotated[bool, Setting("HYMBA_KV_SHARE")] = False
    # Shared: one matrix for query and output, one for key and value, as in the records script of pull request 852.
    banks: Annotated[str, Setting("PARAMETER_BANKS", choices=("none", "separate", "shared"))] = "none"
    fused_projection: Annotated[bool, Setting("FUSED_PROJECTION")] = True
    separate_kv: Annotated[bool, Setting("SEPARATE_KV")] = False
    hymba_expand: Annotated[int, Setting("HYMBA_EXPAND", 1, 16)] = 1
    # Mamba's scan, whose weights depend on the input, or S4D-Lin (arXiv:2206.11893), one long filter for each channel.
    ssm_kind: Annotated[str, Setting("HYMBA_SSM_KIND", choices=("selective", "s4d_lin"))] = "selective"
    ssm_state: Annotated[int, Setting("HYMBA_SSM_STATE", 1, 256)] = 8
    conv_width: Annotated[int, Setting("HYMBA_CONV_KERNEL", 1, 64)] = 4
    dt_rank: Annotated[int, Setting("HYMBA_DT_RANK", 0, 1 << 14)] = 0
    scan_chunk: Annotated[int, Setting("HYMBA_SCAN_CHUNK", 1, 1 << 14)] = 64
    # How things are computed, not what: docs/backends.md.
    scan_backend: Annotated[str, Setting("HYMBA_SCAN_BACKEND", choices=SCAN_BACKENDS)] = "torch"
    conv_backend: Annotated[str, Setting("HYMBA_CONV_BACKEND", choices=CONV_BACKENDS)] = "torch"
    window_backend: Annotated[str, Setting("SLIDING_WINDOW_BACKEND", choices=WINDOW_BACKENDS)] = "auto"
    elementwise_backend: Annotated[str, Setting("ELEMENTWISE_BACKEND", choices=ELEMENTWISE_BACKENDS)] = "torch"
    sliding_window: Annotated[int, Setting("SLIDING_WINDOW", 0, 1 << 24)] = 0
    global_layers: Annotated[tuple[int, ...] | None, Setting("SWA_GLOBAL_LAYERS", 0, 255)] = ()
    rope_base: Annotated[float, Setting("ROPE_BASE", 1, 1e9)] = 10_000.0
    # 0: the whole head.
    rope_dims: Annotated[int, Setting("ROPE_DIMS", 0, 1 << 14)] = 0
    # 0: none.
    logit_softcap: Annotated[float, Setting("LOGIT_SOFTCAP", 0, 1e6)] = 30.0
    qk_gain_init: Annotated[float, Setting("QK_GAIN_INIT", 0, 1e3)] = 1.5

    def check_together(self) -> None:
        """Heads must divide the width, key/value heads the heads; rotary embedding needs an even head."""
        if self.model_dim % (2 * self.num_heads):
            raise ConfigError(f"MODEL_DIM: {self.model_dim} is not a multiple of 2 * NUM_HEADS ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"NUM_KV_HEADS: {self.num_kv_heads} does not divide NUM_HEADS ({self.num_heads})")
        if any(not 0 <= layer < self.num_layers for layer in self.global_layers or ()):
            layers = format_setting(self.global_layers)
            raise ConfigError(f"SWA_GLOBAL_LAYERS: {layers} is outside the {self.num_layers} layers")
        if self.rope_dims % 2 or self.rope_dims > self.head_dim:
            raise ConfigError(f"ROPE_DIMS: {self.rope_dims} is no even part of a head of {self.head_dim}")
        self.check_hybrid()

    def check_hybrid(self) -> None:
        """What the ways of joining attention and scan ask of the other settings."""
        if self.fusion == "heads" and self.num_heads % (2 * self.num_kv_heads):
            heads = f"half of NUM_HEADS ({self.num_heads})"
            raise ConfigError(f"HYMBA_FUSION: {heads} is no multiple of NUM_KV_HEADS ({self.num_kv_heads})")
        if self.fusion == "norms" and self.hymba_expand != 1:
            raise ConfigError(f"HYMBA_FUSION: norms need branches of one width, HYMBA_EXPAND is {self.hymba_expand}")
        if self.banks != "none" and (self.fusion == "heads" or self.kv_share):
            raise ConfigError(f"PARAMETER_BANKS: {self.banks} excludes HYMBA_FUSION=heads and HYMBA_KV_SHARE=1")
        self.check_banks()
        self.check_kinds()

    def check_banks(self) -> None:
        """Banks have a place for each role of a matrix: one that makes several things at once has none.

        Where query and output are one matrix, hybrid layers have projections of their own (see `SharedMatrixMixer`).
        """
        hybrid = [self.is_hybrid(layer) for layer in range(self.num_layers)]
        separate = self.banks == "separate"
        needed = ["FUSED_PROJECTION=0"] * (separate and any(hybrid) and self.fused_projection)
        needed += ["SEPARATE_KV=1"] * ((separate or not all(hybrid)) and not self.separate_kv)
        if self.banks != "none" and needed:
            raise ConfigError(f"PARAMETER_BANKS: {self.banks} needs {' and '.join(needed)}")

    def check_kinds(self) -> None:
        """What a scan alone, and a long filter, ask of the other settings."""
        plain = self.fusion == "weight" and self.banks == "none"
        if not self.use_attention and not (plain and self.use_hymba and self.hymba_expand == 1 and not self.kv_share):
            needed = "HYMBA_FUSION=weight, HYMBA_EXPAND=1, no PARAMETER_BANKS and no HYMBA_KV_SHARE"
            raise ConfigError(f"USE_ATTENTION: 0 needs USE_HYMBA=1, {needed}")
        if self.ssm_kind != "selective" and not (plain and self.use_attention):
            raise ConfigError(f"HYMBA_SSM_KIND: {self.ssm_kind} needs HYMBA_FUSION=weight and no PARAMETER_BANKS")
        if self.ssm_kind != "selective" and self.ssm_state % 2:
            raise ConfigError(f"HYMBA_SSM_STATE: {self.ssm_state} is odd, the states of s4d_lin come in pairs")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.model_dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        """Width between the two matrices of an MLP."""
        return self.mlp_hidden or self.mlp_mult * self.model_dim

    @property
    def ssm_dim(self) -> int:
        """Channels of the Mamba branch."""
        return self.hymba_expand * self.model_dim

    @property
    def ssm_dt_rank(self) -> int:
        """Rank of the step-size projection: dim / 16 unless given."""
        return self.dt_rank or max(self.model_dim // 16, 1)

    @property
    def rotary_dims(self) -> int:
        """Width of the part of a head that is rotated."""
        return self.rope_dims or self.head_dim

    def is_global(self, layer: int) -> bool:
        """Whether a layer is exempt from the window (first, middle, last under `auto`)."""
        automatic = (0, self.num_layers // 2, self.num_layers - 1)
        return layer in (automatic if self.global_layers is None else self.global_layers)

    def layer_window(self, layer: int) -> int:
        """Attention window of a layer in tokens; 0 sees every earlier token."""
        return 0 if self.is_global(layer) else self.sliding_window

    def is_hybrid(self, layer: int) -> bool:
        """Whether a layer has a scan beside its attention."""
        return self.use_hymba and (self.hybrid_layers is None or layer in self.hybrid_layers)

    def attends(self, layer: int) -> bool:
        """Whether a layer has attention: all but those that scan alone."""
        return self.use_attention or not self.is_hybrid(layer)

    def kv_source(self, layer: int) -> int:
        """The layer whose keys and values a layer uses: itself, or a neighbour before it when they are shared.

        In a run of hybrid layers joined by heads all share with the first (#1961); otherwise neighbours of one window
        share in pairs, as in NVlabs' models.
        """
        before = layer - 1
        if not (self.kv_share and before >= 0 and self.is_hybrid(layer) and self.is_hybrid(before)):
            return layer
        source = self.kv_source(before)
        if self.fusion == "heads":
            return source
        return before if source == before and not (self.is_global(before) or self.is_global(layer)) else layer


@dataclass(frozen=True)
class OptimConfig(Section):
    """Learning rates and constants of Muon (matrices) and Adam (everything else)."""

    matrix_lr: Annotated[float, Setting("MATRIX_LR", 0, 100)] = 0.02
    scalar_lr: Annotated[float, Setting("SCALAR_LR", 0, 100)] = 0.02
    embed_lr: Annotated[float, Setting("EMBED_LR", 0, 100)] = 0.6
    tied_embed_lr: Annotated[float, Setting("TIED_EMBED_LR", 0, 100)] = 0.05
    head_lr: Annotated[float, Setting("HEAD_LR", 0, 100)] = 0.008
    muon_momentum: Annotated[float, Setting("MUON_MOMENTUM", 0, 0.9999)] = 0.95
    muon_backend_steps: Annotated[int, Setting("MUON_BACKEND_STEPS", 1, 100)] = 5
    muon_momentum_warmup_start: Annotated[float, Setting("MUON_MOMENTUM_WARMUP_START", 0, 0.9999)] = 0.85
    muon_momentum_warmup_steps: Annotated[int, Setting("MUON_MOMENTUM_WARMUP_STEPS", 0, 10**9)] = 500
    # Each process orthogonalizes a share of the matrices (parallel Muon, pull request 852).
    muon_sharded: Annotated[bool, Setting("MUON_SHARDED")] = False
    beta1: Annotated[float, Setting("BETA1", 0, 0.99999)] = 0.9
    beta2: Annotated[float, Setting("BETA2", 0, 0.99999)] = 0.95
    adam_eps: Annotated[float, Setting("ADAM_EPS", 1e-16, 1)] = 1e-8
    weight_decay: Annotated[float, Setting("WEIGHT_DECAY", 0, 10)] = 0.02
    grad_clip_norm: Annotated[float, Setting("GRAD_CLIP_NORM", 0, 1e9)] = 0.0


@dataclass(frozen=True)
class TrainConfig(Section):
    """Length, batch and schedule of training. Without a wallclock limit (0) the run has exactly `iterations` steps."""

    seed: Annotated[int, Setting("SEED", 0, (1 << 63) - 1)] = 1337
    iterations: Annotated[int, Setting("ITERATIONS", 0, 10**9)] = 20_000
    warmup_steps: Annotated[int, Setting("WARMUP_STEPS", 0, 10**6)] = 20
    warmdown_iters: Annotated[int, Setting("WARMDOWN_ITERS", 0, 10**9)] = 3_000
    # Above 0: the warmdown is this share of the run, instead of a number of steps.
    warmdown_frac: Annotated[float, Setting("WARMDOWN_FRAC", 0, 1)] = 0.0
    warmdown_shape: Annotated[str, Setting("WARMDOWN_SHAPE", choices=("linear", "cosine"))] = "cosine"
    train_batch_tokens: Annotated[int, Setting("TRAIN_BATCH_TOKENS", 1, 1 << 32)] = 524_288
    train_seq_len: Annotated[int, Setting("TRAIN_SEQ_LEN", 1, 1 << 24)] = 2_048
    max_wallclock_seconds: Annotated[float, Setting("MAX_WALLCLOCK_SECONDS", 0, 1e9)] = 600.0
    train_log_every: Annotated[int, Setting("TRAIN_LOG_EVERY", 0, 10**9)] = 200
    val_loss_every: Annotated[int, Setting("VAL_LOSS_EVERY", 0, 10**9)] = 1_000
    ema_decay: Annotated[float, Setting("EMA_DECAY", 0, 0.999999)] = 0.997
    ema_every: Annotated[int, Setting("EMA_EVERY", 1, 10**6)] = 1
    # 0: eight micro-batches shared by the processes, as in the competition's baseline.
    grad_accum_steps: Annotated[int, Setting("GRAD_ACCUM_STEPS", 0, 10**6)] = 0
    # Share of the run after which gradients are taken at the weights as QUANT_BITS would store them; 1: never.
    qat_start: Annotated[float, Setting("QAT_START", 0, 1)] = 1.0
    # 0: never.
    checkpoint_every: Annotated[int, Setting("CHECKPOINT_EVERY", 0, 10**9)] = 0
    resume: Annotated[bool, Setting("RESUME")] = False

    def check_together(self) -> None:
        """A batch holds whole sequences."""
        if self.train_batch_tokens % self.train_seq_len:
            tokens, length = self.train_batch_tokens, self.train_seq_len
            raise ConfigError(f"TRAIN_BATCH_TOKENS: {tokens} is not a multiple of TRAIN_SEQ_LEN ({length})")


@dataclass(frozen=True)
class QuantConfig(Section):
    """How weights are stored."""

    bits: Annotated[int, Setting("QUANT_BITS", choices=(4, 6, 8))] = 6
    # 0: as QUANT_BITS.
    mlp_bits: Annotated[int, Setting("QUANT_BITS_MLP", choices=(0, 4, 6, 8))] = 0
    # Of the tables by token: embeddings, head, bigrams.
    embed_bits: Annotated[int, Setting("QUANT_BITS_EMBED", choices=(0, 4, 6, 8))] = 0
    # The token embeddings in float16, as the scripts of #599, #914 and #1245 keep them.
    fp16_embed: Annotated[bool, Setting("FP16_EMBED")] = False
    clip_search: Annotated[bool, Setting("GPTQ_LITE")] = True
    scale_floor: Annotated[str, Setting("QUANT_SCALE_FLOOR", choices=("none", "published"))] = "none"
    keep_float_max_numel: Annotated[int, Setting("QUANT_KEEP_FLOAT_MAX_NUMEL", 0, 1 << 32)] = 65_536
    # gptq: matrices are rounded for the inputs that they get on some text, in the last part of the training time.
    method: Annotated[str, Setting("QUANT_METHOD", choices=("nearest", "gptq"))] = "nearest"
    # That text: of the train shards, or drawn from the model itself.
    gptq_calibration: Annotated[str, Setting("GPTQ_CALIBRATION", choices=("train", "self"))] = "train"
    gptq_tokens: Annotated[int, Setting("GPTQ_TOKENS", 1, 1 << 32)] = 131_072
    gptq_reserve_seconds: Annotated[float, Setting("GPTQ_RESERVE_SECONDS", 0, 1e9)] = 10.0
    gptq_damping: Annotated[float, Setting("GPTQ_DAMPING", 1e-9, 1e3)] = 0.01
    gptq_activity_order: Annotated[bool, Setting("GPTQ_ACT_ORDER")] = True
    # auto: the smallest of all. brotli and ans need packages of these names (constriction for ans) wherever it is read.
    coder: Annotated[str, Setting("COMPRESSOR", choices=("zstd", "brotli", "ans", "auto"))] = "zstd"
    zstd_level: Annotated[int, Setting("ZSTD_LEVEL", 1, 22)] = 22


@dataclass(frozen=True)
class DataConfig(Section):
    """Where data is read and results are written."""

    data_path: Annotated[str, Setting("DATA_PATH")] = "./data/datasets/fineweb10B_sp1024"
    tokenizer_path: Annotated[str, Setting("TOKENIZER_PATH")] = "./data/tokenizers/fineweb_1024_bpe.model"
    run_id: Annotated[str, Setting("RUN_ID")] = "run"
    # Empty: final_model.int{bits}.ptz.
    artifact_path: Annotated[str, Setting("ARTIFACT_PATH")] = ""
    weights_path: Annotated[str, Setting("WEIGHTS_PATH")] = "final_model.pt"
    checkpoint_path: Annotated[str, Setting("CHECKPOINT_PATH")] = "checkpoint.pt"


@dataclass(frozen=True)
class Config:
    """Everything that determines a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        frozen, layers = self.evaluation.ttt_freeze_blocks, self.model.num_layers
        if frozen > layers:
            raise ConfigError(f"TTT_FREEZE_BLOCKS: {frozen} is more than NUM_LAYERS ({layers})")
        if self.evaluation.has_adapters and self.evaluation.ttt_chunk_size > self.eval_seq_len:
            size = self.evaluation.ttt_chunk_size
            raise ConfigError(f"TTT_CHUNK_SIZE: {size} is longer than the {self.eval_seq_len} of a window")
        attending = (layer for layer in range(layers) if self.model.attends(layer))
        unbounded = any(self.model.layer_window(layer) == 0 for layer in attending)
        if self.evaluation.eval_carry and not self.evaluation.isolates and unbounded:
            raise ConfigError("EVAL_CARRY_STATE: a layer without SLIDING_WINDOW would keep the whole text")
        if self.evaluation.eval_stride > self.eval_seq_len:
            raise ConfigError(
                f"EVAL_STRIDE: {self.evaluation.eval_stride} is longer than the {self.eval_seq_len} scored"
            )

        limit_s, reserved_s = self.train.max_wallclock_seconds, self.quant.gptq_reserve_seconds
        if self.quant.method == "gptq" and 0 < limit_s <= reserved_s:
            raise ConfigError(f"GPTQ_RESERVE_SECONDS: {reserved_s:g} leaves none of {limit_s:g} s for training")

    @property
    def schedule(self) -> TrainConfig:
        """Training as long as calibration leaves time for it."""
        limit_s = self.train.max_wallclock_seconds
        if self.quant.method != "gptq" or not limit_s:
            return self.train
        return replace(self.train, max_wallclock_seconds=limit_s - self.quant.gptq_reserve_seconds)

    @property
    def eval_seq_len(self) -> int:
        """Length of evaluated sequences in tokens."""
        return self.evaluation.eval_seq_len or self.train.train_seq_len

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], base: Config) -> Config:
        """Apply the environment variables that are set to a preset.

        `LEAKY_RELU_SLOPE` alone selects the leaky activation, and `HYMBA_ENABLED` is another name of `USE_HYMBA`, as in
        the published run commands.

        Raises:
            ConfigError: a value does not parse or is out of range; the message begins with its name.

        """
        changes: dict[str, dict[str, Any]] = {}
        for section, name, setting, kind in config_settings():
            if setting.name in environ:
                changes.setdefault(section, {})[name] = parse_setting(setting, kind, environ[setting.name])
        if "LEAKY_RELU_SLOPE" in environ and "ACTIVATION" not in environ:
            changes["model"]["activation"] = "leaky_relu2"
        if "HYMBA_ENABLED" in environ:
            enabled = parse_setting(Setting("HYMBA_ENABLED"), bool, environ["HYMBA_ENABLED"])
            changes.setdefault("model", {}).setdefault("use_hymba", enabled)
        return replace(base, **{section: replace(getattr(base, section), **new) for section, new in changes.items()})

    def to_environment(self) -> dict[str, str]:
        """Environment that reproduces this configuration, in a fixed order: what a log prints."""
        return {
            setting.name: format_setting(getattr(getattr(self, section), name))
            for section, name, setting, _ in config_settings()
        }


def config_settings() -> Iterator[tuple[str, str, Setting, object]]:
    """Yield (section, field, Setting, type) of every setting."""
    for section, section_type in get_type_hints(Config).items():
        for name, (setting, kind) in section_settings(section_type).items():
            yield section, name, setting, kind
