"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from reference_model.settings import ConfigError, Section, Setting

# What can have low-rank adapters: the projections of attention and scan, the MLP, the logits.
LORA_PARTS = ("attention", "mamba", "mlp", "head")


@dataclass(frozen=True)
class EvalConfig(Section):
    """Scoring: plain (stride 0), sliding window (stride above 0), or score-first test-time training."""

    eval_stride: Annotated[int, Setting("EVAL_STRIDE", 0, 1 << 24)] = 64
    eval_batch_seqs: Annotated[int, Setting("EVAL_BATCH_SEQS", 1, 1 << 20)] = 32
    # 0: as long as the training sequences.
    eval_seq_len: Annotated[int, Setting("EVAL_SEQ_LEN", 0, 1 << 24)] = 0
    # Go on from window to window with the scan's state, the convolution's tail and the keys of the attention's window.
    eval_carry: Annotated[bool, Setting("EVAL_CARRY_STATE")] = False
    # Parts of the text that are scored side by side then, each with a memory of its own.
    eval_lanes: Annotated[int, Setting("EVAL_LANES", 1, 1 << 20)] = 1
    # See nothing of other documents.
    eval_isolate_docs: Annotated[bool, Setting("EVAL_ISOLATE_DOCS")] = False
    # Of the published commands, and without effect: EVAL_BATCH_SEQS says how much is scored at a time.
    val_batch_size: Annotated[int, Setting("VAL_BATCH_SIZE", 1, 1 << 32)] = 524_288
    ttt_enabled: Annotated[bool, Setting("TTT_ENABLED")] = False
    ttt_lr: Annotated[float, Setting("TTT_LR", 0, 100)] = 0.002
    ttt_epochs: Annotated[int, Setting("TTT_EPOCHS", 0, 10_000)] = 3
    ttt_chunk_tokens: Annotated[int, Setting("TTT_CHUNK_TOKENS", 1, 1 << 40)] = 524_288
    ttt_freeze_blocks: Annotated[int, Setting("TTT_FREEZE_BLOCKS", 0, 256)] = 0
    ttt_batch_seqs: Annotated[int, Setting("TTT_BATCH_SEQS", 1, 1 << 20)] = 4
    ttt_momentum: Annotated[float, Setting("TTT_MOMENTUM", 0, 0.9999)] = 0.9
    ttt_grad_clip: Annotated[float, Setting("TTT_GRAD_CLIP", 0, 1e9)] = 1.0
    # What is trained: all weights, chunk by chunk of the text; low-rank adapters, which begin anew in each document;
    # all weights after each of a few phases, on all that was scored before; both of the latter.
    ttt_kind: Annotated[str, Setting("TTT_KIND", choices=("sgd", "lora", "phased", "phased_lora"))] = "sgd"
    ttt_lora_rank: Annotated[int, Setting("TTT_LORA_RANK", 1, 1_024)] = 8
    # Some of LORA_PARTS, separated by commas.
    ttt_lora_parts: Annotated[str, Setting("TTT_LORA_PARTS")] = "attention,mamba,head"
    ttt_lora_lr: Annotated[float, Setting("TTT_LORA_LR", 0, 100)] = 0.01
    ttt_beta1: Annotated[float, Setting("TTT_BETA1", 0, 0.99999)] = 0.9
    ttt_beta2: Annotated[float, Setting("TTT_BETA2", 0, 0.99999)] = 0.95
    ttt_grad_steps: Annotated[int, Setting("TTT_GRAD_STEPS", 1, 10_000)] = 1
    # Tokens of a document that are scored before the adapters learn from them.
    ttt_chunk_size: Annotated[int, Setting("TTT_CHUNK_SIZE", 1, 1 << 24)] = 256
    # Documents side by side.
    ttt_batch_size: Annotated[int, Setting("TTT_BATCH_SIZE", 1, 1 << 20)] = 64
    # The first documents, and in how many parts they are: after each part all weights are trained.
    phased_prefix_docs: Annotated[int, Setting("PHASED_TTT_PREFIX_DOCS", 1, 10**9)] = 2_000
    phased_num_phases: Annotated[int, Setting("PHASED_TTT_NUM_PHASES", 1, 10**6)] = 3
    # Begins a document.
    bos_id: Annotated[int, Setting("BOS_ID", 0, (1 << 17) - 1)] = 1
    eval_only: Annotated[bool, Setting("EVAL_ONLY")] = False
    repack_only: Annotated[bool, Setting("REPACK_ONLY")] = False
    serve_only: Annotated[bool, Setting("SERVE_ONLY")] = False
    # Score the float, averaged and quantized weights too, before the scored evaluation.
    diagnostics: Annotated[bool, Setting("DIAGNOSTICS")] = False

    def check_together(self) -> None:
        """Parts that are adapted must be parts of a model; what is carried on is not read again."""
        if self.eval_carry and self.eval_stride:
            raise ConfigError(f"EVAL_CARRY_STATE: needs EVAL_STRIDE=0, not {self.eval_stride}")
        if self.eval_isolate_docs and self.ttt_enabled and not (self.eval_carry or self.has_adapters):
            raise ConfigError(f"EVAL_ISOLATE_DOCS: TTT_KIND={self.ttt_kind} needs EVAL_CARRY_STATE=1 for it")
        if self.eval_lanes > 1 and (self.ttt_enabled or self.eval_isolate_docs or not self.eval_carry):
            raise ConfigError("EVAL_LANES: is for EVAL_CARRY_STATE=1 without TTT_ENABLED and EVAL_ISOLATE_DOCS")
        if unknown := [part for part in self.lora_parts if part not in LORA_PARTS]:
            raise ConfigError(f"TTT_LORA_PARTS: {unknown[0]!r} is not one of {', '.join(LORA_PARTS)}")
        if self.phased_num_phases > self.phased_prefix_docs:
            phases, documents = self.phased_num_phases, self.phased_prefix_docs
            raise ConfigError(f"PHASED_TTT_NUM_PHASES: {phases} of {documents} documents, PHASED_TTT_PREFIX_DOCS")

    @property
    def lora_parts(self) -> tuple[str, ...]:
        """Which parts of the model have adapters."""
        return tuple(part.strip() for part in self.ttt_lora_parts.split(","))

    @property
    def by_document(self) -> bool:
        """Whether it matters where documents begin."""
        return self.eval_isolate_docs or (self.ttt_enabled and self.ttt_kind != "sgd")

    @property
    def has_adapters(self) -> bool:
        """Whether documents have adapters of their own."""
        return self.ttt_enabled and self.ttt_kind in {"lora", "phased_lora"}

    @property
    def isolates(self) -> bool:
        """Whether a score depends on its own document alone, but for what weights have learned."""
        return self.eval_isolate_docs or self.has_adapters

    def untrained(self) -> EvalConfig:
        """The same without training at test time; documents that adapters kept apart stay apart.

        So the two differ by training alone, and a memory that may go on beside adapters may go on without them.
        """
        return replace(self, ttt_enabled=False, eval_isolate_docs=self.isolates)
