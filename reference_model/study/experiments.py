"""The experiments, as data: what five published Hymba systems claim, and the runs that test it at the demo's scale.

Published figures are claims of their authors (docs/presets.md). Nothing here computes.
"""

from __future__ import annotations

from reference_model.study.design import Contrast, Elsewhere, Experiment, Variant

SCORES = ("int6_bpb", "float_bpb", "int8_bpb", "int6_gap")
COST = ("ms_per_step", "peak_mib")
# The published baseline with one attention layer made hybrid, in the demo's width.
MINI_SETTINGS = {
    "NUM_LAYERS": "9",
    "NUM_HEADS": "8",
    "NUM_KV_HEADS": "4",
    "MLP_MULT": "2",
    "HYMBA_FUSION": "heads",
    "HYMBA_LAYERS": "4",
    "HYMBA_META_TOK": "4",
    "HYMBA_SSM_STATE": "16",
    "HYMBA_KV_SHARE": "1",
}
FULL_SCALE = "The preset {preset} on 8xH100 with FineWeb for 600 s, {what}, three seeds each."

MIXERS = (
    Variant("hybrid"),
    Variant("attention only", {"USE_HYMBA": "0"}),
    Variant("scan only", {"USE_ATTENTION": "0"}),
)
MIXER_CONTRASTS = (
    Contrast("The hybrid scores below attention alone.", "hybrid", "attention only"),
    Contrast("The hybrid scores below the scan alone (our question).", "hybrid", "scan only"),
)
MIXER_SCALE = FULL_SCALE.format(preset="pr599", what="with USE_HYMBA=0, with USE_ATTENTION=0, MLP_HIDDEN fitted")


def contexts(lengths: tuple[int, ...]) -> tuple[Variant, ...]:
    """Variants by the length of their sequences."""
    return tuple(Variant(f"{length:,}", {"TRAIN_SEQ_LEN": str(length)}) for length in lengths)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="mixers-tokens",
        title="Hybrid, attention alone, scan alone: equal parameters and tokens",
        source="#599",
        claim="Attention and scan in parallel reach 1.1828 BPB where the plain transformer baseline has 1.2244, with "
        "other sizes and settings.",
        equal=("tokens", "parameters"),
        variants=MIXERS,
        contrasts=MIXER_CONTRASTS,
        measures=(*SCORES, *COST),
        at_scale=MIXER_SCALE,
    ),
    Experiment(
        name="mixers-seconds",
        title="Hybrid, attention alone, scan alone: equal parameters and seconds",
        source="#599",
        claim="The same within 600 s of training; the scan adds little to the time of a step (85 ms at 7 layers).",
        equal=("seconds", "parameters"),
        variants=MIXERS,
        contrasts=MIXER_CONTRASTS,
        measures=(*SCORES, "ttt_bpb", *COST),
        at_scale=MIXER_SCALE,
    ),
    Experiment(
        name="context",
        title="Context from 256 to 8,192",
        source="#914, #1245",
        claim="Sequences 32 times as long as the baseline's 1,024 train at nearly the cost of short ones, because scan "
        "and window attention cost the same for each token whatever the length.",
        equal=("tokens",),
        variants=contexts((256, 512, 1_024, 2_048, 4_096, 8_192)),
        contrasts=(
            Contrast("Longer sequences score lower: 8,192 below 256.", "8,192", "256"),
            Contrast("A step at 8,192 takes at most 1.05 of one at 2,048.", "8,192", "2,048", "ms_per_step", 1.05),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr914", what="TRAIN_SEQ_LEN from 256 to 8192"),
        settings={"TRAIN_BATCH_TOKENS": "8192", "EVAL_SEQ_LEN": "0", "EVAL_BATCH_SEQS": "1"},
        budget=4.0,
        full_validation=True,
    ),
    Experiment(
        name="context-long",
        title="Context from 8,192 to 65,536",
        source="#914",
        claim="After 13,780 steps at 8,192 / 16,384 / 32,768 / 65,536 tokens: 79.0 / 80.1 / 80.6 / 82.8 ms per step "
        "(1.048 times from end to end), 1.1507 / 1.1491 / 1.1478 / 1.1477 BPB before quantization.",
        equal=("tokens",),
        variants=contexts((8_192, 16_384, 32_768, 65_536)),
        contrasts=(
            Contrast(
                "A step at 65,536 takes at most 1.05 of one at 8,192.", "65,536", "8,192", "ms_per_step", at_most=1.05
            ),
            Contrast("32,768 scores below 8,192.", "32,768", "8,192", "float_bpb"),
        ),
        measures=("float_bpb", "int6_bpb", *COST),
        at_scale=FULL_SCALE.format(preset="pr914", what="TRAIN_SEQ_LEN from 8192 to 65536"),
        settings={"TRAIN_BATCH_TOKENS": "65536", "EVAL_SEQ_LEN": "0", "EVAL_BATCH_SEQS": "1"},
        budget=8.0,
        full_validation=True,
    ),
    Experiment(
        name="state",
        title="States of the scan",
        source="#1245",
        claim="4 states are better than 8 and than 16: about 8 ms less a step than 8, and 0.002 BPB lower.",
        equal=("seconds",),
        variants=tuple(Variant(f"{count} states", {"HYMBA_SSM_STATE": str(count)}) for count in (2, 4, 8, 16)),
        reference="4 states",
        contrasts=(
            Contrast("4 states score below 8.", "4 states", "8 states"),
            Contrast("4 states score below 16.", "4 states", "16 states"),
            Contrast("A step with 4 states is shorter than one with 8.", "4 states", "8 states", "ms_per_step"),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr1245", what="HYMBA_SSM_STATE 2, 4, 8 and 16"),
    ),
    Experiment(
        name="window",
        title="Attention window",
        source="#1245",
        claim="A window of 1,024 is better than 512, and 512 than 256: 0.009 BPB from 512 to 1,024, for 6 ms a step.",
        equal=("tokens",),
        variants=tuple(Variant(f"{size}", {"SLIDING_WINDOW": str(size)}) for size in (32, 64, 128, 256, 512)),
        reference="128",
        contrasts=(
            Contrast("512 scores below 256.", "512", "256"),
            Contrast("256 scores below 128.", "256", "128"),
            Contrast("128 scores below 32.", "128", "32"),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr1245", what="SLIDING_WINDOW 256, 512 and 1024"),
        settings={"TRAIN_SEQ_LEN": "1024", "TRAIN_BATCH_TOKENS": "2048", "EVAL_SEQ_LEN": "1024"},
        budget=2.0,
    ),
    Experiment(
        name="tied",
        title="Tied embeddings or an output matrix",
        source="#1245",
        claim="An output matrix of its own trains faster (about 159 against 176 ms a step on four GPUs) and better.",
        equal=("seconds",),
        variants=(Variant("tied"), Variant("untied", {"TIE_EMBEDDINGS": "0"})),
        contrasts=(
            Contrast("Untied scores below tied.", "untied", "tied"),
            Contrast("A step untied is shorter.", "untied", "tied", "ms_per_step"),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr1245", what="TIE_EMBEDDINGS 0 and 1"),
    ),
    Experiment(
        name="decay",
        title="Weight decay",
        source="#1245",
        claim="More decay is better up to 0.14, also before quantization, and makes the artifact at 8 bits fit: the "
        "submission has 0.15.",
        equal=("tokens",),
        variants=tuple(Variant(value, {"WEIGHT_DECAY": value}) for value in ("0", "0.02", "0.05", "0.15", "0.3")),
        reference="0.02",
        contrasts=(
            Contrast("0.15 scores below 0.02 before quantization.", "0.15", "0.02", "float_bpb"),
            Contrast("0.15 loses less at 6 bits than 0.02 (our question).", "0.15", "0.02", "int6_gap"),
            Contrast("The artifact at 8 bits is smaller with 0.15 than with 0.02.", "0.15", "0.02", "int8_bytes"),
        ),
        measures=("int6_bpb", "float_bpb", "int8_bpb", "int8_gap", "int6_gap", "int8_bytes", "int6_bytes"),
        at_scale=FULL_SCALE.format(preset="pr1245", what="WEIGHT_DECAY from 0 to 0.15"),
    ),
    Experiment(
        name="rate",
        title="Learning rate, warmdown and what quantization costs",
        source="#599",
        claim="At a rate of 0.04 six bits cost 0.02 to 0.06 BPB; at 0.02 with a cosine warmdown over 3,000 of 7,050 "
        "steps 0.02. The warmdown alone is worth about 0.06 BPB.",
        equal=("tokens",),
        variants=tuple(
            Variant(
                f"{rate}, {shape}",
                {"MATRIX_LR": rate, "SCALAR_LR": rate, "WARMDOWN_FRAC": share},
            )
            for rate in ("0.02", "0.04")
            for shape, share in (("long warmdown", "0.43"), ("short warmdown", "0.05"))
        ),
        contrasts=(
            Contrast(
                "Half the rate and a long warmdown lose less at 6 bits.",
                "0.02, long warmdown",
                "0.04, short warmdown",
                "int6_gap",
            ),
            Contrast("Half the rate loses less at 6 bits.", "0.02, long warmdown", "0.04, long warmdown", "int6_gap"),
            Contrast(
                "A long warmdown scores lower before quantization.",
                "0.02, long warmdown",
                "0.02, short warmdown",
                "float_bpb",
            ),
        ),
        measures=("int6_gap", "int8_gap", "float_bpb", "int6_bpb"),
        at_scale=FULL_SCALE.format(preset="pr599", what="MATRIX_LR 0.02 and 0.04, WARMDOWN_ITERS 350 and 3000"),
    ),
    Experiment(
        name="depth",
        title="Depth at equal seconds",
        source="#599",
        claim="Shallow models win: within 600 s 7 layers are better than the 9 to 11 of transformers: more steps fit.",
        equal=("seconds",),
        variants=tuple(Variant(f"{count} layers", {"NUM_LAYERS": str(count)}) for count in (1, 2, 3, 4, 6, 9)),
        reference="2 layers",
        contrasts=(
            Contrast("2 layers score below 4.", "2 layers", "4 layers"),
            Contrast("2 layers score below 9.", "2 layers", "9 layers"),
            Contrast("4 layers score below 9.", "4 layers", "9 layers"),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr599", what="NUM_LAYERS from 5 to 11"),
    ),
    Experiment(
        name="hybrid-layers",
        title="One hybrid layer of nine, or three",
        source="#1961",
        claim="One hybrid layer reaches 1.4753 BPB after 800 steps, three (with a slower scan) 3.07 after 134 of 6.7 s "
        "and 3.81 after 200.",
        equal=("seconds",),
        variants=(
            Variant("layer 4"),
            Variant("layers 3, 4, 5", {"HYMBA_LAYERS": "3,4,5"}),
            Variant("none", {"USE_HYMBA": "0"}),
        ),
        contrasts=(
            Contrast("One hybrid layer scores below three.", "layer 4", "layers 3, 4, 5"),
            Contrast("One hybrid layer scores below none (our question).", "layer 4", "none"),
        ),
        measures=(*SCORES, *COST),
        at_scale="The presets mini1961 and mini1961_3 on one GPU for 877 s, three seeds each.",
        settings=MINI_SETTINGS,
    ),
    Experiment(
        name="position",
        title="Where the hybrid layer stands",
        source="#1961",
        claim="Of the positions tried, layer 4 of nine (the fifth) was the best.",
        equal=("tokens",),
        variants=tuple(Variant(f"layer {layer}", {"HYMBA_LAYERS": str(layer)}) for layer in (0, 2, 4, 6, 8)),
        reference="layer 4",
        contrasts=tuple(
            Contrast(f"Layer 4 scores below layer {layer}.", "layer 4", f"layer {layer}") for layer in (0, 2, 6, 8)
        ),
        measures=SCORES,
        at_scale="The preset mini1961 on one GPU, 800 steps, HYMBA_LAYERS 0, 2, 4, 6 and 8, three seeds each.",
        settings=MINI_SETTINGS,
    ),
    Experiment(
        name="meta",
        title="Meta tokens",
        source="#1961, arXiv:2411.13676",
        claim="Hymba puts learned tokens before the text that every query sees, 256 in the paper and 4 in #1961, and "
        "reports that they help.",
        equal=("tokens",),
        variants=tuple(Variant(f"{count}", {"HYMBA_META_TOK": str(count)}) for count in (0, 4, 16, 64)),
        contrasts=(
            Contrast("4 meta tokens score below none.", "4", "0"),
            Contrast("64 meta tokens score below none (our question).", "64", "0"),
        ),
        measures=(*SCORES, *COST),
        at_scale="The preset mini1961 on one GPU, 800 steps, HYMBA_META_TOK 0, 4, 16 and 64, three seeds each.",
        settings=MINI_SETTINGS,
    ),
    Experiment(
        name="s4d",
        title="A long filter (S4D-Lin) where the selective scan stands",
        source="a follow-up of #599",
        claim="S4D-Lin in place of the selective scan costs no throughput and reaches 1.1682 BPB.",
        equal=("seconds", "parameters"),
        variants=(
            Variant("selective scan"),
            Variant("S4D-Lin", {"HYMBA_SSM_KIND": "s4d_lin"}),
            Variant("attention only", {"USE_HYMBA": "0"}),
        ),
        contrasts=(
            Contrast(
                "A step with S4D-Lin is at most as long.", "S4D-Lin", "selective scan", "ms_per_step", at_most=1.0
            ),
            Contrast("S4D-Lin scores below the selective scan.", "S4D-Lin", "selective scan"),
            Contrast("S4D-Lin scores below attention alone (our question).", "S4D-Lin", "attention only"),
        ),
        measures=(*SCORES, *COST),
        at_scale=FULL_SCALE.format(preset="pr599", what="HYMBA_SSM_KIND selective and s4d_lin"),
    ),
    Experiment(
        name="ttt",
        title="Test-time training: epochs and frozen blocks",
        source="#914, #1245, #852",
        claim="#914 takes 3 epochs with two blocks frozen, #852 goes from 1 epoch to 3, #1245 from 3 to 25 with none "
        "frozen; each reports that more is better.",
        equal=("tokens",),
        variants=(
            Variant("0 epochs", {"TTT_EPOCHS": "0"}),
            Variant("1 epoch", {"TTT_EPOCHS": "1"}),
            Variant("3 epochs", {"TTT_EPOCHS": "3"}),
            Variant("25 epochs", {"TTT_EPOCHS": "25"}),
            Variant("3 epochs, 2 frozen", {"TTT_EPOCHS": "3", "TTT_FREEZE_BLOCKS": "2"}),
            Variant("25 epochs, 2 frozen", {"TTT_EPOCHS": "25", "TTT_FREEZE_BLOCKS": "2"}),
        ),
        contrasts=(
            Contrast("3 epochs score below 1.", "3 epochs", "1 epoch", "ttt_bpb"),
            Contrast("25 epochs score below 3.", "25 epochs", "3 epochs", "ttt_bpb"),
            Contrast(
                "25 epochs with none frozen score below 3 with two.", "25 epochs", "3 epochs, 2 frozen", "ttt_bpb"
            ),
        ),
        measures=("ttt_bpb", "same_bpb", "int6_bpb", "ttt_s"),
        at_scale="The artifacts of pr914 and pr1245 on the validation split, TTT_EPOCHS and TTT_FREEZE_BLOCKS as here.",
        settings={"NUM_LAYERS": "4", "TTT_LR": "0.05", "TTT_CHUNK_TOKENS": "4096"},
    ),
)

ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere(
        name="overlap",
        title="Communication overlapped with computing",
        source="#852",
        claim="Asynchronous collectives in a Muon that is divided among processes save 48.2 s over 20,000 steps.",
        where="Times between processes on one machine belong to the benchmarks (`nox -s bench`), not to this study.",
    ),
)
