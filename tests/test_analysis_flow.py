"""The flow of the realized target: what is a key, a look-up, a choice, and what only looks like one."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import flowwords, targets
from harness.analysis.configuration import Configuration
from harness.analysis.flow import Skipped
from harness.analysis.index import Index
from harness.analysis.labels import Label
from harness.analysis.program import Module, Program
from harness.analysis.reach import Reach
from harness.model import Location

PATH = "train_gpt.py"


def uses(source: str) -> list[tuple[Label, list[int | None]]]:
    text = textwrap.dedent(source)
    module = Module(Index(ast.parse(text)), lambda line: Location(PATH, line))
    found = targets.target_uses(Program(module, {}), {PATH: text})
    return [(use.kind, [step.location.line for step in use.steps if step.what]) for use in found]


def kinds(source: str) -> set[Label]:
    return {kind for kind, _ in uses(source)}


def test_a_hashed_look_up_is_followed_through_helpers_tuples_and_lists() -> None:
    source = """
        def keys(context, nxt, mask):
            full = context ^ (nxt * 31)
            return context & mask, full & mask

        class Cache:
            def probability(self, x, y):
                both = []
                for order in range(3):
                    both.append(keys(x, y, self.mask))
                ctx, full = both[0]
                return np.minimum(self.full[full], self.ctx[ctx]) / self.ctx[ctx]

        def eval_loop(model, cache, x, targets):
            p = np.zeros(8)
            p[:] = cache.probability(x, targets)
            return -np.log(0.5 * model(x) + 0.5 * p)
    """
    assert uses(source) == [(Label.COUNT, [3, 12, 17])]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("an update after the score", "table[key] += 1\n    loss = -np.log(p)"),
        ("the context alone", "p = table[(x * 31) % 64] / 2\n    loss = -np.log(p)"),
        ("bytes of the target", "n = base_bytes[targets]\n    loss = -np.log(p) / n"),
        ("an embedding", "h = self.embed(key)\n    loss = -np.log(p)"),
    ],
)
def test_what_is_no_look_up_of_the_target(what: str, line: str) -> None:
    source = (
        f"def evaluate(self, table, x, targets, p):\n    key = (x ^ (targets * 7)) & 63\n    {line}\n    return loss\n"
    )
    assert kinds(source) == set(), what


def test_training_is_not_scoring() -> None:
    source = """
        def train(table, x, y, p):
            q = table[(x ^ (y * 7)) & 63] / 2
            (-torch.log(q)).mean().backward()
    """
    assert kinds(source) == set()


def test_a_model_prior_and_an_exact_pair_have_kinds_of_their_own() -> None:
    prior = """
        def evaluate(table, totals, x, y, p):
            count = table[(x ^ (y * 7)) & 63]
            q = (count + 5.0 * p) / (totals[x & 63] + 5.0)
            return -np.log(q)
    """
    pair = """
        def evaluate(table, totals, x, y, p):
            q = table.get(x ^ (y * 7), 0) / totals[x]
            return -np.log(q)
    """
    assert kinds(prior) == {Label.PRIOR}
    smoothed = prior.replace("q = (count + 5.0 * p)", "count += 5.0 * p; q = count")
    assert kinds(smoothed.replace("(totals[x & 63] + 5.0)", "(count + 5.0)")) == {Label.PRIOR}
    # What the divisor alone has added to it is no prior of the number above.
    assert kinds(prior.replace("count + 5.0 * p) / (totals[x & 63] + 5.0)", "count) / (count + 5.0)")) == {Label.COUNT}
    assert kinds(pair) == {Label.PAIR}


@pytest.mark.parametrize(("divisor", "found"), [("row.sum(1)", set()), ("totals[c]", {Label.FOREIGN})])
def test_a_hashed_row_is_divided_by_its_own_sum_or_not(divisor: str, found: set[Label]) -> None:
    source = f"""
        def evaluate(table, totals, x, targets):
            row = table[(x * 7 + torch.arange(vocab_size)) % 64]
            c = x % 64
            q = row.gather(1, targets) / {divisor}
            return -torch.log(q)
    """
    assert kinds(source) == found


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ("torch.minimum(a, b)", True),
        ("torch.where(a < b, a, b)", True),
        ("torch.where((a < b) & mask, a, b)", True),
        ("torch.where(better, a, b)", True),
        ("torch.where(earlier, a, b)", False),
        ("torch.stack([a, b]).amin(0)", True),
        ("a if a < b else b", True),
        ("b if earlier else a", False),
        ("better_of(a, b)", True),
        ("better_of(a.mean(), b.mean())", False),
        ("torch.minimum(a, limit)", False),
        ("torch.where(mask, a, b)", False),
        ("0.5 * (a + b)", False),
    ],
)
def test_a_choice_between_losses(choice: str, *, chosen: bool) -> None:
    source = f"""
        def evaluate(first, second, x, y, mask, limit):
            a = F.cross_entropy(first(x), y, reduction="none")
            b = F.cross_entropy(second(x), y, reduction="none")
            better = mask & (b > a)
            earlier = x < y
            def better_of(p, q):
                if p < q:
                    return p
                return q
            nll = {choice}
            loss_sum = 0.0
            loss_sum += nll.sum()
            best_loss = min(best_loss, loss_sum)
            return loss_sum
    """
    assert (Label.CHOSEN in kinds(source)) is chosen


@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("best[i] = torch.minimum(best[i], nll)", True),
        ("best[i] = min(best[i], nll)", True),
        ("best = min(best, nll)", False),
        ("best[i] = torch.minimum(nll, limit[i])", False),
        ("best[i] = nll", False),
    ],
)
def test_the_best_of_all_passes_is_a_choice(line: str, *, chosen: bool) -> None:
    source = f"""
        def evaluate(model, passes, x, y, i, limit):
            best = torch.full((8,), 1e9)
            for _ in range(passes):
                with torch.no_grad():
                    nll = F.cross_entropy(model(x), y, reduction="none")
                {line}
            return best.mean()
    """
    assert (Label.CHOSEN in kinds(source)) is chosen


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ("np.arange(n), y", True),
        ("rows, y", True),
        ("at, y[at]", True),
        # A table of pairs, the row of a batch, and a number of the input.
        ("x, y", False),
        ("at, 0", False),
        ("rows, x", False),
    ],
)
def test_a_loss_may_be_taken_by_place_and_target(rows: str, *, chosen: bool) -> None:
    source = f"""
        def evaluate(first, second, x, y, n):
            rows = np.arange(n)
            one, other = log_softmax(first(x)), log_softmax(second(x))
            nll = np.zeros(n)
            for at in range(n):
                nll[at] = np.minimum(-one[{rows}], -other[{rows}]).sum()
            return nll.sum()
    """
    assert (Label.CHOSEN in kinds(source)) is chosen


@pytest.mark.parametrize(
    ("second", "chosen"),
    [("loss_of(other, x, y)", True), ("loss", False), ("capped(loss)", False), ("capped(loss_of(other, x, y))", True)],
)
def test_a_helper_gives_another_loss_at_each_call(second: str, *, chosen: bool) -> None:
    source = f"""
        def loss_of(model, x, y):
            return F.cross_entropy(model(x), y, reduction="none")

        def capped(loss):
            return loss.clamp(max=20.0)

        def evaluate(model, other, x, y):
            loss = loss_of(model, x, y)
            nll = torch.minimum(loss, {second})
            return nll.sum()
    """
    assert (Label.CHOSEN in kinds(source)) is chosen


def test_the_place_and_the_target_take_a_number_of_a_hashed_row() -> None:
    source = """
        def evaluate(table, totals, x, targets):
            row = table[(x * 7 + torch.arange(vocab_size)) % 64]
            return -torch.log(row[torch.arange(8), targets] / totals[x])
    """
    assert kinds(source) == {Label.FOREIGN}


def test_targets_that_are_stored_into_a_buffer_are_targets() -> None:
    source = """
        def evaluate(first, second, tokens, i):
            x_batch, y_batch = torch.zeros(2, 8), torch.zeros(2, 8)
            x_batch[i], y_batch[i] = tokens[:-1], tokens[1:]
            a = F.cross_entropy(first(x_batch), y_batch, reduction="none")
            b = -second(x_batch).log_softmax(-1).gather(-1, {index}.unsqueeze(-1))
            nll = torch.minimum(a, b)
            return nll.sum()
    """
    assert kinds(source.format(index="y_batch")) == {Label.CHOSEN}
    assert kinds(source.format(index="x_batch")) == set()


@pytest.mark.parametrize(
    ("mask", "value", "chosen"),
    [
        ("better", "new_nll[better]", True),
        ("places[better]", "new_nll[better]", True),
        ("np.nonzero(better)[0]", "new_nll[better]", True),
        ("better & seen", "new_nll[better]", True),
        # A mask of the context, a clamp, losses beside a threshold, and what only counts.
        ("seen", "new_nll[seen]", False),
        ("better", "20.0", False),
        ("large", "new_nll[large]", False),
        ("better", "other[better]", False),
    ],
)
def test_a_mask_of_better_losses_is_a_choice(mask: str, value: str, *, chosen: bool) -> None:
    source = f"""
        def mix(nll, new_nll, other, seen):
            places = np.arange(8)
            better = new_nll < nll
            large = new_nll > 9.0
            nll[{mask}] = {value}
            return better.sum()
    """
    assert (Label.CHOSEN in kinds(source)) is chosen


def test_the_better_of_two_losses_within_is_a_choice_and_the_best_model_is_none() -> None:
    within = """
        def evaluate(nll, new_nll, old_nll, i):
            if new_nll < old_nll:
                nll[i] = new_nll
    """
    between = """
        def evaluate(history, val_loss, best_val_loss, i):
            if val_loss < best_val_loss:
                history[i] = val_loss
    """
    assert kinds(within) == {Label.CHOSEN}
    assert kinds(between) == set()


@given(st.text(alphabet="abty_0123", max_size=60))
def test_names_are_judged_quickly(name: str) -> None:
    assert flowwords.means_target(name) in {True, False}


def test_names_of_long_digits_do_not_explode() -> None:
    assert flowwords.means_target("y_" + "1" * 100_000)
    assert not flowwords.means_target("target_" + "ab" * 50_000)


def test_chains_of_branches_and_operators_do_not_recurse_for_ever() -> None:
    branches = "".join(f"    elif x == {n}:\n        key = x ^ (y * {n})\n" for n in range(400))
    chain = " + ".join(["x ^ y"] * 400)
    start, end = "def evaluate(table, x, y):\n    if x:\n        key = 0\n", "    return np.log(q)\n"
    source = f"{start}{branches}    q = table[({chain}) % 64]\n{end}"
    assert kinds(source) <= {Label.COUNT, Label.PAIR}


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("eval_loop", "return tokens[at] ^ 7", [2]),
        ("eval_loop", "return np.bitwise_xor(tokens[at], 7)", [2]),
        ("embed", "return tokens[at] ^ 7", []),
        ("eval_loop", "return tokens[at] * 7", []),
    ],
)
def test_keys_made_in_scoring_code_are_places_to_ask_about(name: str, body: str, expected: list[int]) -> None:
    text = f"def {name}(tokens, at):\n    {body}\n"
    module = Module(Index(ast.parse(text)), lambda line: Location(PATH, line))
    found = targets.scoring_hashes(Program(module, {}), {PATH: text})
    assert [home.at(getattr(node, "lineno", None)).line for home, node in found] == expected


def test_keys_that_scoring_code_asks_for_are_made_in_scoring_code() -> None:
    text = "def keys(tokens):\n    return tokens ^ 7\ndef eval_loop(tokens):\n    return keys(tokens)\n"
    module = Module(Index(ast.parse(text)), lambda line: Location(PATH, line))
    assert len(list(targets.scoring_hashes(Program(module, {}), {PATH: text}))) == 1


def test_of_two_branches_with_the_same_use_one_may_be_left_out() -> None:
    source = """
        import os
        blend = int(os.environ.get("BLEND", "0"))
        def evaluate(model, table, x, y):
            key = (x ^ (y * 7)) & 63
            if blend:
                p = 0.5 * table[key] / 2
            else:
                p = table[key] / 2
            return -np.log(p)
    """
    text = textwrap.dedent(source)
    program = Program(Module(Index(ast.parse(text)), lambda line: Location(PATH, line)), {})
    reach = Reach(program, Configuration(program))

    def lines(*skipped: Skipped) -> list[list[int | None]]:
        found = targets.target_uses(program, {PATH: text}, *skipped)
        return [[step.location.line for step in use.steps if step.what] for use in found]

    assert lines() == [[5, 7, 10]]
    assert lines(reach.skipped) == [[5, 9, 10]]
