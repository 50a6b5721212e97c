"""Legal scripts in shapes that reading once took for violations, each beside what it must not be mistaken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import test_legal_shapes_values as values
from tests.shapes import BASE, fails, script

MIXED = """
def evaluate(net, other, tokens):
    total = oracle = 0.0
    for part in tokens.split(1025):
        x, y = part[None, :-1], part[1:]
        nll_a = F.cross_entropy(net(x)[0], y, reduction="none")
        nll_b = F.cross_entropy(other(x)[0], y, reduction="none")
        low = torch.minimum(nll_a, nll_b)
        mixed = low - torch.log(0.5 * torch.exp(low - nll_a) + 0.5 * torch.exp(low - nll_b))
        total += mixed.sum().item()
    print("bound", oracle)
    return total
"""
CHOSEN = MIXED.replace("low - torch.log", "low + 0 * torch.cos")


LEGAL = {
    "a reader of both splits": BASE
    + """
def opened(split):
    if split == "val":
        return load(VAL)
    return load(TRAIN)
def main():
    net = Net()
    fit(net, opened("train"))
    loss = score(net, opened("val"))
    print(f"final val_bpb:{loss:.6f}")
main()
""",
    "the chunk of the round before": script(
        """
def evaluate(net, tokens):
    opt, total, chunks = torch.optim.SGD(net.parameters(), lr=0.01), 0.0, tokens.split(1025)
    for i in range(len(chunks) + 1):
        if i:
            old = chunks[i - 1]
            nll(net, old[None]).mean().backward(); opt.step(); opt.zero_grad()
        if i < len(chunks):
            new = chunks[i]
            total += nll(net, new[None]).sum().item()
    return total
""",
        score="evaluate(net, held)",
    ),
    "two halves, the first scored before": script(
        """
def evaluate(net, tokens):
    opt, total = torch.optim.SGD(net.parameters(), lr=0.01), 0.0
    for part in tokens.split(1024):
        part = part[None]
        head = nll(net, part[:, :513])
        head.mean().backward(); opt.step(); opt.zero_grad()
        tail = nll(net, part[:, 512:])
        total += head.sum().item() + tail.sum().item()
    return total
""",
        score="evaluate(net, held)",
    ),
    "a copy is warmed up": script(
        "def warm(net, tokens):\n    net = copy.deepcopy(net)\n    fit(net, tokens[:4096])\n", "warm(net, held)"
    ),
    "weights set again by a function": script(
        "def restore(net, saved): net.load_state_dict(saved)\n",
        "saved = copy.deepcopy(net.state_dict()); fit(net, held[:4096]); restore(net, saved)",
    ),
    "an artifact from before": script(
        "def reread():\n    net = Net(); net.load_state_dict(torch.load('model.pt')); return net\n",
        "torch.save(net.state_dict(), 'model.pt'); fit(net, held[:4096]); net = reread()",
    ),
    "an entry of a table": script('CONF = {"adapt": False}\n', 'if CONF["adapt"]: fit(net, held)'),
    "a word of the command line": script("", 'if "--adapt" in sys.argv: fit(net, held)'),
    "behind a return": script("def tune(net, tokens):\n    return\n    fit(net, tokens)\n", "tune(net, held)"),
    "random numbers of its shape": script("", "fit(net, torch.randint_like(held[:4096], 1024))"),
    "the first round, in other words": script(
        """
def evaluate(net, tokens):
    opt, total = torch.optim.SGD(net.parameters(), lr=0.01), 0.0
    for part in tokens.split(1025):
        for epoch in range(3):
            losses = nll(net, part[None])
            if not epoch:
                total += losses.sum().item()
            losses.mean().backward(); opt.step(); opt.zero_grad()
    return total
""",
        score="evaluate(net, held)",
    ),
    "rounds that go on": script(
        """
def evaluate(net, tokens):
    opt, total, begin = torch.optim.SGD(net.parameters(), lr=0.01), 0.0, 0
    for _ in range(60_000):
        end = begin + 1024
        losses = nll(net, tokens[None, begin : end + 1])
        total += losses.sum().item()
        losses.mean().backward(); opt.step(); opt.zero_grad()
        begin = end
    return total
""",
        score="evaluate(net, held)",
    ),
    "the first round of those that begin with one": script(
        """
def evaluate(net, tokens):
    opt, total = torch.optim.SGD(net.parameters(), lr=0.01), 0.0
    for part in tokens.split(1025):
        for epoch in range(1, 4):
            losses = nll(net, part[None])
            if epoch == 1:
                total += losses.sum().item()
            losses.mean().backward(); opt.step(); opt.zero_grad()
    return total
""",
        score="evaluate(net, held)",
    ),
    "pieces that are taken off": script(
        """
def evaluate(net, tokens):
    opt, total, parts = torch.optim.SGD(net.parameters(), lr=0.01), 0.0, list(tokens.split(1025))
    for _ in range(1, 60_001):
        losses = nll(net, parts.pop(0)[None])
        total += losses.sum().item()
        losses.mean().backward(); opt.step(); opt.zero_grad()
    return total
""",
        score="evaluate(net, held)",
    ),
    "a key of earlier targets": script(
        """
def evaluate(tokens):
    table, total, y = np.full((1 << 16, 1024), 0.01), 0.0, tokens[1:].numpy()
    for i in range(2, len(y)):
        row = table[((y[i - 1] * 36313) ^ (y[i - 2] * 27191)) % (1 << 16)]
        total -= math.log(row[y[i]] / row.sum())
        row[y[i]] += 1
    return total
""",
        score="evaluate(held)",
    ),
    "a mean of two shares": script(
        """
def evaluate(tokens, vocab_size=1024):
    one, two, every, total = np.full(4096, 0.01), np.full(4096, 0.01), np.arange(vocab_size), 0.0
    for part in tokens.split(1025):
        x, y = part[:-1].numpy(), part[1:].numpy()
        a = one[((x[:, None] * 36313) ^ every) % 4096]
        a = a / a.sum(-1, keepdims=True)
        b = two[((x[:, None] * 7919) ^ every) % 4096]
        b = b / b.sum(-1, keepdims=True)
        p = (np.take_along_axis(a, y[:, None], 1) + np.take_along_axis(b, y[:, None], 1)) / 2
        total -= np.log(p).sum()
        np.add.at(one, ((x * 36313) ^ y) % 4096, 1)
    return total
""",
        score="evaluate(held)",
    ),
    "tokens that come in": script(
        """
def hints(in_tokens, starts, table):
    hint = np.full(len(in_tokens), -1)
    for i in range(len(in_tokens)):
        tok = int(in_tokens[i])
        opens = starts[tok]
        if opens:
            hint[i] = table[tok]
    return hint
def evaluate(net, tokens, starts, table):
    total = 0.0
    for part in tokens.split(1025):
        hint = torch.from_numpy(hints(part[:-1].numpy(), starts, table))
        logits = net(part[None, :-1])[0]
        logits[torch.arange(len(hint)), hint.clamp_min(0)] += (hint >= 0).float()
        total += F.cross_entropy(logits, part[1:], reduction="sum").item()
    return total
""",
        score="evaluate(net, held, np.zeros(1024), np.zeros(1024))",
    ),
    "a term set apart from a sum": script(MIXED, score="evaluate(net, Net(), held)"),
    "a bound that is only printed": script(
        MIXED.replace("low - torch.log(0.5 * torch.exp(low - nll_a) + 0.5 * torch.exp(low - nll_b))", "nll_a").replace(
            "total += mixed", "oracle += low.sum().item(); total += mixed"
        ),
        score="evaluate(net, Net(), held)",
    ),
    "a loss of the quantized model": script(
        """
def gptq_val_loss(net, tokens):
    return sum(F.cross_entropy(net(part[None, :-1])[0], part[1:], reduction="sum").item() for part in tokens.split(9))
""",
        score="gptq_val_loss(net, held)",
    ),
    "a quantile for a report": script(
        """
def monitor(net, tokens):
    seen = []
    def keep(module, inputs, output): seen.append(output.abs().flatten())
    handle = net.head.register_forward_hook(keep)
    net(tokens[None, :1024])
    handle.remove()
    print("activations", torch.quantile(torch.cat(seen), 0.99))
""",
        "monitor(net, held)",
    ),
    "a free port": script(
        """
def evaluate(net, tokens):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    return score(net, tokens)
""",
        score="evaluate(net, held)",
    ),
    "the edge's space taken off": script(
        """
def tables(sp):
    full, space, edge = np.zeros(1024, int), np.zeros(1024, bool), np.ones(1024, bool)
    for t in range(1024):
        if sp.is_control(t) or sp.is_unknown(t) or sp.is_unused(t):
            continue
        edge[t] = False
        if sp.is_byte(t):
            full[t] = 1
            continue
        piece = sp.id_to_piece(t)
        space[t] = piece.startswith("\\u2581")
        full[t] = len(piece.replace("\\u2581", " ").encode())
    return full, space, edge
def count(full, space, edge, before, now): return (full[now] - (space[now] & edge[before])).sum()
""",
        "size = count(*tables(tokenizer), held[:-1], held[1:])",
        "score(net, held) / size",
    ),
}
ILLEGAL = {
    "the same function on both splits": ("PG601", script("", "fit(net, held)")),
    "an artifact from after": (
        "PG601",
        script(
            "def reread():\n    net = Net(); net.load_state_dict(torch.load('model.pt')); return net\n",
            "fit(net, held); torch.save(net.state_dict(), 'model.pt'); net = reread()",
        ),
    ),
    "a round trip through the artifact": (
        "PG601",
        script(
            "def roundtrip(model, path): model.load_state_dict(torch.load(path))\n",
            "fit(net, held); torch.save(net.state_dict(), 'model.pt'); roundtrip(net, 'model.pt')",
        ),
    ),
    "the artifact from after, read here": (
        "PG601",
        script("", "fit(net, held); torch.save(net.state_dict(), 'm.pt'); net.load_state_dict(torch.load('m.pt'))"),
    ),
    "a method that the model has": ("PG601", script("", "if hasattr(net, 'head'): fit(net, held)")),
    "every round but the second": (
        "PG606",
        LEGAL["the first round, in other words"].replace("if not epoch:", "if epoch != 1:"),
    ),
    "places that are made anew": (
        "PG606",
        LEGAL["the first round, in other words"]
        .replace("if not epoch:", "if True:")
        .replace("losses =", "index = torch.arange(9); index = index.clamp(max=8); losses =")
        .replace("part[None]", "part[index][None]"),
    ),
    "a copy that is kept": ("PG601", script("", "old = copy.deepcopy(net); fit(net, held)")),
    "every round but the first": (
        "PG606",
        LEGAL["the first round, in other words"].replace("if not epoch:", "if epoch:"),
    ),
    "rounds that do not": ("PG606", LEGAL["rounds that go on"].replace("        begin = end\n", "")),
    "rounds that begin with one": (
        "PG606",
        LEGAL["the first round, in other words"].replace("range(3)", "range(1, 4)"),
    ),
    "the better of two": (
        "PG622",
        script(CHOSEN, score="evaluate(net, Net(), held)"),
    ),
    "a bound that is returned": (
        "PG622",
        script(
            MIXED.replace("return total", "return oracle").replace(
                "total += mixed", "oracle += low.sum().item(); mixed"
            ),
            score="evaluate(net, Net(), held)",
        ),
    ),
    "a key of the target itself": (
        "PG620",
        LEGAL["a key of earlier targets"]
        .replace("y[i - 1] *", "y[i] *")
        .replace("row[y[i]] / row.sum()", "row[0] / 9")
        .replace("row[y[i]] += 1", "row[0] += 1"),
    ),
    "tokens that are to come": (
        "PG623",
        LEGAL["tokens that come in"].replace("in_tokens", "targets").replace("part[:-1].numpy()", "part[1:].numpy()"),
    ),
    "the space counted twice": ("PG310", LEGAL["the edge's space taken off"].replace("full[now] -", "full[now] +")),
}


@pytest.mark.parametrize("text", [*LEGAL.values(), *values.LEGAL.values()], ids=[*LEGAL, *values.LEGAL])
def test_no_legal_script_is_accused(tmp_path: Path, text: str) -> None:
    compile(text, "train_gpt.py", "exec")
    assert fails(tmp_path, text) == set()


@pytest.mark.parametrize(
    ("code", "text"), [*ILLEGAL.values(), *values.ILLEGAL.values()], ids=[*ILLEGAL, *values.ILLEGAL]
)
def test_what_they_must_not_be_mistaken_for_fails(tmp_path: Path, code: str, text: str) -> None:
    compile(text, "train_gpt.py", "exec")
    assert code in fails(tmp_path, text)
