"""What was published about the systems behind the presets, as their authors claim it, and where ours differ.

Nothing here was measured by this project. Sources: the pull requests' folders in openai/parameter-golf, and
arXiv:2411.13676 with NVlabs/hymba.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

COMMON_COMMAND = (
    "NUM_LAYERS=7 MLP_MULT=4 MODEL_DIM=512 NUM_HEADS=8 NUM_KV_HEADS=4 MATRIX_LR=0.02 SCALAR_LR=0.02 HYMBA_EXPAND=1 "
    "WARMDOWN_SHAPE=cosine SEED=1337"
)
TTT_COMMAND = "TTT_ENABLED=1 TTT_LR=0.002 TTT_CHUNK_TOKENS=524288 TTT_BATCH_SEQS=4"
MINI_COMMAND = (
    "WARMUP_STEPS=100 ITERATIONS=800 MAX_WALLCLOCK_SECONDS=1800 MATRIX_LR=0.004 SCALAR_LR=0.004 EMBED_LR=0.005 "
    "TIED_EMBED_LR=0.005 TRAIN_LOG_EVERY=50 VAL_LOSS_EVERY=200"
)
EIGHT_GPUS = "8xH100, 600 s of training"
ZSTD_NOT_ZLIB = "The artifact is compressed by zstd at level 22, the published one by zlib."
ROTATION = "Rotary pairs turn the other way round, which a permutation of the weights undoes."


@dataclass(frozen=True)
class Published:
    """One published system.

    Attributes:
        title: What it is called here.
        source: Pull request or paper, in words.
        url: Of it.
        score: The claimed val_bpb with its deviation, as written; "" where there is none.
        setting: Hardware and time of that claim.
        size: The claimed size of code and model, as written; "" where there is none.
        parameters: The published number of parameters; 0 where there is none.
        environment: Settings of the published run command.
        differs: Where the preset differs from the published script, a sentence each.
    """

    title: str
    source: str
    url: str
    score: str = ""
    setting: str = EIGHT_GPUS
    size: str = ""
    parameters: int = 0
    environment: str = ""
    differs: tuple[str, ...] = ()


def pull_request(number: int) -> str:
    """Address of a pull request of the competition."""
    return f"https://github.com/openai/parameter-golf/pull/{number}"


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "pr599": Published(
            title="Hymba, 7 layers",
            source="pull request 599",
            url=pull_request(599),
            score="1.1828 ± 0.0036",
            size="15,179,444",
            parameters=27_161_151,
            environment=f"{COMMON_COMMAND} TRAIN_SEQ_LEN=2048 WARMDOWN_ITERS=3000 USE_HYMBA=1 HYMBA_SSM_STATE=8 "
            "EVAL_STRIDE=64 QUANT_BITS=6 GPTQ_LITE=1",
        ),
        "pr914": Published(
            title="Hymba, 7 layers, 32k context",
            source="pull request 914",
            url=pull_request(914),
            score="1.1873 ± 0.0008",
            size="14,290,148 to 14,555,318",
            parameters=27_161_151,
            environment=f"{COMMON_COMMAND} {TTT_COMMAND} TRAIN_SEQ_LEN=32768 SLIDING_WINDOW=512 "
            "SWA_GLOBAL_LAYERS=none WARMDOWN_ITERS=3000 HYMBA_SSM_STATE=8 EVAL_STRIDE=0 EVAL_BATCH_SEQS=4 QUANT_BITS=6 "
            "GPTQ_LITE=1 TTT_EPOCHS=3 TTT_FREEZE_BLOCKS=2 MAX_WALLCLOCK_SECONDS=600",
            differs=("Every target is scored once; the published script leaves the tail of the split out.",),
        ),
        "pr1245": Published(
            title="Hymba, 8 layers, state of 4",
            source="pull request 1245",
            url=pull_request(1245),
            score="1.1470 ± 0.0003",
            size="15,267,947 to 15,679,725",
            parameters=31_357_512,
            environment=f"{COMMON_COMMAND.replace('NUM_LAYERS=7', 'NUM_LAYERS=8')} {TTT_COMMAND} TRAIN_SEQ_LEN=32768 "
            "SLIDING_WINDOW=1024 SWA_GLOBAL_LAYERS=none WARMDOWN_ITERS=7000 WEIGHT_DECAY=0.15 EMA_EVERY=10 "
            "GRAD_ACCUM_STEPS=1 HYMBA_SSM_STATE=4 USE_SMEARGATE=1 USE_BIGRAM_HASH=1 TIE_EMBEDDINGS=0 "
            "LEAKY_RELU_SLOPE=0.9 EVAL_STRIDE=0 EVAL_BATCH_SEQS=4 QUANT_BITS=8 GPTQ_LITE=0 TTT_EPOCHS=25 "
            "TTT_FREEZE_BLOCKS=0 MAX_WALLCLOCK_SECONDS=600",
            differs=("Every target is scored once; the published script leaves the tail of the split out.",),
        ),
        "mini1961": Published(
            title="Mini-Hymba, one hybrid layer",
            source="pull request 1961",
            url=pull_request(1961),
            score="1.4753",
            setting="one RTX PRO 6000, 800 steps in 877 s",
            size="9,234,838",
            parameters=17_209_542,
            environment=f"HYMBA_ENABLED=1 HYMBA_LAYERS=4 HYMBA_SCAN_CHUNK=64 {MINI_COMMAND}",
            differs=(ZSTD_NOT_ZLIB, ROTATION, "Matrices begin orthogonal, the published ones uniform."),
        ),
        "mini1961_3": Published(
            title="Mini-Hymba, three hybrid layers with shared keys and values",
            source="pull request 1961",
            url=pull_request(1961),
            score="3.81",
            setting="one RTX PRO 6000, 200 steps",
            parameters=16_984_514,
            environment="HYMBA_ENABLED=1 HYMBA_LAYERS=3,4,5 HYMBA_KV_SHARE=1",
            differs=(ZSTD_NOT_ZLIB, ROTATION, "Matrices begin orthogonal, the published ones uniform."),
        ),
        "pr852_records": Published(
            title="Hymba, 11 layers in parameter banks, as the records script has it",
            source="pull request 852, the script in its record folder",
            url=pull_request(852),
            setting="the script neither packs nor scores",
            parameters=35_491_938,
            differs=(
                "The embeddings are normalized before the first layer, those of the published script are not.",
                "The sequence length is 1,024; the published script's default is 2,048.",
                "It packs at 4 bits and scores plainly; the published script does neither pack nor score.",
                ROTATION,
                "Matrices begin orthogonal, A at -1 ... -8; published: normal with 0.02, and -1.",
            ),
        ),
        "pr852": Published(
            title="Hymba, 11 layers in parameter banks, as the README has it",
            source="pull request 852, its README",
            url=pull_request(852),
            score="1.1189",
            setting="8xH100, 582.4 s in all",
            size="14.5 MB",
            differs=(
                "No script of this description was published: the number of parameters is ours.",
                "Every role has matrices of its own.",
                "Weights are trained at 4 bits in the last 15% of the run; the README does not say from when on.",
            ),
        ),
        "paper": Published(
            title="Hymba as in the paper, in a size for this challenge",
            source="arXiv:2411.13676 and NVlabs/hymba",
            url="https://arxiv.org/abs/2411.13676",
            setting="other data, other sizes: no score to compare with",
            differs=(
                "7 layers of width 512, a number of parameters of ours, for the cap of 16,000,000 bytes.",
                "A window of 1,024 holds 1,024 tokens; NVlabs' holds one more.",
                "The scan has as many channels as the stream, NVlabs' twice as many.",
                "No norms on step sizes, B and C; no gate in the MLP.",
                "Each block may refresh the stream from the embeddings, as in this project's other presets.",
            ),
        ),
    }
)


def environment_of(published: Published) -> dict[str, str]:
    """The published run command's settings by name."""
    return dict(setting.split("=", 1) for setting in published.environment.split())
