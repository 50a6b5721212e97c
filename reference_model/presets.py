"""Named settings: the demo's, and one for each published Hymba, parameter for parameter.

docs/presets.md sets them beside the published figures and says where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from reference_model.config import Config, ModelConfig, OptimConfig, QuantConfig, TrainConfig
from reference_model.evalconfig import EvalConfig

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

# The scripts of #599, #914 and #1245, whose embeddings stay float16.
PUBLISHED_QUANT = QuantConfig(scale_floor="published", fp16_embed=True)

# Pull request 1961: the competition's baseline with one attention layer made hybrid.
MINI_MODEL = ModelConfig(
    num_layers=9,
    mlp_mult=2,
    use_smeargate=False,
    use_bigram_hash=False,
    hybrid_layers=(4,),
    fusion="heads",
    meta_tokens=4,
    kv_share=True,
    ssm_state=16,
    separate_kv=True,
)
MINI = Config(
    model=MINI_MODEL,
    optim=OptimConfig(matrix_lr=0.004, scalar_lr=0.004, embed_lr=0.005, tied_embed_lr=0.005, weight_decay=0.0),
    train=TrainConfig(
        iterations=800,
        warmup_steps=100,
        warmdown_iters=1_200,
        warmdown_shape="linear",
        train_seq_len=1_024,
        max_wallclock_seconds=1_800.0,
        train_log_every=50,
        val_loss_every=200,
        ema_decay=0.0,
    ),
    quant=QuantConfig(bits=8, clip_search=False, scale_floor="published"),
    evaluation=EvalConfig(eval_stride=0),
)

# Pull request 852: banks, ten hybrid layers and one that only attends.
BANKED_MODEL = ModelConfig(
    num_layers=11,
    mlp_mult=3,
    use_unet_skips=False,
    use_smeargate=False,
    use_bigram_hash=False,
    hybrid_layers=tuple(range(10)),
    banks="shared",
    conv_width=3,
    fused_projection=False,
    separate_kv=True,
)
BANKED = Config(
    # As its records script: two matrices that serve twice, no bigrams, no cap on the logits.
    model=replace(BANKED_MODEL, activation="silu", rope_dims=16, logit_softcap=0.0),
    optim=OptimConfig(scalar_lr=0.01, muon_momentum=0.99, muon_backend_steps=3, muon_sharded=True, weight_decay=0.04),
    train=TrainConfig(warmdown_iters=3_500, train_seq_len=1_024),
    # The script stores nothing; 4 bits is what its README says of the submission.
    quant=QuantConfig(bits=4),
    evaluation=EvalConfig(eval_stride=0),
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
        # The two to compare it with, of as many parameters to a tenth of a percent. The demo without the scan, its
        # MLPs wider by as much; and the shape of the competition's baseline: nine layers, no bigrams, no smearing.
        "demo_attention": Config(
            model=replace(DEMO_MODEL, use_hymba=False, mlp_hidden=592),
            optim=DEMO_OPTIM,
            train=DEMO_TRAIN,
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        "demo_baseline": Config(
            model=ModelConfig(
                num_layers=9,
                model_dim=192,
                num_heads=4,
                num_kv_heads=2,
                mlp_hidden=416,
                use_hymba=False,
                use_bigram_hash=False,
                use_smeargate=False,
                sliding_window=128,
            ),
            optim=DEMO_OPTIM,
            train=DEMO_TRAIN,
            quant=DEMO_QUANT,
            evaluation=DEMO_EVALUATION,
        ),
        # Without the floor under the row scales that the published scripts have, these three do not fit the cap.
        "pr599": Config(quant=PUBLISHED_QUANT),
        "pr914": Config(
            model=ModelConfig(activation="leaky_relu2", fused_projection=False, sliding_window=512),
            train=TrainConfig(train_seq_len=32_768),
            quant=PUBLISHED_QUANT,
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
            quant=replace(PUBLISHED_QUANT, bits=8, clip_search=False),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True, ttt_epochs=25),
        ),
        "mini1961": MINI,
        "mini1961_3": replace(
            MINI,
            model=replace(MINI_MODEL, hybrid_layers=(3, 4, 5)),
            train=replace(MINI.train, iterations=200, max_wallclock_seconds=900.0),
        ),
        "pr852_records": BANKED,
        # As its README describes the submission; every role has matrices of its own.
        "pr852": replace(
            BANKED,
            model=replace(
                BANKED_MODEL,
                banks="separate",
                activation="leaky_relu2",
                leaky_relu_slope=0.5,
                use_bigram_hash=True,
                bigram_buckets=2_048,
            ),
            # The README does not say from when on it trains at 4 bits.
            train=replace(BANKED.train, qat_start=0.85),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4, ttt_enabled=True),
        ),
        # NVlabs' architecture (arXiv:2411.13676) in a size that fits the cap at 6 bits.
        "paper": Config(
            model=ModelConfig(
                mlp_mult=3,
                activation="silu",
                use_unet_skips=False,
                use_smeargate=False,
                use_bigram_hash=False,
                fusion="norms",
                meta_tokens=256,
                kv_share=True,
                ssm_state=16,
                sliding_window=1_024,
                global_layers=None,
            ),
            evaluation=EvalConfig(eval_stride=0, eval_batch_seqs=4),
        ),
    }
)
