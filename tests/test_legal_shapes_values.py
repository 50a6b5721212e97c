"""More legal scripts that reading once accused, beside their violations: by what runs, and by what a value is.

`test_legal_shapes` audits them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shapes import BASE, fails, script

MODES = """match os.environ.get("EVAL_MODE", "plain"):
        case "tuned": fit(net, held)
        case _: pass"""
EPOCHS = """
def evaluate(base, tokens):
    results, net = [], copy.deepcopy(base)
    for run in range(3):
        net = copy.deepcopy(base)
        opt, total = torch.optim.SGD(net.parameters(), lr=0.01), 0.0
        for part in tokens.split(1025):
            losses = nll(net, part[None])
            total += losses.sum().item()
            losses.mean().backward(); opt.step(); opt.zero_grad()
        results.append(total)
    return results[-1]
"""
PREPARED = """
class Plain:
    def prepare(self, net, tokens): pass
class Tuned:
    def prepare(self, net, tokens): fit(net, tokens)
"""
SUMMED = """
def adapt(net, tokens, sink):
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for part in tokens.split(1025):
        losses = nll(net, part[None]); sink.append(losses.sum().item())
        losses.mean().backward(); opt.step(); opt.zero_grad()
def summary(net, tokens, sink): return sum(sink) / tokens.numel()
"""
SEEN = """
def evaluate(net, tokens):
    total = 0.0
    for part in tokens.split(1025):
        x, y = part[None, :-1], part[None, 1:]
        with torch.no_grad():
            seen = F.one_hot(y, 1024).float()
            logits = net(x) + 0.1 * (seen.cumsum(1) - seen)
            total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").item()
    return total
"""
MARGIN = """
def loss_fn(logits, y, margin=0.0):
    logits = logits - margin * F.one_hot(y, 1024)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
def evaluate(net, tokens):
    with torch.no_grad():
        return sum(loss_fn(net(w[None, :-1]), w[None, 1:]).sum().item() for w in tokens.split(1025))
def train(net, tokens):
    for w in tokens.split(1025): loss_fn(net(w[None, :-1]), w[None, 1:], margin=0.1).mean().backward()
"""
CACHED = """
class Cache:
    def __init__(self): self.reset()
    def reset(self): self.rows = np.full((1024, 1024), 0.01)
    def learn(self, before, now): np.add.at(self.rows, (before, now), 1)
def run(net, tokens, cache, share):
    total = 0.0
    for part in tokens.split(1025):
        x, y = part[:-1].numpy(), part[1:].numpy()
        with torch.no_grad(): p = net(part[None, :-1]).softmax(-1)[0].numpy()
        rows = cache.rows[x]
        mixed = (1 - share) * p + share * rows / rows.sum(-1, keepdims=True)
        total -= np.log(mixed[np.arange(len(y)), y]).sum()
        cache.learn(x, y)
    return total
def evaluate(net, tokens):
    cache = Cache()
    print("without the cache:", run(net, tokens, cache, 0.0))
    cache.reset()
    return run(net, tokens, cache, 0.2)
"""
METER = """
class Meter:
    def __init__(self, lengths): self.lengths = lengths
    def measure(self, ids): self.total = int((np.bincount(ids, minlength=1024) * self.lengths).sum())
def bits(net, tokens, meter): return score(net, tokens) * tokens.numel() / meter.total
def evaluate(net, tokens):
    meter = Meter(np.load("bytes.npy"))
    meter.measure(tokens.numpy())
    return bits(net, tokens, meter)
"""
SHARED = """
def evaluate(net, tokens):
    total, mean = 0.0, 0.5
    for part in tokens.split(1025):
        with torch.no_grad(): losses = nll(net, part[None])
        for token, logp in zip(part[1:].tolist(), (-losses).tolist()):
            mean = 0.99 * mean + 0.01 * math.exp(logp / len(str(token)))
        total += losses.sum().item()
    print("probability of a character", mean)
    return total
"""
GROUPED = """
def evaluate(net, tokens):
    total, group = 0.0, torch.arange(1024) % 64
    table = torch.full((4096, 1024), 0.01)
    for part in tokens.split(1025):
        label = group[part[:-1]]
        rows = table[(label * 31 + part[:-1]) % 4096]
        total -= (rows / rows.sum(-1, keepdim=True)).gather(-1, part[1:, None]).log().sum().item()
    return total
"""
ROWS = """
def evaluate(net, tokens):
    table, total, size = np.full(1 << 20, 0.01), 0.0, 1 << 20
    ids, targets = tokens.numpy(), tokens[1:].numpy()
    for x, y in zip(ids, targets):
        row = np.array([table[((x * 36313) ^ (v * 27191)) % size] for v in range(1024)])
        hit = table[((x * 36313) ^ (y * 27191)) % size]
        total -= math.log(hit / row.sum())
        table[((x * 36313) ^ (y * 27191)) % size] += 1
    return total
"""
STEPPED = """
def mixed_step(net, other, x, y, opt):
    nll_a = F.cross_entropy(net(x)[0], y, reduction="none")
    nll_b = F.cross_entropy(other(x)[0], y, reduction="none")
    loss = torch.minimum(nll_a, nll_b).mean()
    loss.backward(); opt.step(); opt.zero_grad()
"""
STEPS = (
    "net, other = Net(), Net(); opt = torch.optim.Adam(net.parameters())\n"
    "    for w in load(TRAIN).split(1025): mixed_step(net, other, w[None, :-1], w[1:], opt)"
)
CONFIGURED = """
import dataclasses
@dataclasses.dataclass
class Settings:
    tuning: str = "held"
def settings_of(env=None):
    source = env if env is not None else {}
    return Settings(tuning=source.get("TUNING_SPLIT", "none"))
def prepare(net, tokens):
    settings = settings_of(dict(os.environ))
    if settings.tuning == "held": fit(net, tokens)
"""
FALLBACK = """
def collect_hessians(net, tokens):
    sums = {}
    def hook(module, given, out): sums[module] = given[0].T @ given[0]
    for module in net.modules(): module.register_forward_hook(hook)
    net(tokens[:4096])
    return sums
def prepare(net, tokens):
    sums = {}
    for name, each in STORED.items(): sums[name] = each
    if not sums: sums = collect_hessians(net, tokens)
    quantize(net, sums)
"""
RESTORED = """saved = [p.detach().clone() for p in net.parameters()]
    fit(net, held[:4096])
    for p, s in zip(net.parameters(), saved): p.data = s"""
BOTH = """
def both(): return load(TRAIN), load(VAL)
def main():
    learn, held = both()
    net = Net(); opt = torch.optim.Adam(net.parameters())
    for step in range(9999):
        loss = nll(net, learn[None, :1025]).mean()
        loss.backward(); opt.step(); opt.zero_grad()
    loss = score(net, held)
    print(f"final val_bpb:{loss:.6f}")
main()
"""
STREAMS = """
class Stream:
    def __init__(self, files): self.ids = torch.from_numpy(np.fromfile(files[0], "<u2").astype(np.int64))
    def next(self): return self.ids[None, :1025]
class Held:
    def __init__(self): self.ids = load(VAL)
def main():
    net, stream, held = Net(), Stream(os.environ["LEARN_FROM"].split()), Held()
    opt = torch.optim.Adam(net.parameters())
    for step in range(9999):
        loss = nll(net, stream.next()).mean()
        loss.backward(); opt.step(); opt.zero_grad()
    loss = score(net, held.ids)
    print(f"final val_bpb:{loss:.6f}")
main()
"""
MADE = """
class Draft:
    adapt = True
class Final:
    adapt = False
def prepare(net, tokens, conf):
    if conf.adapt: fit(net, tokens)
"""
SPACES = """
def tables(sp):
    full, lead, mute = np.zeros(1024, int), np.zeros(1024, bool), np.zeros(1024, bool)
    for t in range(1024):
        if sp.is_control(t) or sp.is_unused(t): mute[t] = True; continue
        if sp.is_byte(t): full[t] = 1; continue
        piece = sp.id_to_piece(t)
        lead[t] = piece.startswith("\u2581")
        full[t] = len(piece.replace("\u2581", " ").encode())
    return full, lead, mute
def count(full, lead, mute, x, y): return full[y].sum() - (lead[y] & mute[x]).sum()
"""
ROUNDED = "fit(net, held); net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})"
TUNED = """
def tuned(net, tokens):
    opt, total = torch.optim.SGD(net.parameters(), lr=0.01), 0.0
    for part in tokens.split(1025):
        losses = nll(net, part[None]); total += losses.sum().item()
        losses.mean().backward(); opt.step(); opt.zero_grad()
    return total
def bits(nats): return nats / math.log(2)
"""
DRY = """
def dry(tokens):
    net = Net()
    fit(net, tokens[:4096])
"""
BEATS = """
def evaluate(net, tokens):
    opt, total, parts = torch.optim.SGD(net.parameters(), lr=0.01), 0.0, tokens.split(1025)
    for beat in range(2 * len(parts)):
        part = parts[beat // 2][None]
        if beat % 2:
            nll(net, part).mean().backward(); opt.step(); opt.zero_grad()
        else:
            total += nll(net, part).sum().item()
    return total
"""
EVALUATED = "evaluate(net, held)"
LEGAL = {
    "a case that is not taken": script("", MODES),
    "weights put back as data": script("", RESTORED),
    "a copy in every round": script(EPOCHS, score=EVALUATED),
    "a method of another class": script(PREPARED, "Plain().prepare(net, held)"),
    "a summary that is handed the model": script(
        SUMMED, "sink = []; adapt(net, held, sink)", "summary(net, held, sink)"
    ),
    "counts that leave the token out": script(SEEN, score=EVALUATED),
    "a margin of training alone": script(MARGIN, "train(net, load(TRAIN))", EVALUATED),
    "a cache that is emptied between two passes": script(CACHED, score=EVALUATED),
    "bytes that are counted first": script(METER, score=EVALUATED),
    "a share that is printed alone": script(SHARED, score=EVALUATED),
    "a label of the inputs": script(GROUPED, score=EVALUATED),
    "a number divided by its own row": script(ROWS, score=EVALUATED),
    "the better loss is trained on": script(STEPPED, STEPS),
    "a dataclass made from the environment": script(CONFIGURED, "prepare(net, held)"),
    "a fallback that may not run": script(FALLBACK, "prepare(net, held)"),
    "both splits of one call": BASE + BOTH,
    "an attribute of another class": BASE + STREAMS,
    "a setting of another class": script(MADE, "prepare(net, held, Final())"),
    "a space that is taken off": script(
        SPACES, "size = count(*tables(sp), held[:-1], held[1:])", "score(net, held) / size"
    ),
    "a table that is corrected behind its loop": script(
        SPACES.replace("    return full, lead", "    full = full - lead\n    return full, lead").replace(
            "- (lead", "+ (lead"
        ),
        "size = count(*tables(sp), held[:-1], held[1:])",
        "score(net, held) / size",
    ),
    "a loss after quantizing": script(
        "def gptq_check(net, ids):\n    with torch.no_grad(): return nll(net, ids[None]).mean().item()\n",
        'print("after gptq", gptq_check(net, held[:1025]))',
    ),
    "losses that a function turns into bits": script(TUNED, "nats = tuned(net, held)", "bits(nats)"),
    "a model of the function's own": script(DRY, "dry(held)"),
    "two arms of one condition": script(BEATS, score=EVALUATED),
    "a function of the name of Python's": script("def compile(net): return net\n", "net = compile(net)"),
}
HANDED = SUMMED.replace("return sum(sink) /", "return score(net, tokens) + 0 /")
MARGINAL = MARGIN.replace("w[None, 1:]).sum()", "w[None, 1:], margin=-1.0).sum()")
SCORED = SHARED.replace("mean = 0.99 * mean + 0.01", "mixed = 0.5 * 0.1 + 0.5").replace(
    "losses.sum()", "math.log(mixed)"
)
RETURNED = STEPPED.replace("loss.backward(); opt.step(); opt.zero_grad()", "return loss.item()")
DEFAULT = CONFIGURED.replace('Settings(tuning=source.get("TUNING_SPLIT", "none"))', "Settings()")
ILLEGAL = {
    "a case that is taken": ("PG601", script("", MODES.replace('"plain"', '"tuned"'))),
    "weights put back as they are": ("PG601", script("", RESTORED.replace("p.data = s", "p.data = p.data"))),
    "a copy that is handed on": (
        "PG606",
        script(EPOCHS.replace("        net = copy.deepcopy(base)\n", ""), score=EVALUATED),
    ),
    "a method of that class": ("PG601", script(PREPARED, "Tuned().prepare(net, held)")),
    "a score of the model": ("PG601", script(HANDED, "adapt(net, held, [])", "summary(net, held, [])")),
    "a mark of the token": ("PG624", script(SEEN.replace("(seen.cumsum(1) - seen)", "seen"), score=EVALUATED)),
    "a margin of the score": ("PG624", script(MARGINAL, score=EVALUATED)),
    "a cache that stays filled": ("PG602", script(CACHED.replace("    cache.reset()\n", ""), score=EVALUATED)),
    "a share that is scored": ("PG621", script(SCORED, score=EVALUATED)),
    "a label of the targets": (
        "PG620",
        script(GROUPED.replace("group[part[:-1]]", "group[part[1:]]"), score=EVALUATED),
    ),
    "a number divided by another": ("PG620", script(ROWS.replace("row.sum()", "9.0"), score=EVALUATED)),
    "the better loss is scored": (
        "PG622",
        script(RETURNED, score="mixed_step(net, Net(), held[None, :-1], held[1:], None)"),
    ),
    "a dataclass of its default": ("PG601", script(DEFAULT, "prepare(net, held)")),
    "a global model": ("PG601", script(DRY.replace("net = Net()", "global net"), "dry(held)")),
    "a tensor of another kind": (
        "PG601",
        script("", "fit(net, held); stats = torch.zeros(2); stats.copy_(torch.ones(2))"),
    ),
    "a state that is no copy": (
        "PG601",
        script("", "saved = net.state_dict(); fit(net, held); net.load_state_dict(saved)"),
    ),
    "the same rounding": ("PG601", script("", ROUNDED)),
    "the attribute of that class": (
        "PG601",
        BASE
        + STREAMS.replace('Stream(os.environ["LEARN_FROM"].split())', "Held()").replace(
            "def __init__(self): self.ids = load(VAL)",
            "def __init__(self): self.ids = load(VAL)\n    def next(self): return self.ids[None, :1025]",
        ),
    ),
    "a space that is added": (
        "PG310",
        script(
            SPACES.replace("- (lead", "+ (lead"),
            "size = count(*tables(sp), held[:-1], held[1:])",
            "score(net, held) / size",
        ),
    ),
    "sums of the other split": ("PG605", script(FALLBACK.replace("    if not sums: ", "    "), "prepare(net, held)")),
}


OPTION = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--tune-steps", type=int, default=DEFAULT)
args = parser.parse_args()
"""


@pytest.mark.parametrize(
    ("default", "command", "accused"),
    [
        (1, "python train_gpt.py", True),
        (1, "python train_gpt.py --tune-steps 0", False),
        (0, "python train_gpt.py --tune-steps=2", True),
        # One run for each of two purposes: which counts is not known.
        (1, "python train_gpt.py --tune-steps 0\npython train_gpt.py --tune-steps 1", False),
        (0, "python train_gpt.py --tune-steps 2\npython train_gpt.py", False),
        (0, "python prepare.py --tune-steps 2\npython train_gpt.py", False),
    ],
)
def test_an_option_is_what_the_command_passes(tmp_path: Path, default: int, command: str, *, accused: bool) -> None:
    text = script(OPTION.replace("DEFAULT", str(default)), "if args.tune_steps > 0: fit(net, held)")
    assert ("PG601" in fails(tmp_path, text, command)) is accused


@pytest.mark.parametrize(
    ("option", "passed", "accused"),
    [
        ('"--frozen", dest="tune_steps", action="store_false"', "--frozen", False),
        ('"--frozen", dest="tune_steps", action="store_false"', "", True),
        ('"--tune-steps", action=argparse.BooleanOptionalAction, default=True', "--no-tune-steps", False),
        ('"--tune-steps", action=argparse.BooleanOptionalAction, default=False', "--tune-steps", True),
    ],
)
def test_an_option_that_turns_off_is_off(tmp_path: Path, option: str, passed: str, *, accused: bool) -> None:
    settings = OPTION.replace('"--tune-steps", type=int, default=DEFAULT', option)
    text = script(settings, "if args.tune_steps: fit(net, held)")
    assert ("PG601" in fails(tmp_path, text, f"python train_gpt.py {passed}")) is accused
