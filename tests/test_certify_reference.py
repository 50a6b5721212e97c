"""The bundled reference model is certified on its own artifact, test-time training included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import audit
from harness.certify import certifying
from harness.certify.certifying import Request
from harness.reproduce import plan
from harness.sandbox.establish import establish
from harness.sandbox.levels import Level
from harness.sources.folder import walk
from reference_model.cli import bundled_script
from reference_model.config import Config
from reference_model.miniature import MINIATURE_SETTINGS, MINIATURE_VOCAB_SIZE, write_miniature_corpus
from reference_model.model import HymbaLM
from reference_model.presets import PRESETS
from reference_model.storage import pack_model

# Chunks of 128 tokens and windows of 32: the text crosses both.
TOKENS = 290


def make_folder(root: Path, settings: dict[str, str]) -> Path:
    """A record folder with a bundled script and the artifact of random weights, which adapting changes much."""
    folder = root / "record"
    folder.mkdir()
    config = Config.from_environment(settings, PRESETS["demo"])
    model = HymbaLM(config.model, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for weight in model.parameters():  # zero-initialized outputs would hide the blocks
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())), alpha=0.05)
    artifact = f"final_model.int{config.quant.bits}.ptz"
    (folder / artifact).write_bytes(pack_model(model.state_dict(), config))
    (folder / "train_gpt.py").write_text(bundled_script("demo"), encoding="utf-8")
    manifest: dict[str, Any] = {"name": "m", "author": "a", "github_id": "a", "date": "2026-04-01", "val_bpb": 1.5}
    manifest["reproduction"] = {
        "script": "train_gpt.py",
        "environment": settings,
        "artifact": artifact,
        "evaluate": {"EVAL_ONLY": "1"},
        "serve": {"SERVE_ONLY": "1"},
    }
    (folder / "submission.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"EVAL_STRIDE": "8", "TTT_ENABLED": "0"}], ids=["ttt", "stride"])
def test_the_reference_model_is_certified(changes: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    sandbox = establish()
    if sandbox.level == Level.L1:
        pytest.skip("no isolation here")
    corpus = write_miniature_corpus(tmp_path / "corpus")
    settings = {name: value for name, value in MINIATURE_SETTINGS.items() if name not in {"RUN_ID", "SEED"}} | changes
    folder = make_folder(tmp_path, settings)
    data = plan.Request(data=corpus / "datasets" / f"demo_sp{MINIATURE_VOCAB_SIZE}")
    made = plan.make(walk(folder), audit.read(folder, None), data)
    asked = Request(made, None, token_count=TOKENS, seconds=120.0, threads=1)
    found = certifying.certify(asked, tmp_path / "evidence", sandbox, lambda _: None)
    assert found["verdict"] == "pass", found["message"]
    assert found["claim"]["label"] == ("legal_ttt_exact" if not changes else "final_int6_roundtrip_exact")
    assert found["stream"]["predicted_bits"] == pytest.approx(found["claim"]["bits"], rel=1e-5)

    if not changes:
        # Without the training it is another predictor, which is not certified with this score.
        other = replace(asked, settings={"TTT_ENABLED": "0"})
        found = certifying.certify(other, tmp_path / "other", sandbox, lambda _: None)
        assert found["decoded"]["tokens_equal"]
        assert found["verdict"] != "pass", found["message"]
