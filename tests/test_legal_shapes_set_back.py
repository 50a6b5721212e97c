"""Weights that are set back before the score, rounds that move on, and settings under computed names.

Each legal script beside its violation: `test_legal_shapes` has the others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shapes import fails, script

BORROWED = """
from contextlib import contextmanager
@contextmanager
def borrowed(net):
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    try: yield
    finally: net.load_state_dict(kept)
@contextmanager
def timed(what):
    began = os.times().elapsed
    yield
    print(what, os.times().elapsed - began)
"""
DECORATED = """
def leaves_no_trace(function):
    def wrapped(net, *rest):
        kept = copy.deepcopy(net.state_dict())
        function(net, *rest)
        net.load_state_dict(kept)
    return wrapped
def timed(function):
    def wrapped(*given):
        function(*given); print("done")
    return wrapped
@DECORATOR
def tune(net, tokens): fit(net, tokens)
"""
SNAPSHOT = """
class Snapshot:
    def __init__(self, net): self.net, self.values = net, [p.detach().clone() for p in net.parameters()]
    def restore(self):
        for p, value in zip(self.net.parameters(), self.values): p.data.copy_(value)
"""
TOGETHER = """
def tune(net, tokens):
    kept = [p.detach().clone() for p in net.parameters()]
    fit(net, tokens)
    torch._foreach_copy_(list(net.parameters()), WHAT)
"""
RESET = """
class Adapter(nn.Module):
    def reset(self): nn.init.zeros_(self.a)
    def report(self): print(self.a.norm())
"""
MEASURED = """
def noise(net, tokens):
    for part in tokens.split(1025):
        grads = torch.autograd.grad(nll(net, part[None]).mean(), list(net.parameters()))
        print(np.mean([g.norm().item() for g in grads]))
        STEP
"""
DROPPED = """
def preflight(net, tokens):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    nll(net, tokens[None, :1025]).mean().backward()
    STEP
    opt.zero_grad()
"""
STUDY = """
def study(net, tokens):
    twin = copy.deepcopy(net)
    fit(twin, tokens)
    loss = score(twin, tokens)
    print(f"LABEL val_bpb:{loss:.4f}")
"""
NO_STUDY = STUDY.replace("copy.deepcopy(net)", "net")


@pytest.mark.parametrize(
    ("functions", "legal", "illegal"),
    [
        pytest.param(BORROWED, "with borrowed(net): fit(net, held)", 'with timed("x"): fit(net, held)', id="context"),
        pytest.param(
            "from contextlib import ExitStack",
            "with ExitStack() as stack: stack.callback(net.load_state_dict, copy.deepcopy(net.state_dict())); "
            "fit(net, held)",
            "with ExitStack() as stack: stack.callback(print, 1); fit(net, held)",
            id="stack",
        ),
        pytest.param(
            SNAPSHOT,
            "snap = Snapshot(net); fit(net, held); snap.restore()",
            "fit(net, held); snap = Snapshot(net); snap.restore()",
            id="object",
        ),
        pytest.param(RESET, "net = Adapter(); fit(net, held); net.reset()", "fit(net, held); net.report()", id="reset"),
        pytest.param(
            "from torch.nn.utils import parameters_to_vector, vector_to_parameters",
            "old = parameters_to_vector(net.parameters()).clone(); fit(net, held); "
            "vector_to_parameters(old, net.parameters())",
            "fit(net, held); new = parameters_to_vector(net.parameters()); vector_to_parameters(new, net.parameters())",
            id="vector",
        ),
        pytest.param(
            "",
            "kept = [p.clone() for p in net.parameters()]; fit(net, held); took = 1\n"
            "    for p, old in zip(net.parameters(), kept): p.data = old",
            "fit(net, held); kept = [p.clone() for p in net.parameters()]\n"
            "    for p, old in zip(net.parameters(), kept): p.data = old",
            id="loop",
        ),
        pytest.param(
            "",
            "spare = copy.deepcopy(net); fit(net, held); net = spare",
            "spare = net; fit(net, held); net = spare",
            id="spare",
        ),
        pytest.param(
            "def load_model(path):\n    net = Net(); net.load_state_dict(torch.load(path)); return net\n",
            'path = "m.pt"; torch.save(net.state_dict(), path); fit(net, held); net = load_model(path)',
            'path = "m.pt"; fit(net, held); torch.save(net.state_dict(), path); net = load_model(path)',
            id="file",
        ),
        pytest.param(
            "",
            "state = copy.deepcopy(net.state_dict()); fit(net, held); net.zero_grad(); net.load_state_dict(state)",
            "fit(net, held); state = copy.deepcopy(net.state_dict()); net.zero_grad(); net.load_state_dict(state)",
            id="cleared",
        ),
        pytest.param(
            "",
            "if (child := os.fork()) == 0: fit(net, held); os._exit(0)",
            "if (child := os.getpid()) != 0: fit(net, held)",
            id="child",
        ),
        pytest.param(
            "",
            "fit(net, held[:1024].clone().random_(0, 99)); fit(net, held.new_tensor([1]))",
            "fit(net, held[:1024].clone().contiguous())",
            id="other-text",
        ),
    ],
)
def test_weights_set_back_are_not_scored(tmp_path: Path, functions: str, legal: str, illegal: str) -> None:
    assert fails(tmp_path, script(functions, legal)) == set()
    assert "PG601" in fails(tmp_path, script(functions, illegal))


@pytest.mark.parametrize(
    ("functions", "call", "legal", "illegal"),
    [
        pytest.param(DECORATED.replace("DECORATOR", "{}"), "tune", "leaves_no_trace", "timed", id="decorator"),
        pytest.param(
            TOGETHER.replace("WHAT", "{}"), "tune", "kept", "[p * 1 for p in net.parameters()]", id="together"
        ),
        pytest.param(
            MEASURED.replace("STEP", "{}"),
            "noise",
            "del grads",
            "for p, g in zip(net.parameters(), grads): p.data.sub_(g)",
            id="measured",
        ),
        pytest.param(DROPPED.replace("STEP", "{}"), "preflight", "print(1)", "opt.step()", id="dropped"),
        pytest.param(STUDY.replace("LABEL", "{}"), "study", "memorized (a study)", "final_adapted", id="study"),
    ],
)
def test_training_that_leaves_nothing_is_none(
    tmp_path: Path, functions: str, call: str, legal: str, illegal: str
) -> None:
    before = f"{call}(net, held)"
    assert fails(tmp_path, script(functions.replace("{}", legal), before)) == set()
    assert "PG601" in fails(tmp_path, script(functions.replace("{}", illegal), before))


ROUNDS = """
def evaluate(net, tokens):
    opt, total = torch.optim.SGD(net.parameters(), lr=0.1), 0.0
    {before}
    for turn in range(3):
        losses = nll(net, {piece}[None])
        {added}
        losses.mean().backward(); opt.step(); opt.zero_grad()
    {after}
    return total / tokens.numel()
class Tape:
    def __init__(self, tokens): self.tokens, self.at = tokens, 0
    def read(self):
        self.at += 1024
        return self.tokens[self.at - 1024 : self.at + 1]
    def whole(self): return self.tokens
"""
PLAIN = {"before": "pass", "piece": "tokens[:1025]", "added": "total += losses.sum().item()", "after": "pass"}


@pytest.mark.parametrize(
    ("legal", "illegal"),
    [
        pytest.param(
            {"before": "tape = Tape(tokens)", "piece": "tape.read()"},
            {"before": "tape = Tape(tokens)", "piece": "tape.whole()"},
            id="object",
        ),
        pytest.param(
            {"before": "pieces = iter(tokens.split(1025))", "piece": "pieces.__next__()"},
            {"before": "pieces = tokens.split(1025)", "piece": "pieces[0]"},
            id="next",
        ),
        pytest.param(
            {
                "before": "rest = tokens",
                "piece": "rest[:1025]",
                "added": "total += losses.sum().item(); rest = rest[1024:]",
            },
            {
                "before": "rest = tokens",
                "piece": "rest[:1025]",
                "added": "total += losses.sum().item(); gone = rest[1024:]",
            },
            id="rest",
        ),
        pytest.param(
            {"before": "new = True", "added": "if new: total += losses.sum().item(); new = False"},
            {"before": "new = True", "added": "if new: total += losses.sum().item()"},
            id="flag",
        ),
        pytest.param(
            {"before": "seen = []", "added": "seen.append(losses.sum().item())", "after": "total = seen[0]"},
            {"before": "seen = []", "added": "seen.append(losses.sum().item())", "after": "total = seen[-1]"},
            id="history",
        ),
        pytest.param(
            {"added": "first = turn == 0\n        if first: total += losses.sum().item()"},
            {"added": "first = turn == 2\n        if first: total += losses.sum().item()"},
            id="named",
        ),
    ],
)
def test_rounds_that_move_on_repeat_no_token(tmp_path: Path, legal: dict[str, str], illegal: dict[str, str]) -> None:
    for changed, accused in ((legal, False), (illegal, True)):
        text = script(ROUNDS.format(**{**PLAIN, **changed}), score="evaluate(net, held)")
        assert (fails(tmp_path, text) != set()) is accused


PAIRS = """
def evaluate(net, tokens):
    opt, total, pieces = torch.optim.SGD(net.parameters(), lr=0.1), 0.0, list(tokens.split(1025))
    for pair in zip(pieces[:1] + pieces, pieces):
        nll(net, pair[TRAINED][None]).mean().backward(); opt.step(); opt.zero_grad()
        total += nll(net, pair[1][None]).sum().item()
    return total / tokens.numel()
"""


def test_one_side_of_a_pair_is_not_the_other(tmp_path: Path) -> None:
    assert fails(tmp_path, script(PAIRS.replace("TRAINED", "0"), score="evaluate(net, held)")) == set()
    assert "PG601" in fails(tmp_path, script(PAIRS.replace("TRAINED", "1"), score="evaluate(net, held)"))


CACHE = """
class Cache:
    def __init__(self): self.counts = np.zeros((1024, 1024))
    def put(self, x, y): np.add.at(self.counts, (x, y), 1)
    def share(self, x): return self.counts[x] / self.counts[x].sum(-1, keepdims=True)
    def bytes(self): return int(self.counts.sum(0) @ np.arange(1024))
    def clear(self): CLEARING
def run(net, cache, tokens):
    total = 0.0
    for part in tokens.split(1025):
        x, y = part[:-1].numpy(), part[1:].numpy()
        mixed = 0.5 * net(part[None, :-1])[0].softmax(-1).numpy() + 0.5 * cache.share(x)
        total -= np.log(mixed[np.arange(len(y)), y]).sum()
        cache.put(x, y)
    return total
def evaluate(net, tokens):
    cache = Cache()
    print("first", run(net, cache, tokens))
    cache.clear()
    return run(net, cache, tokens)
def count_all(net, cache, tokens): return score(net, tokens) / cache.bytes()
def share_all(net, cache, tokens): return score(net, tokens) - np.log(cache.share(tokens[:-1]))[:, tokens[1:]].mean()
def census(net, tokens):
    cache = Cache()
    cache.put(tokens[:-1].numpy(), tokens[1:].numpy())
    return READ(net, cache, tokens)
"""


@pytest.mark.parametrize(("clearing", "accused"), [("self.counts.fill(0)", False), ("print(self.counts.sum())", True)])
def test_a_table_emptied_in_place_is_empty(tmp_path: Path, clearing: str, *, accused: bool) -> None:
    text = script(CACHE.replace("CLEARING", clearing).replace("READ", "count_all"), score="evaluate(net, held)")
    assert ("PG602" in fails(tmp_path, text)) is accused


@pytest.mark.parametrize(("read", "accused"), [("count_all", False), ("share_all", True)])
def test_a_census_is_no_cache(tmp_path: Path, read: str, *, accused: bool) -> None:
    text = script(CACHE.replace("CLEARING", "pass").replace("READ", read), score="census(net, held)")
    assert ("PG602" in fails(tmp_path, text)) is accused


FIELDS = """
import dataclasses, json, argparse
@dataclasses.dataclass
class Config:
    tune: int = DEFAULT
MAKER
cfg = settings()
"""
ENVIRONMENT = """
def settings():
    values = {}
    for field in dataclasses.fields(Config):
        if field.name.upper() in os.environ: values[field.name] = int(os.environ[field.name.upper()])
    return Config(**values)
"""
WORDS = """
def settings():
    config = Config()
    for word in sys.argv[1:]: setattr(config, word.partition("=")[0], int(word.partition("=")[2]))
    return config
"""
FILE = """
def settings():
    with open("config.json") as file: return Config(**json.load(file))
"""
PARSER = """
def settings():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune-it", type=int, default=1 - DEFAULT, dest="tune_it")
    parser.set_defaults(tune_it=DEFAULT)
    return parser.parse_args()
"""
PLAIN_CONFIG = "def settings(): return Config()"


@pytest.mark.parametrize(
    ("maker", "default", "command", "accused"),
    [
        (ENVIRONMENT, 0, "python train_gpt.py", False),
        (ENVIRONMENT, 1, "python train_gpt.py", True),
        (ENVIRONMENT, 1, "TUNE=0 python train_gpt.py", False),
        (ENVIRONMENT, 0, "TUNE=1 python train_gpt.py", True),
        # What words and files give, no text tells.
        (WORDS, 1, "python train_gpt.py tune=0", False),
        (FILE, 1, "python train_gpt.py", False),
        (PARSER, 0, "python train_gpt.py", False),
        (PARSER, 1, "python train_gpt.py", True),
        (PLAIN_CONFIG, 1, "python train_gpt.py", True),
    ],
)
def test_computed_names_give_settings(tmp_path: Path, maker: str, default: int, command: str, *, accused: bool) -> None:
    functions = FIELDS.replace("MAKER", maker).replace("DEFAULT", str(default))
    name = "tune_it" if maker == PARSER else "tune"
    text = script(functions, f"if cfg.{name} > 0: fit(net, held)")
    assert ("PG601" in fails(tmp_path, text, command)) is accused


@pytest.mark.parametrize(
    ("override", "accused"),
    [
        ('globals()[sys.argv[1].split("=")[0]] = int(sys.argv[1].split("=")[1])', False),
        ('exec(open("configurator.py").read())', False),
        (
            (
                "for key, value in map(str.split, open('run.env')): os.environ[key] = value\n"
                "TUNE = int(os.environ.get('TUNE', 1))"
            ),
            False,
        ),
        ('for key, value in [("OMP_NUM_THREADS", "1")]: os.environ[key] = value', True),
        ('for name in ("a", "b"): setattr(Net, name, 0)', True),
    ],
)
def test_global_names_under_computed_names(tmp_path: Path, override: str, *, accused: bool) -> None:
    text = script(f"\nTUNE = 1\n{override}\n", "if TUNE > 0: fit(net, held)")
    assert ("PG601" in fails(tmp_path, text)) is accused
