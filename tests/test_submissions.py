"""The record folders of this project: made whole by the command, never by hand, and free of findings."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.reproduce import trusted
from reference_model.config import Config
from reference_model.fullsize import read_rows, table
from reference_model.presets import PRESETS
from reference_model.published import PUBLISHED
from reference_model.release import readme
from reference_model.releases import RELEASES, claim_of, full_size_lines, narrow_settings, presets_table

ROOT = Path(__file__).resolve().parent.parent
SUBMISSIONS, PAGE, MEASURED = ROOT / "submissions", ROOT / "docs" / "presets.md", ROOT / "docs" / "fullsize.json"


def manifest_of(slug: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SUBMISSIONS / slug / "submission.json").read_text(encoding="utf-8"))
    return document


def test_every_release_has_its_folder_and_every_folder_its_release() -> None:
    assert {path.name for path in SUBMISSIONS.iterdir() if path.is_dir()} == set(RELEASES)
    assert {plan.preset for plan in RELEASES.values()} == {"demo", *PUBLISHED}


def test_the_list_of_our_own_scripts_is_current() -> None:
    assert set(trusted.compute(SUBMISSIONS).values()) == set(trusted.load())


@pytest.mark.parametrize("slug", RELEASES)
def test_a_folder_is_what_the_command_made(slug: str) -> None:
    folder, plan, manifest = SUBMISSIONS / slug, RELEASES[slug], manifest_of(slug)
    script = (folder / "train_gpt.py").read_text(encoding="utf-8")
    assert (folder / "README.md").read_text(encoding="utf-8") == readme(plan, manifest)
    assert manifest["bytes_code"] == len(script.encode())
    assert f"preset {plan.preset}," in (ast.get_docstring(ast.parse(script)) or "")
    logs = {f"train_seed{seed}.log" for seed in plan.seeds}
    assert {path.name for path in folder.iterdir()} == {"README.md", "submission.json", "train_gpt.py", *logs}
    for log in logs:
        # The run that the numbers are of had this very script.
        assert script in (folder / log).read_text(encoding="utf-8")


@pytest.mark.parametrize("slug", RELEASES)
def test_a_folder_passes_its_audit(slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(SUBMISSIONS / slug), "--strict"]) == 0
    assert capsys.readouterr().out.startswith("PASS")


@pytest.mark.parametrize("preset", PUBLISHED)
def test_narrow_runs_keep_every_layer(preset: str) -> None:
    config = Config.from_environment(narrow_settings(preset), PRESETS[preset])
    assert config.model.num_layers == PRESETS[preset].model.num_layers
    assert config.model.hybrid_layers == PRESETS[preset].model.hybrid_layers
    assert bool(config.model.sliding_window) == bool(PRESETS[preset].model.sliding_window)
    assert config.model.sliding_window < config.train.train_seq_len


def test_the_presets_page_has_the_tables_of_the_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert presets_table() in text
    rows = read_rows(MEASURED)
    assert set(rows) <= set(PUBLISHED)
    assert table(rows[preset] for preset in sorted(rows)) in text
    commands = [published.environment for published in PUBLISHED.values() if published.environment]
    assert [command for command in commands if command not in text] == []


@pytest.mark.parametrize("preset", PUBLISHED)
def test_full_size_measurements_are_those_of_the_preset(preset: str) -> None:
    measured, manifest = read_rows(MEASURED).get(preset), manifest_of(f"hymba_{preset}")
    assert manifest.get("full_size") == (None if measured is None else measured.as_json())
    if measured is not None:
        assert measured.parameters == (PUBLISHED[preset].parameters or measured.parameters)


def test_claims_in_words() -> None:
    assert claim_of(PUBLISHED["pr599"]) == (
        "1.1828 ± 0.0036 bits per byte (8xH100, 600 s of training), 15,179,444 bytes of code and model"
    )
    assert claim_of(PUBLISHED["pr852"]).endswith(", 14.5 MB of code and model")
    assert claim_of(PUBLISHED["pr852_records"]).startswith("no score (")


def test_an_artifact_above_the_cap_is_said_to_be() -> None:
    row = read_rows(MEASURED)["pr599"].as_json()
    above = "\n".join(full_size_lines({**row, "trained_bytes": 16_000_000}, code_bytes=5))
    assert "5 bytes of code 5 above the cap" in above
    assert list(full_size_lines(None, code_bytes=5)) == []
