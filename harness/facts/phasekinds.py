"""What a timed phase of a log is: the kind decides in which reading of the budget it counts."""

from __future__ import annotations

import re

EVALUATION = "evaluation"
DIAGNOSTIC = "diagnostic"
CALIBRATION = "calibration"
ARTIFACT = "artifact"
COMPILE = "compile"
PRECOMPUTATION = "precomputation"
LOADING = "loading"
SUM = "sum"
ADAPTATION = "adaptation"
OTHER = "other"
# Kinds that a wide reading of the evaluation budget counts beside the scored passes.
BESIDE_EVALUATION = (ADAPTATION, COMPILE, PRECOMPUTATION, LOADING, DIAGNOSTIC)

_KINDS = (
    (
        SUM,
        re.compile(
            r"total_eval_|inner_\w{1,20}_eval_time|artifact_production_wallclock"
            r"|(?i:gptq):(?:done|quantization complete|total quantization time|budget_check)"
        ),
    ),
    (COMPILE, re.compile(r"compile warmup")),
    (LOADING, re.compile(r"Deserialize")),
    (ARTIFACT, re.compile(r"Serialize|(?i:gptq):(?:quantized|compressed|quantization done)|serialize_wallclock")),
    (
        CALIBRATION,
        re.compile(
            r"(?i:gptq|codebook): ?(?:collected|generated|(?:[\w-]{1,30} )?calibrat|[Hh]essians? ?(?:_?collect|for))"
            r"|[Hh]essians collected"
        ),
    ),
    (PRECOMPUTATION, re.compile(r"precompute|temp_scaling")),
    (EVALUATION, re.compile(r"ttt:completed")),
    (ADAPTATION, re.compile(r"ttt\w{0,20}: ?done")),
)


def phase_kind(name: str) -> str:
    """The kind of a timed phase that prints no score.

    Example:
        >>> phase_kind("GPTQ:collected 67 Hessians"), phase_kind("ttt_lora:compile warmup")
        ('calibration', 'compile')
    """
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), OTHER)
