"""A log of the claimed run against what the settings say: what it shows ran, what it lacks may not have run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import audit
from harness.analysis.answers import Reason, Setting, Stated
from harness.facts.build_stated import contradicted
from harness.model import Finding, Located, Location

SCRIPT = """
import os
import torch

class Net(torch.nn.Module):
    pass

def log0(text):
    print(text)

def adapt(net, held):
    log0(f"adapt:start tokens:{len(held)}")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    loss = net(held[:-1], held[1:])
    loss.backward()
    optimizer.step()

def rate(net, held):
    return net(held[:-1], held[1:]).item()

def main():
    log0("reading the shards")
    held = torch.load("data/fineweb_val_000000.bin")
    net = Net()
    log0("building the model")
    if int(os.environ.get("ADAPT_ENABLED", "DEFAULT")):
        adapt(net, held)
    log0("scoring the split")
    bits = rate(net, held)
    log0(f"final_exact val_loss:{bits:.8f} val_bpb:{bits:.8f}")

main()
"""
ADAPTED = "adapt:start tokens:1024"
STEPS = "step:1/2 train_loss:3.0 train_time:10ms step_avg:10.00ms\nstep:2/2 train_loss:2.0 train_time:20ms\n"


def finding(
    folder: Path,
    default: str,
    lines: tuple[str, ...],
    *,
    readme: str = "A run.",
    claim: float | None = 1.25,
    script: str = SCRIPT,
) -> Finding:
    """PG601 on a folder whose log holds these lines beside those of every run."""
    folder.mkdir()
    (folder / "train_gpt.py").write_text(script.replace("DEFAULT", default))
    (folder / "README.md").write_text(readme)
    (folder / "submission.json").write_text(json.dumps({"name": "x", "val_bpb": claim}))
    told = ("reading the shards", "building the model", STEPS, *lines, "scoring the split")
    last = "final_exact val_loss:2.80000000 val_bpb:1.25000000\n"
    (folder / "train_seed42.log").write_text("\n".join((*told, last)))
    audited = audit.audit_folder(folder, audit.Options(frozenset({"PG601"})))
    assert audited.report is not None, audited.crashes
    (found,) = audited.report.findings
    return found


@pytest.mark.parametrize("claim", [1.25, None])
def test_a_log_without_the_lines_of_what_a_default_switches_on_leaves_it_open(
    claim: float | None, tmp_path: Path
) -> None:
    found = finding(tmp_path / "silent", "1", (), claim=claim)
    assert found.verdict == "undecided"
    assert "the log at train_seed42.log lacks `adapt:start tokens:`, which it prints" in found.message
    assert finding(tmp_path / "shown", "1", (ADAPTED,), claim=claim).verdict == "fail"


def test_a_line_that_another_print_makes_too_shows_nothing(tmp_path: Path) -> None:
    script = SCRIPT.replace("    optimizer.step()\n", "    optimizer.step()\n    log0('stage is over')\n")
    script = script.replace('    log0("scoring', "    log0('stage is over')\n    log0(\"scoring")
    assert finding(tmp_path / "silent", "1", ("stage is over",), script=script).verdict == "undecided"
    assert finding(tmp_path / "shown", "1", (ADAPTED, "stage is over"), script=script).verdict == "fail"


def test_a_command_may_be_another_runs_and_a_logged_setting_is_not(tmp_path: Path) -> None:
    command = "```\nADAPT_ENABLED=1 python train_gpt.py\n```\n"
    assert finding(tmp_path / "commanded", "0", (), readme=command).verdict == "undecided"
    assert finding(tmp_path / "both", "0", (ADAPTED,), readme=command).verdict == "fail"
    logged = "Hyperparameters:\n  adapt_enabled: 1"
    assert finding(tmp_path / "logged", "0", (logged,)).verdict == "fail"
    # What a log says both of leaves it open.
    assert finding(tmp_path / "odd", "1", (logged.replace("1", "0") + "\n" + "=" * 100, ADAPTED)).verdict == "undecided"


def test_a_text_in_a_setting_or_in_another_word_is_no_line_of_the_run(tmp_path: Path) -> None:
    assert finding(tmp_path / "word", "0", (f"re{ADAPTED}",)).verdict == "pass"
    assert finding(tmp_path / "comment", "0", ("    # adapt:start tokens: printed",)).verdict == "pass"


def test_a_log_of_another_form_or_of_another_run_says_nothing(tmp_path: Path) -> None:
    # Its script prints nothing of what is in it but the score.
    other = finding(tmp_path / "claimed_elsewhere", "1", (), claim=1.1)
    assert other.verdict == "fail"


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ((ADAPTED,), "fail"),
        ((), "pass"),
        # A line of the script's source, as some logs embed it.
        (('    log0(f"adapt:start tokens:{len(held)}")',), "pass"),
    ],
)
def test_a_log_with_its_lines_shows_that_it_ran_whatever_the_default(
    lines: tuple[str, ...], verdict: str, tmp_path: Path
) -> None:
    found = finding(tmp_path / "folder", "0", lines)
    assert found.verdict == verdict
    if verdict == "fail":
        assert "`adapt:start tokens:` is printed (log at train_seed42.log:6)" in found.message


LOOKED_UP = """
import os
import numpy as np

mode = os.environ.get("EVAL_MODE", "plain")

def eval_cache(model, table, x, targets):
    key = (x ^ (targets * 31)) & 63
    p = table[key] / 2
    return -np.log(0.5 * model(x) + 0.5 * p)

def main():
    if mode == "cache":
        print("val_bpb", eval_cache(model, table, x, targets))

main()
"""


@pytest.mark.parametrize(
    ("readme", "verdict"), [("Ours has EVAL_MODE=cache in it.", "undecided"), ("A model.", "pass")]
)
def test_a_sentence_against_a_default_leaves_a_use_of_the_target_open(
    readme: str, verdict: str, tmp_path: Path
) -> None:
    (tmp_path / "train_gpt.py").write_text(LOOKED_UP)
    (tmp_path / "README.md").write_text(readme)
    audited = audit.audit_folder(tmp_path, audit.Options(frozenset({"PG620"})))
    assert audited.report is not None, audited.crashes
    (found,) = audited.report.findings
    assert found.verdict == verdict
    if verdict == "undecided":
        assert "the text at README.md:1 says EVAL_MODE=cache" in found.message


def test_a_log_without_a_run_may_name_the_claimed_score(tmp_path: Path) -> None:
    rule = audit.Options(frozenset({"PG301"}))
    finding(tmp_path / "folder", "0", (), claim=1.2345678)
    for other, verdict in (("", "fail"), ("Submission:   val_bpb = 1.23400000\n", "undecided")):
        (tmp_path / "folder" / "evaluation.log").write_text(other)
        audited = audit.audit_folder(tmp_path / "folder", rule)
        assert audited.report is not None
        assert [found.verdict for found in audited.report.findings] == [verdict]


@pytest.mark.parametrize(
    ("name", "said", "doubted"),
    [
        ("TTT_EPOCHS", "8", False),
        ("TTT_EPOCHS", "3", False),
        # Once is another thing than several times, and a way is chosen by its number.
        ("TTT_EPOCHS", "1", True),
        ("TTT_EPOCHS", "0", True),
        ("TTT_EPOCHS", "many", True),
        ("TTT_MODE", "8", True),
    ],
)
def test_other_numbers_of_epochs_are_no_contradiction(name: str, said: str, *, doubted: bool) -> None:
    where = Location("README.md", 3)
    stated = Stated({}, {}, mentioned={name: (Setting(said, "README", where),)})
    found = contradicted([Reason(name, "3", "default", Location("train_gpt.py", 1))], stated)
    assert found == (Located(f"{name}={said}", where) if doubted else None)
    assert contradicted([Reason(name, "3", "log", where)], stated) is None
