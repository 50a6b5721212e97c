"""Family package: what is missing, what does not parse."""

from __future__ import annotations

import dataclasses

import pytest

from harness.checks import package as checks
from harness.facts.package import ShippedFile
from harness.model import Located, Location, Missing, Outcome, Verdict
from tests import factories
from tests.factories import at


def decided(rule: factories.AnyRule, **changes: object) -> Outcome:
    outcome = rule.check(factories.submission(package=factories.package(**changes)))
    assert outcome is not None
    return outcome


def test_a_folder_without_the_four_files_fails_by_name() -> None:
    gone = Missing("no such file")
    assert decided(checks.readme_missing, readme=gone).verdict is Verdict.FAIL
    assert decided(checks.manifest_missing, manifest=gone).verdict is Verdict.FAIL
    assert decided(checks.log_missing, logs=(), files=()).verdict is Verdict.FAIL
    unrelated = (ShippedFile("model.int8.gz", 10), ShippedFile("requirements.txt.gz", 5))
    assert decided(checks.log_missing, logs=(), files=unrelated).verdict is Verdict.FAIL
    assert decided(checks.script_missing, entry=gone, scripts=()).verdict is Verdict.FAIL


def test_a_text_file_that_may_be_a_log_leaves_the_rule_undecided() -> None:
    outcome = decided(checks.log_missing, logs=(), files=(ShippedFile("results.tsv", 10), ShippedFile("README.md", 5)))
    assert outcome.verdict is Verdict.UNDECIDED
    assert outcome.locations == (Location("results.tsv"),)


def test_other_names_are_noted_not_judged() -> None:
    manifest = decided(checks.manifest_missing, manifest=at("submission_b.json", "submission_b.json"))
    entry = decided(checks.script_missing, entry=at(factories.script(path="train_b.py"), "train_b.py"))
    assert manifest.verdict is entry.verdict is Verdict.PASS
    assert "submission_b.json" in manifest.notes[0]
    assert "train_b.py" in entry.notes[0]


def test_several_scripts_without_a_plain_entry_are_undecided() -> None:
    outcome = decided(checks.script_missing, entry=Missing("two scripts train"))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "two scripts train" in outcome.message


def test_a_parse_error_and_a_schema_problem_are_different_rules() -> None:
    broken = (Located("unexpected end", Location("submission.json", line=3)),)
    invalid = (Located("is 'TBD', expected a number", Location("submission.json", pointer="/val_bpb")),)
    assert decided(checks.manifest_unreadable, manifest_problems=broken).verdict is Verdict.FAIL
    assert decided(checks.manifest_invalid, manifest_problems=broken).verdict is Verdict.UNDECIDED
    assert decided(checks.manifest_unreadable, manifest_problems=invalid).verdict is Verdict.PASS
    outcome = decided(checks.manifest_invalid, manifest_problems=invalid)
    assert outcome.verdict is Verdict.WARN
    assert "/val_bpb is 'TBD'" in outcome.message


def test_a_key_given_twice_is_no_parse_error() -> None:
    twice = (Located("has the key 'name' twice", Location("submission.json")),)
    assert decided(checks.manifest_unreadable, manifest_problems=twice).verdict is Verdict.PASS
    assert decided(checks.manifest_invalid, manifest_problems=twice).verdict is Verdict.WARN


def test_a_manifest_refused_as_a_whole_is_undecided() -> None:
    huge = (Located("is larger than 1,000,000 bytes", Location("submission.json")),)
    submission = dataclasses.replace(
        factories.blank(), package=factories.package(manifest_problems=huge), claims=factories.blank().claims
    )
    for rule in (checks.manifest_unreadable, checks.manifest_invalid):
        outcome = rule.check(submission)
        assert outcome is not None
        assert outcome.verdict is Verdict.UNDECIDED
        assert "larger than" in outcome.message


def test_a_broken_entry_fails_and_a_broken_helper_warns() -> None:
    broken = factories.script(parsed=at(value=False, path="train_gpt.py", line=7), problem="invalid syntax")
    outcome = decided(checks.script_does_not_parse, entry=at(broken, "train_gpt.py"))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.locations == (Location("train_gpt.py", 7),)
    helper = factories.script(path="helper.py", parsed=at(value=False, path="helper.py", line=2), problem="bad")
    outcome = decided(checks.script_does_not_parse, scripts=(factories.script(), helper))
    assert outcome.verdict is Verdict.WARN
    assert outcome.locations == (Location("helper.py", 2),)


def test_a_script_that_no_parser_here_understands_is_undecided() -> None:
    newer = factories.script(parsed=Missing("newer syntax"))
    assert decided(checks.script_does_not_parse, entry=at(newer)).verdict is Verdict.UNDECIDED
    assert decided(checks.own_module_missing, entry=at(newer)).verdict is Verdict.UNDECIDED


def test_the_layers_of_a_packed_script_are_told() -> None:
    packed = at(factories.script(layers=("base85", "lzma")), "train_gpt.py")
    assert "unpacked from lzma in base85" in decided(checks.script_does_not_parse, entry=packed).message


def test_an_absent_module_warns_at_its_import() -> None:
    entry = factories.script(missing_modules=(at("my_model", "train_gpt.py", 4),))
    outcome = decided(checks.own_module_missing, entry=at(entry, "train_gpt.py"))
    assert outcome.verdict is Verdict.WARN
    assert outcome.locations == (Location("train_gpt.py", 4),)


def test_an_absent_module_that_nothing_speaks_of_fails() -> None:
    gone = (at("my_model", "train_gpt.py", 4),)
    entry = factories.script(missing_modules=gone, undeclared_modules=gone)
    assert decided(checks.own_module_missing, entry=at(entry, "train_gpt.py")).verdict is Verdict.FAIL


def test_an_unfinished_run_warns_and_an_unclear_one_is_undecided() -> None:
    stopped = factories.run(2, complete=at(value=False, path="train_seed2.log", line=44))
    outcome = checks.run_unfinished.check(factories.submission(runs=(factories.run(1), stopped)))
    assert outcome is not None
    assert outcome.verdict is Verdict.WARN
    assert outcome.locations == (Location("train_seed2.log", 44),)
    unclear = factories.run(2, complete=Missing("an unknown log family"))
    outcome = checks.run_unfinished.check(factories.submission(runs=(factories.run(1), unclear)))
    assert outcome is not None
    assert outcome.verdict is Verdict.UNDECIDED
    assert "an unknown log family" in outcome.message


def test_what_was_not_read_is_undecided() -> None:
    refused = (Located("a link that leaves the folder", Location("data")),)
    assert decided(checks.entry_refused, refused=refused).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("path", ["log_seed7.txt.gz", "logs.zip", "logs.tar.gz", "runs/train.LOG.xz", "seed7.txt.zst"])
def test_a_compressed_file_named_like_a_log_leaves_the_log_undecided(path: str) -> None:
    outcome = decided(checks.log_missing, logs=(), files=(ShippedFile(path, 10),))
    assert outcome.verdict is Verdict.UNDECIDED
    assert [place.path for place in outcome.locations] == [path]
