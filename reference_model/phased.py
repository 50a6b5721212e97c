"""Test-time training in phases, as the accepted records of 2026-04-13 and 2026-04-14 have it ("phased TTT").

The first documents of the text are cut into a few phases. A phase is scored with the weights that the phases before
left; then all weights are trained on everything that was scored so far, for some epochs. The rest of the text is scored
with the last weights. Nothing is scored a second time, and nothing is learned from before it was scored (rules C3, C4,
R12, R15). The records score documents in the order of their lengths; here the text goes from left to right, so that the
weights of a phase depend on earlier tokens alone (C1): where a phase ends is counted from the text's beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reference_model.carried import CarriedText
from reference_model.documents import Span, document_spans
from reference_model.evalconfig import EvalConfig
from reference_model.lora import score_documents
from reference_model.scoring import EvalResult, EvalTask, Windows, score_windows, sums_of_all
from reference_model.ttt import ChunkHook, Lesson, adapted_weights, train_on


def evaluate_phased(task: EvalTask, on_chunk: ChunkHook | None = None) -> EvalResult:
    """Score phase after phase, and train after each but the last; `on_chunk` hears of each phase.

    Within a phase, documents have adapters of their own (`evaluate_lora`) where the kind says so; else it is scored in
    windows, which may reach back over the phase's beginning when the configuration has a stride, or go on with the
    memory of the tokens before.

    The model's weights are changed in place, and restored before this returns or raises.

    Raises:
        ValueError: The model has none of the layers that are to be adapted.
    """
    spans = document_spans(task.tokens, task.config.bos_id)
    phases = phase_spans(spans, task.config)
    carried = CarriedText(task) if task.config.eval_carry and not task.config.has_adapters else None
    total_3 = torch.zeros(3, dtype=torch.float64, device=task.worker.device)
    with adapted_weights(task.model, task.config.ttt_freeze_blocks) as weights:
        for number, (first, end) in enumerate(phases, 1):
            if carried is not None:
                total_3 += carried.score(first, end)
            else:
                total_3 += sums_of_all(task.worker, _score_phase(task, (first, end), spans))
            if on_chunk is not None:
                on_chunk(number, len(phases), EvalResult.from_sums(total_3))
            if number < len(phases):
                learn_from_beginning(task, weights, end)
    return EvalResult.from_sums(total_3)


def phase_ends(config: EvalConfig) -> list[int]:
    """After how many documents each phase ends, but the last one, which is the rest of the text."""
    phases = range(1, config.phased_num_phases + 1)
    return [config.phased_prefix_docs * phase // config.phased_num_phases for phase in phases]


def phase_spans(spans: Sequence[Span], config: EvalConfig) -> list[Span]:
    """First input and end of each phase; a text of few documents has fewer phases."""
    ends = [spans[count][0] for count in phase_ends(config) if count < len(spans)]
    return list(zip([0, *ends], [*ends, spans[-1][1]], strict=True))


def phase_windows(task: EvalTask, first: int, end: int) -> Windows:
    """Windows of one phase; where they begin does not depend on where it ends."""
    return Windows(first, end, task.seq_len, task.config.eval_stride, blind=True)


def learn_from_beginning(task: EvalTask, weights: Sequence[nn.Parameter], end: int) -> None:
    """Train on all inputs before `end`, with a new optimizer whose rate falls by a cosine."""
    config = task.config
    optimizer = torch.optim.SGD(weights, lr=config.ttt_lr, momentum=config.ttt_momentum)
    train_on(Lesson(task, Windows(0, end, task.seq_len, 0), weights, None), optimizer, config.ttt_lr)


def _score_phase(task: EvalTask, phase: Span, spans: Sequence[Span]) -> Tensor:
    """This process's sums, row by row."""
    first, end = phase
    if task.config.has_adapters:
        return score_documents(task, [span for span in spans if first <= span[0] < end])
    return score_windows(task, phase_windows(task, first, end), task.config.eval_batch_seqs)
