"""The evaluations: plain, sliding window, going on or by documents, score-first test-time training of three kinds.

Every target is scored exactly once.
"""

from __future__ import annotations

from reference_model.lora import evaluate_lora
from reference_model.phased import evaluate_phased
from reference_model.scoring import EvalResult, EvalTask, Windows, score_windows, sums_of_all
from reference_model.streams import evaluate_streams
from reference_model.ttt import ChunkHook, evaluate_ttt


def evaluate_plain(task: EvalTask) -> EvalResult:
    """Score windows side by side, the short one at the end too.

    Processes share the batches; neither a loss nor the float64 sums depend on their number, to the last bit.
    """
    return _evaluate_windows(task, 0)


def evaluate_sliding(task: EvalTask, stride: int) -> EvalResult:
    """Score with overlap: each window scores its last `stride` targets with the full context before them.

    Raises:
        ValueError: the stride is not in 1 .. seq_len.
    """
    if stride < 1:
        raise ValueError(f"stride {stride} is not positive")
    return _evaluate_windows(task, stride)


def _evaluate_windows(task: EvalTask, stride: int) -> EvalResult:
    windows = Windows(0, task.targets, task.seq_len, stride)
    return EvalResult.from_sums(sums_of_all(task.worker, score_windows(task, windows, task.config.eval_batch_seqs)))


def evaluation_name(task: EvalTask) -> str:
    """How the configuration says that tokens are scored."""
    config = task.config
    context = f"stride {config.eval_stride}" if config.eval_stride and not config.has_adapters else "plain"
    parts = ["carried" if config.eval_carry else context] + ["documents"] * config.isolates
    if config.ttt_enabled:
        kinds = {"sgd": "TTT", "lora": "LoRA TTT", "phased": "phased TTT", "phased_lora": "phased LoRA TTT"}
        parts.insert(0, f"score-first {kinds[config.ttt_kind]}")
    return ", ".join(parts)


def evaluate(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score as the configuration says; `on_chunk` hears the progress of test-time training."""
    config = task.config
    if config.ttt_enabled:
        adapting = {"sgd": evaluate_ttt, "lora": evaluate_lora}.get(config.ttt_kind, evaluate_phased)
        return adapting(task, on_chunk)
    if config.eval_carry or config.isolates:
        return evaluate_streams(task)
    return evaluate_sliding(task, config.eval_stride) if config.eval_stride else evaluate_plain(task)
