"""How small the settings of a script are made: by their names, and by the ends of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator

LENGTH = 64
# What a script may want instead, where it ends at the usual length: rows of at least 128 tokens, all of its vocabulary.
LONGER = 2 * LENGTH
# Each score costs a product with the whole vocabulary, and a sum over it costs a run for each token.
VOCABULARY = 1_024
# A table of counts has some ten tokens of a real validation text for each place, and here too: what does not add up to
# one because contexts and tokens share places would look clean in an empty one. Where a script ends so, it gets more.
TABLES, PLACES, MORE_PLACES = r"(?:^|_)(?:BUCKETS|TABLE_SIZE|HASH_SIZE)", 256, 1 << 18
# Also where no name says so: a large power of two that a hash is reduced by.
MODULI = range(1 << 18, 1 << 28)
# What is scored before it is counted: a text that is one piece would be scored with empty tables. In sequences. Other
# things have chunks too, of which the large ones are tokens.
PIECES, SEQUENCES, LARGE = r"(?:^|_)CHUNK_(?:TOKENS|SIZE|SZ|LEN)", 8, 4_096
# Windows that are farther apart than they are long leave out what lies between.
STRIDES = r"(?:^|_)STRIDE"
# Sequences that a model writes itself, token by token, to be calibrated on.
WRITTEN, WRITTEN_MOST = r"(?:^|_)(?:NUM|CALIB|GEN|AR)_SEQS", 8
# So many tokens have to be seen before something begins, which the small text has to have.
BEFORE = r"(?:^|_)(?:MIN|START|WARMUP|BEGIN)_TOKENS"
# What has fewer numbers stays as it is where a model is quantized, which a small model's matrices all have: calibration
# on validation tokens would show in no artifact. Not where a script ends so.
FLOATS, FLOATS_MOST, ANY = r"(?:NUMEL\(\)|(?:KEEP_FLOAT|SMALL_TENSOR)_MAX_NUMEL)", 4_096, 1 << 40
NUMBERS = "numel()"
# Tokens that a stream is asked for beside the batches, to choose a temperature by: `stream.take(65_536)`.
TAKING, TAKEN, TAKEN_LEAST = "take()", r"TAKE\(\)", 16_384
# Endings of numbers that are made smaller where they are written out too, not only in the environment.
ANYWHERE = frozenset({TABLES, PIECES, WRITTEN, BEFORE, FLOATS, TAKEN})
# Settings by the name that they have in the environment; of a class's attributes and the module's constants too.
SMALL: dict[str, int] = {
    "ITERATIONS": 8,
    "NUM_ITERATIONS": 8,
    "TRAIN_STEPS": 8,
    "MAX_STEPS": 8,
    "TOTAL_STEPS": 8,
    "WARMUP_STEPS": 1,
    "LR_WARMUP_STEPS": 1,
    "MUON_MOMENTUM_WARMUP_STEPS": 4,
    "BATCH_SIZE": 2,
    "MODEL_DIM": 128,
    "NUM_HEADS": 4,
    "NUM_KV_HEADS": 2,
    "VAL_MAX_TOKENS": 8_192,
    "EVAL_BATCH_SEQS": 8,
    "EVAL_BATCH_SIZE": 8,
    "SLIDING_BATCH_SIZE": 8,
    "SW_EVAL_BATCH": 8,
    "TTT_LORA_RANK": 4,
    "TTT_BATCH_SEQS": 4,
    "TTT_BATCH_SIZE": 4,
    "GLOBAL_TTT_BATCH_SEQS": 4,
    "PHASED_TTT_PREFIX_DOCS": 8,
    # Two processes that pause at each phase need a batch of documents each.
    "PHASED_TTT_NUM_PHASES": 2,
    "GPTQ_CALIBRATION_BATCHES": 2,
    "GPTQ_CALIB_BATCHES": 2,
    "GPTQ_CALIB_SAMPLES": 2,
    "GPTQ_CALIB_SEQS": 2,
    "GPTQ_NUM_SEQS": 2,
    "GPTQ_RESERVE_SECONDS": 0,
    "GPTQ_RESERVE_MS": 0,
    "GPTQ_BATCH_SIZE": 2,
    "VAR_EVAL_STEPS": 4,
    "POP_SIZE": 8,
    "D_STATE": 16,
    "MAMBA3_D_STATE": 16,
    "SIGREG_NUM_PROJ": 16,
    "BIGRAM_VOCAB_SIZE": 256,
    "BIGRAM_BUCKETS": 256,
    "BIGRAM_HASH_BUCKETS": 256,
}
# The same as multiples of the length. Gradients are of eight parts, one sequence each.
LENGTHS: dict[str, float] = {
    "TRAIN_SEQ_LEN": 1,
    "SEQ_LEN": 1,
    "ROPE_TRAIN_SEQ_LEN": 1,
    "YARN_MAX_LEN": 1,
    "TRAIN_BATCH_TOKENS": 8,
    "VAL_BATCH_SIZE": 16,
    "VAL_BATCH_TOKENS": 16,
    "EVAL_SEQ_LEN": 1,
    "EVAL_STRIDE": 0.5,
    "SLIDING_EVAL_STRIDE": 0.5,
    "STRIDE": 0.5,
    "TTT_CHUNK_TOKENS": 8,
    "TTT_CHUNK_SIZE": 0.25,
    "TTT_EVAL_SEQ_LEN": 1,
    "GLOBAL_TTT_CHUNK_TOKENS": 8,
    "GPTQ_GEN_LEN": 1,
    "SLIDING_WINDOW": 0.5,
}
# Always set, since they have to fit each other.
WIDTHS = frozenset({"MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS"})
# As wide as the model, where they are so in the claimed run: else a projection comes in between.
AS_WIDE = ("EMBEDDING_DIM", "EMBED_DIM")
# Never raised above what is claimed, nor set where that is not known.
CAPPED: dict[str, int] = {"TTT_EPOCHS": 2, "GLOBAL_TTT_EPOCHS": 2, "TTT_GRAD_STEPS": 2, "SLOT_STEPS": 2}
# The same for numbers by the end of their names: tables of so many bits hold more places than the small text has
# contexts, what begins at some step has to begin in the few that there are, and a row of weights is not longer than the
# model is wide.
CAPPED_ENDINGS: dict[str, int] = {
    r"(?:TABLE|HASH|BUCKET)S?_BITS": 18,
    r"(?:START|BEGIN)_(?:STEP|ITER)S?": 4,
    r"(?:^|_)GROUP_SIZE": SMALL["MODEL_DIM"],
    TABLES: PLACES,
    PIECES: SEQUENCES * LENGTH,
    STRIDES: LENGTH // 2,
    WRITTEN: WRITTEN_MOST,
    BEFORE: LENGTH,
    FLOATS: FLOATS_MOST,
    TAKEN: 32 * LENGTH,
}


def is_larger(name: str, value: str, small: int) -> bool:
    """Whether a setting is to be made small: what is smaller stays, for 0 turns many a thing off."""
    try:
        return name in WIDTHS or float(value) > small
    except ValueError:
        # Left to an expression that was not followed.
        return True


def by_ending(name: str, length: int) -> Iterator[tuple[str, int]]:
    """Endings of a name, and the most that it may be."""
    for ending, most in CAPPED_ENDINGS.items():
        if re.search(rf"{ending}$", name.upper()):
            sizes = {
                TABLES: MORE_PLACES,
                PIECES: SEQUENCES * length,
                STRIDES: length // 2,
                FLOATS: ANY,
                TAKEN: 32 * length,
            }
            longer = sizes.get(ending, most)
            yield ending, longer if length > LENGTH else most


def least(name: str, most: int) -> int:
    """From where on a number is too large."""
    if name == TAKING:
        return TAKEN_LEAST
    other = re.search(rf"{PIECES}$", name.upper()) is not None and not name.upper().endswith("CHUNK_TOKENS")
    return LARGE if other else most + 1
