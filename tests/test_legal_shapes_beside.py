"""Statistics that stand beside the score, and tables and hints of tokens that are known: not what they resemble.

Each legal script beside its violation, which differs in the one line that is exchanged; `test_legal_shapes` has others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shapes import fails, script

COUNTED = """
def evaluate(net, tokens):
    stats, seen = {"nats": 0.0, "other": 0.0}, {}
    for part in tokens.split(1025):
        x, y = part[None, :-1], part[1:]
        with torch.no_grad(): logits = net(x)[0]
        nll_a = F.cross_entropy(logits, y, reduction="none")
        nll_b = F.cross_entropy(logits / 1.1, y, reduction="none")
        stats["nats"] += nll_a.sum().item()
        BESIDE
    print("beside", stats["other"])
    return stats["KEY"] / tokens.numel()
"""
ORACLE = COUNTED.replace("BESIDE", 'stats["other"] += torch.minimum(nll_a, nll_b).sum().item()')
MARGIN = COUNTED.replace(
    "BESIDE",
    "wrong = logits.masked_fill(F.one_hot(y, 1024).bool(), -9.0).log_softmax(-1).gather(-1, y[:, None])\n"
    '        stats["other"] -= wrong.sum().item()',
)
SECOND = """
def both(net, tokens):
    total, oracle = 0.0, 0.0
    for part in tokens.split(1025):
        with torch.no_grad(): logits = net(part[None, :-1])[0]
        nll_a = F.cross_entropy(logits, part[1:], reduction="none")
        nll_b = F.cross_entropy(logits / 1.1, part[1:], reduction="none")
        total += nll_a.sum().item()
        oracle += torch.minimum(nll_a, nll_b).sum().item()
    return total / tokens.numel(), oracle / tokens.numel()
def evaluate(net, tokens):
    score, bound = both(net, tokens)
    print("oracle", bound)
    return RESULT
"""
DRAFT = """
def evaluate(net, tokens):
    total, missed_nll, guesses = 0.0, 0.0, TABLE[tokens]
    for at in range(0, len(tokens) - 1, 1024):
        y = tokens[at + 1 : at + 1025]
        with torch.no_grad(): logits = net(tokens[None, at : at + len(y)])[0]
        nll = F.cross_entropy(logits, y, reduction="none")
        hit = guesses[at : at + len(y)] == y
        rest_nll = nll.clone()
        rest_nll[hit] = 0.0
        total += nll.sum().item()
        missed_nll += rest_nll.sum().item()
    print("on its misses", missed_nll)
    return RESULT / tokens.numel()
"""
HEADS = """
def predict_loss(net, other, part):
    nll_a = F.cross_entropy(net(part[None, :-1])[0], part[1:], reduction="none")
    nll_b = F.cross_entropy(other(part[None, :-1])[0], part[1:], reduction="none")
    return torch.minimum(nll_a, nll_b).mean()
def fit_heads(net, other, tokens):
    for part in tokens.split(1025):
        loss = predict_loss(net, other, part)
        loss.backward()
def evaluate(net, tokens):
    fit_heads(net, Net(), load(TRAIN))
    return RESULT
"""
REPORTED = """
class Experts:
    def __init__(self): self.report = {}
def evaluate(net, tokens):
    experts, total = Experts(), 0.0
    for part in tokens.split(1025):
        with torch.no_grad(): logits = net(part[None, :-1])[0]
        nll_a = F.cross_entropy(logits, part[1:], reduction="none")
        nll_b = F.cross_entropy(logits / 1.1, part[1:], reduction="none")
        total += nll_a.sum().item()
        experts.report["nll"] = experts.report.get("nll", 0.0) + torch.minimum(nll_a, nll_b).sum().item()
    print(experts.report)
    return RESULT / tokens.numel()
"""
LEADER = """
def lead(nll): return LEADING
def evaluate(net, tokens):
    total = 0.0
    for part in tokens.split(1025):
        with torch.no_grad(): logits = net(part[None, :-1])[0]
        nll_a = F.cross_entropy(logits, part[1:], reduction="none")
        nll_b = F.cross_entropy(logits / 1.1, part[1:], reduction="none")
        total += torch.where(lead(nll_a) <= lead(nll_b), nll_a, nll_b).sum().item()
    return total / tokens.numel()
"""
SCALED = """
def evaluate(net, tokens):
    total, alpha = 0.0, 0.2
    for part in tokens.split(1025):
        y = part[None, 1:]
        with torch.no_grad(): logits = net(part[None, :-1])
        hot = F.one_hot(y, 1024).float()
        bias = alpha * hot.cumsum(1)
        OWN
        logits = logits + bias
        total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    return total / tokens.numel()
"""
MIXED = """
class Table:
    def prob(self, past, target, p):
        lam, hits = 0.5, self.rows[past].get(target, 0)
        BEFORE
        if hits > 0:
            p = (1.0 - lam) * p + lam * hits / self.sums[past]
        return p
def evaluate(net, tokens):
    table, total = Table(), 0.0
    for past, target in zip(tokens, tokens[1:]):
        total -= math.log(table.prob(past, target, float(net(past)[target])))
    return total / tokens.numel()
"""
KEYED = """
def evaluate(net, tokens):
    table, total = torch.full((4096, 1024), 0.01), 0.0
    for part in tokens.split(1025):
        x, y = part[:-1], part[1:]
        with torch.no_grad(): p = net(x[None])[0].softmax(-1)
        KEY
        rows = table[(next_tok * 1543 + x * 389) % 4096]
        mixed = 0.9 * p + 0.1 * rows / rows.sum(-1, keepdim=True)
        total -= mixed.gather(1, y[:, None]).log().sum().item()
    return total / tokens.numel()
"""
SHIFTED = """
def evaluate(net, tokens):
    table, total = torch.full((4096, 1024), 0.01), 0.0
    for at in range(0, len(tokens), 1024):
        y = tokens[at : at + 1024]
        x = SHIFT
        rows = table[(x * 7919 + 31) % 4096]
        mixed = 0.9 * net(x[None])[0].softmax(-1) + 0.1 * rows / rows.sum(-1, keepdim=True)
        total -= mixed.gather(1, y[:, None]).log().sum().item()
    return total / tokens.numel()
"""
PLACED = """
def evaluate(net, tokens):
    y, total, table = tokens.numpy(), 0.0, np.full((4096, 1024), 0.01)
    for i in range(2, len(y)):
        y1, y2 = PLACES
        row = table[(y1 * 31337 + y2 * 7919) % 4096]
        total -= math.log((row / row.sum())[y[i]])
        row[y[i]] += 1
    return total / len(y)
"""
HINTED = """
def hints(tokens, starts, table):
    hint = np.full(len(tokens), -1)
    for i in range(len(tokens)):
        tok = int(tokens[i])
        opens = starts[tok]
        if opens: hint[i] = table[tok]
    return hint
def evaluate(net, ids):
    total = 0.0
    for part in ids.split(1025):
        before, after = part[:-1], part[1:]
        logits = net(before[None])[0]
        hint = torch.from_numpy(hints(GIVEN.numpy(), STARTS, TABLE))
        where = (hint >= 0).nonzero().squeeze(1)
        logits[where, hint[where]] += 0.4
        total += F.cross_entropy(logits, after, reduction="sum").item()
    return total / ids.numel()
"""
GATED = """
def gate(lp_a, lp_b):
    h_a, h_b = -(lp_a.exp() * lp_a).sum(-1), -(lp_b.exp() * lp_b).sum(-1)
    flat = torch.full_like(h_a, 7.0)
    energy = torch.stack([h_a, flat, flat + 1], dim=-1)
    return RESULT
def evaluate(net, tokens):
    total = 0.0
    for part in tokens.split(1025):
        lp = net(part[None, :-1])[0].log_softmax(-1)
        lp_b = TABLE[part[:-1]]
        weights = gate(lp, lp_b)
        nlls = torch.stack([-each.gather(1, part[1:, None])[:, 0] for each in (lp, lp_b, lp_b)], -1)
        total -= (weights - nlls).logsumexp(-1).sum().item()
    return total / tokens.numel()
"""


@pytest.mark.parametrize(
    ("code", "functions", "mark", "legal", "illegal"),
    [
        pytest.param("PG622", ORACLE, "KEY", "nats", "other", id="entry"),
        pytest.param("PG624", MARGIN, "KEY", "nats", "other", id="margin"),
        pytest.param("PG622", SECOND, "RESULT", "score", "bound", id="member"),
        pytest.param("PG622", DRAFT, "RESULT", "total", "missed_nll", id="draft"),
        pytest.param("PG622", REPORTED, "RESULT", "total", 'experts.report["nll"]', id="attribute"),
        pytest.param(
            "PG622", HEADS, "RESULT", "score(net, tokens)", "float(predict_loss(net, Net(), tokens))", id="training"
        ),
        pytest.param("PG622", LEADER, "LEADING", "nll.cumsum(0) - nll", "nll.cumsum(0)", id="leader"),
        pytest.param("PG624", SCALED, "OWN", "bias = bias - alpha * hot", "bias = bias + alpha * hot", id="own"),
        pytest.param("PG621", MIXED, "BEFORE", "p = (1.0 - lam) * p", "p = p * 1.0", id="everybody"),
        pytest.param(
            "PG621", MIXED, "BEFORE", "if hits == 0: p = (1.0 - lam) * p", "if hits == 0: p = p * 1.0", id="unseen"
        ),
        pytest.param("PG620", KEYED, "KEY", "next_tok = p.argmax(-1)", "next_tok = y.clone()", id="guess"),
        pytest.param("PG620", SHIFTED, "SHIFT", "F.pad(y[:-1], (1, 0))", "F.pad(y[:-1], (0, 1))", id="shift"),
        pytest.param("PG620", PLACED, "PLACES", "y[i - 1], y[i - 2]", "y[i], y[i - 1]", id="places"),
        pytest.param("PG623", HINTED, "GIVEN", "before", "after", id="hints"),
        pytest.param(
            "PG621",
            GATED,
            "RESULT",
            "-energy - torch.logsumexp(-energy, dim=-1, keepdim=True)",
            "energy * 1.0 - torch.logsumexp(-energy, dim=-1, keepdim=True)",
            id="weights",
        ),
    ],
)
def test_what_stands_beside_the_score(
    tmp_path: Path, code: str, functions: str, mark: str, legal: str, illegal: str
) -> None:
    assert fails(tmp_path, script(functions.replace(mark, legal), score="evaluate(net, held)")) == set()
    assert code in fails(tmp_path, script(functions.replace(mark, illegal), score="evaluate(net, held)"))
