"""Named settings: the demo's, and one for each published Hymba, parameter for parameter.

docs/presets.md sets them beside the published figures and says where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from reference_model.config import Config, EvalConfig, ModelConfig, OptimConfig, QuantConfig, TrainConfig

# Chosen in docs/demo-tuning.md: within a minute on two cores, speed and cheap bigrams count for more than depth.
DEMO_MODEL = ModelConfig(
    num_layers=2,
    model_dim=128,
    num_heads=4,
    num_kv_heads=2,
    mlp_mult=3,
    ssm_state=4,
    bigram_buckets=65_536,
    bigram_dim=32,
    # As long as the training sequences: plain causal attention in training, a window that binds in longer evaluation.
    sliding_window=128,
)
DEMO_OPTIM = OptimConfig(tied_embed_lr=0.02)
DEMO_TRAIN = TrainConfig(
    warmup_steps=2,
    warmdown_frac=0.7,
    train_batch_tokens=1_024,
    train_seq_len=128,
    max_wallclock_seconds=60.0,
    train_log_every=20,
    val_loss_every=0,
    ema_decay=0.8,
    grad_accum_steps=1,
)
# Its matrices are small: all of them are stored as integers, not only those above 65,536 elements.
DEMO_QUANT = QuantConfig(keep_float_max_numel=4_096)
DEMO_EVALUATION = EvalConfig(
    eval_stride=0,
    # Small enough that the logits stay in a processor's cache.
    eval_batch_seqs=8,
    eval_seq_len=512,
    val_batch_size=16_384,
    ttt_enabled=True,
    ttt_lr=0.4,
    ttt_momentum=0.8,
    ttt_epochs=1,
    ttt_chunk_tokens=2_048,
    ttt_batch_seqs=4,
)

PRESETS: Mapping[str, Config] = MappingProxyType(
    {
        # A laptop's CPU, a minute, the demo corpus.
        "demo": Config(
            model=DEMO_MODEL,
            optim=DEMO_OPTIM,
            train=DEMO_TRAIN,
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        # The plain transformer to compare it with: attention only, no bigrams, no smearing, its usual batch.
        "demo_attention": Config(
            model=ModelConfig(
                num_layers=4,
                model_dim=128,
                num_heads=4,
                use_hymba=False,
                use_bigram_hash=False,
                use_smeargate=False,
                sliding_window=256,
            ),
            optim=DEMO_OPTIM,
            train=replace(DEMO_TRAIN, train_batch_tokens=2_048, train_seq_len=256),
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        "pr599": Config(),
        "pr914": Config(
            model=ModelConfig(activation="leaky_relu2", fused_projection=False, sliding_window=512),
            train=TrainConfig(train_seq_len=32_768),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_freeze_blocks=2),
        ),
        "pr1245": Config(
            model=ModelConfig(
                num_layers=8,
                activation="leaky_relu2",
                fused_projection=False,
                sliding_window=1_024,
                ssm_state=4,
                tie_embeddings=False,
            ),
            optim=OptimConfig(weight_decay=0.15),
            train=TrainConfig(train_seq_len=32_768, warmdown_iters=7_000, ema_every=10, grad_accum_steps=1),
            quant=QuantConfig(bits=8, clip_search=False),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_epochs=25),
        ),
    }
)
