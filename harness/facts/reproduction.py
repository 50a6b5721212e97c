"""What `harness reproduce` measured: read back from an evidence directory, never from the submission."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Fact


@dataclass(frozen=True, slots=True)
class SeedMeasurement:
    """One seed that was run.

    Attributes:
        seed: the seed given to the script.
        outcome: `ok`, or the failure: `crash`, `timeout`, `no_artifact`, `no_metric`, `nan`.
        detail: one line on the failure.
        val_bpb: measured bits per byte of the scored evaluation.
        val_loss: nats per token.
        steps: optimizer steps.
        step_milliseconds: mean duration of a step.
        train_seconds: training time by the harness' own clock.
        eval_seconds: evaluation time by the harness' own clock.
        artifact_bytes: code plus model, recounted from disk.
        artifact_sha256: hash of the model file.
        repacked: Located(True) when repacking the saved weights gave the same bytes; Missing where not declared.
        rescored_val_bpb: value of the second scoring, from disk, in a fresh process without training data.
        peak_memory_bytes: peak resident memory of the process tree.
    """

    seed: int
    outcome: str
    detail: str
    val_bpb: Fact[float]
    val_loss: Fact[float]
    steps: Fact[int]
    step_milliseconds: Fact[float]
    train_seconds: Fact[float]
    eval_seconds: Fact[float]
    artifact_bytes: Fact[int]
    artifact_sha256: Fact[str]
    repacked: Fact[bool]
    rescored_val_bpb: Fact[float]
    peak_memory_bytes: Fact[int]


@dataclass(frozen=True, slots=True)
class ReproductionFacts:
    """A whole reproduction and the conditions under which it ran.

    Attributes:
        folder_sha256: hash of the submission's files when it ran; a different folder now makes it stale.
        stale: True when the folder was changed since.
        comparable: Located(True) when data, steps and limits equal the claim's; Located(False) when the run was
            shrunk or used other data, so that values must not be compared with the claim.
        train_limit_seconds: wallclock limit given to training.
        isolation: isolation level in force (`L1`...).
        seeds: one entry for each seed, in order.
    """

    folder_sha256: str
    stale: bool
    comparable: Fact[bool]
    train_limit_seconds: Fact[float]
    isolation: str
    seeds: tuple[SeedMeasurement, ...]
