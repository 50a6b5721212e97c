"""Training on validation tokens and its order to their score, in shapes with names of our own choice."""

from __future__ import annotations

import ast

import pytest

from harness.analysis.adaptation import Adaptation, Adaptations
from harness.analysis.configuration import Configuration
from harness.analysis.index import Index
from harness.analysis.origins import Origins
from harness.analysis.program import Module, Program
from harness.analysis.reach import Reach
from harness.analysis.reported import Reports
from harness.analysis.reports import printed
from harness.model import Location

SCORE = """
def rate(net, held):
    total = 0.0
    with torch.no_grad():
        for i in range(0, 100, 10):
            part = held[i : i + 11]
            total += net(part[:-1], part[1:]).item()
    return total / 100
"""
LEARN = """
def learn(net, held):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for i in range(0, 100, 10):
        part = held[i : i + 11]
        loss = net(part[:-1], part[1:])
        loss.backward()
        opt.step()
"""
ONLINE = """
def rate(net, held):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    total = 0.0
    for i in range(0, 100, 10):
        part = held[i : i + 11]
        {}
    return total / 100
"""
MAIN = """
def main():
    net, held = Net(), read("data/fineweb_val_*.bin")
    {}
    bits = rate(net, held)
    print(f"val_bpb:{{bits:.4f}}")
main()
"""


def module(text: str, name: str) -> Module:
    source = "import torch, copy\nclass Net(torch.nn.Module): pass\ndef read(p):\n    return torch.load(p)\n" + text
    return Module(Index(ast.parse(source)), lambda line: Location(f"{name}.py", line))


def found(text: str, **others: str) -> list[Adaptation]:
    helpers = {name: (lambda name=name, text=text: module(text, name)) for name, text in others.items()}
    program = Program(module(text, "train_gpt"), helpers)
    reach = Reach(program, Configuration(program))
    origins = Origins(program, reach.skipped)
    return list(Adaptations(program, reach, origins, Reports(program, reach, origins)).all())


def order(text: str, **others: str) -> list[str]:
    return [str(each.order) for each in found(text, **others)]


def online(*lines: str) -> str:
    return ONLINE.format("\n        ".join(lines)) + MAIN.format("pass")


FORWARD = "loss = net(part[:-1], part[1:])"
STEP = ("loss.backward()", "opt.step()")
COUNT = "total += loss.item()"


def test_training_before_the_score_is_found_with_its_path() -> None:
    [each] = found(SCORE + LEARN + MAIN.format("learn(net, held)"))
    assert str(each.order) == "trained first"
    assert [step.what for step in each.steps] == [
        "validation files",
        "call of learn",
        "gradient of a loss on them",
        "score with the trained weights",
    ]


def test_the_same_in_another_file_and_behind_a_wrapper() -> None:
    text = "from inner import learn as warm\n" + SCORE + MAIN.format("warm(net, held)")
    assert order(text, inner=LEARN) == ["trained first"]
    wrapped = SCORE + LEARN + "def prepare(model, tokens):\n    learn(model, tokens)\n"
    assert order(wrapped + MAIN.format("prepare(net, held)")) == ["trained first"]


def test_parameters_may_be_listed_one_by_one() -> None:
    listed = LEARN.replace(
        "    opt = torch.optim.SGD(net.parameters(), lr=0.1)\n",
        "    chosen = []\n    for name, weight in net.named_parameters():\n        if 'norm' not in name:\n"
        "            chosen.append(weight)\n    opt = torch.optim.SGD(chosen, lr=0.1)\n",
    )
    assert order(SCORE + listed + MAIN.format("learn(net, held)")) == ["trained first"]


def test_a_wrapper_of_the_model_and_the_artifact_carry_the_weights() -> None:
    alias = SCORE + LEARN + MAIN.format("fast = torch.compile(net); learn(net, held); net = fast")
    assert order(alias) == ["trained first"]
    stored = "learn(net, held); torch.save(net.state_dict(), 'a'); state = torch.load('a'); net.load_state_dict(state)"
    assert order(SCORE + LEARN + MAIN.format(stored)) == ["trained first"]


def test_weights_from_before_the_training_are_no_violation() -> None:
    restored = "old = copy.deepcopy(net.state_dict()); learn(net, held); net.load_state_dict(old)"
    assert order(SCORE + LEARN + MAIN.format(restored)) == ["weights discarded"]
    assert order(SCORE + LEARN + MAIN.format("probe = Net(); learn(probe, held)")) == ["unclear"]


def test_training_after_the_score_and_dead_training() -> None:
    text = SCORE + LEARN + "def main():\n    net, held = Net(), read('fineweb_val_*.bin')\n    bits = rate(net, held)\n"
    text += "    print(f'val_bpb:{bits}')\n    learn(net, held)\nmain()\n"
    assert order(text) == ["unclear"]
    assert order(SCORE + LEARN + MAIN.format("if 0: learn(net, held)")) == ["never runs"]


EPOCHS = ("for e in range(4):", f"    {FORWARD}", f"    {COUNT}", *(f"    {line}" for line in STEP))
AGAIN = ("for _ in range(3):", f"    {FORWARD}", *(f"    {line}" for line in STEP))
PIECES = (AGAIN[0].replace("_", "at"), "    piece = part[at:]", *(line.replace("part", "piece") for line in AGAIN[1:]))
FIRST = (
    "for e in range(4):",
    f"    {FORWARD}",
    "    if e == 0:",
    f"        {COUNT}",
    *(f"    {line}" for line in STEP),
)
ORDERS = {
    "score, train": ((FORWARD, COUNT, *STEP), "scored first"),
    "one forward for both": ((FORWARD, *STEP, COUNT), "scored first"),
    "epochs on a scored chunk": ((FORWARD, COUNT, *AGAIN), "scored first"),
    "train, score": ((FORWARD, *STEP, FORWARD, COUNT), "trained first"),
    "epochs": (EPOCHS, "a later epoch is scored"),
    "first epoch": (FIRST, "scored first"),
    "counted behind the epochs": ((*AGAIN, COUNT), "a later epoch is scored"),
    "counted behind the rounds over pieces": ((*PIECES, COUNT), "scored first"),
    "the chunk before, then a score of this one": (
        (
            "if i:",
            "    loss = net(past[:-1], past[1:])",
            *(f"    {line}" for line in STEP),
            FORWARD,
            COUNT,
            "past = part",
        ),
        "unclear",
    ),
    "one epoch": (tuple(line.replace("4", "1") for line in EPOCHS), "scored first"),
}


@pytest.mark.parametrize(("lines", "expected"), ORDERS.values(), ids=ORDERS)
def test_the_order_inside_a_loop(lines: tuple[str, ...], expected: str) -> None:
    assert order(online(*lines)) == [expected]


MOVING = {
    "a pointer that moves on": ("at = 0", "part = held[at : at + 11]", "at += 10"),
    "a loader that goes on": ("pieces = iter(held.split(11))", "part = next(pieces)", "pass"),
    "the same each time": ("at = 0", "part = held[at : at + 11]", "pass"),
}


def test_another_evaluation_after_a_legal_one_takes_what_that_has_learned() -> None:
    plain = SCORE.replace("def rate", "def again")
    legal = online(FORWARD, COUNT, *STEP)
    before = plain + legal[: legal.rindex("main()")]
    later = "    more = again(net, held)\n    print(f'final val_bpb:{more:.4f}')\n"
    [each] = found(f"{before}{later}main()\n")
    assert (str(each.order), each.steps[-1].what) == ("unclear", "a later score")
    assert "`again` at train_gpt.py:" in each.why
    # Another model, weights that are put back, and a score from before.
    other = later.replace("again(net", "again(Net()")
    undone = "    net.load_state_dict(torch.load('a.ptz'))\n" + later
    for rest in (other, undone, ""):
        assert order(f"{before}{rest}main()\n") == ["scored first"]


@pytest.mark.parametrize("name", MOVING)
def test_a_loop_may_move_on_without_its_counter(name: str) -> None:
    begin, take, move = MOVING[name]
    body = "\n        ".join((f"{begin}\n    for _ in range(10):", take, FORWARD, COUNT, *STEP, move))
    text = f"""
def rate(net, held):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    total = 0.0
    {body}
    return total / 100
"""
    expected = "a later epoch is scored" if name == "the same each time" else "scored first"
    assert order(text + MAIN.format("pass")) == [expected]


def test_what_is_trained_on_and_what_is_scored_may_be_two_pieces() -> None:
    text = """
def rate(net, past, chunk):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = net(past[:-1], past[1:])
    loss.backward()
    opt.step()
    total = 0.0
    for row in chunk:
        total += net(row[:-1], row[1:]).item()
    return total
def main():
    net, held = Net(), read("data/fineweb_val_*.bin")
    bits = rate(net, held[:50], held[50:])
    print(f"val_bpb:{bits:.4f}")
main()
"""
    assert order(text) == ["unclear"]
    assert order(text.replace("past, chunk", "chunk").replace("past", "chunk").replace("held[:50], ", "")) == [
        "trained first"
    ]


def test_a_tensor_made_for_the_window_is_slot() -> None:
    lines = (
        "h = net.hidden(part[:-1])",
        "shift = torch.zeros(1, requires_grad=True)",
        "tune = torch.optim.AdamW([shift], lr=0.1)",
        "{}",
        "loss.backward()",
        "tune.step()",
        "total += net.cost(h + shift, part[1:])[5:].sum().item()",
    )
    whole = found(online(*lines).replace("{}", "loss = net.cost(h + shift, part[1:])"))
    assert [(str(each.order), each.fresh) for each in whole] == [("trained first", True)]
    part = found(online(*lines).replace("{}", "loss = net.cost(h + shift, part[1:])[:5]"))
    assert [str(each.order) for each in part] == ["trained on a part"]


REFIT = (
    "def again():",
    "    opt.zero_grad()",
    "    cost = net(part[:-1], part[1:])",
    "    cost.backward()",
    "    return cost",
)
COUNTED = "total += net(part[:-1], part[1:]).item()"
CLOSURES = {
    "stepped before the score": ((*REFIT, "opt.step(again)", COUNTED), "trained first"),
    "several steps before the score": (
        (*REFIT, "for _ in range(5):", "    opt.step(closure=again)", COUNTED),
        "trained first",
    ),
    "stepped after the score": ((*REFIT, COUNTED, "opt.step(again)"), "scored first"),
    "other tokens": (
        (*(each.replace("part", "past") for each in REFIT), "opt.step(again)", COUNTED),
        "trained on a part",
    ),
    "called by something else": ((*REFIT, COUNTED, "search(again)"), "unclear"),
    "stepped before and after": ((*REFIT, "opt.step(again)", COUNTED, "opt.step(again)"), "unclear"),
}


@pytest.mark.parametrize(("lines", "expected"), CLOSURES.values(), ids=CLOSURES)
def test_a_closure_is_run_where_the_optimizer_steps(lines: tuple[str, ...], expected: str) -> None:
    text = online(*lines).replace("total = 0.0", "total = 0.0; past = held[:11]")
    assert order(text) == [expected]


@pytest.mark.parametrize(("cut", "expected"), [("", "trained first"), ("[:5]", "trained on a part")])
def test_a_tensor_fitted_in_a_closure_is_slot(cut: str, expected: str) -> None:
    lines = (
        "h = net.hidden(part[:-1])",
        "bias = torch.zeros(1, requires_grad=True)",
        "tune = torch.optim.LBFGS([bias], max_iter=5)",
        "def fit():",
        f"    lost = net.cost(h + bias, part[1:]){cut}",
        "    lost.backward()",
        "    return lost",
        "tune.step(fit)",
        "total += net.cost(h + bias, part[1:])[5:].sum().item()",
    )
    assert [(str(each.order), each.fresh) for each in found(online(*lines))] == [(expected, True)]


def test_training_data_is_nobody_s_business() -> None:
    assert found(SCORE + LEARN + MAIN.format("learn(net, read('fineweb_train_*.bin'))")) == []


TIMED = """
def timed(label, function, *values):
    bits = function(*values)
    print(f"{label} val_bpb:{bits:.4f}")
    return bits

def adapt(net, held, opt):
    loss = net(held[:-1], held[1:])
    loss.backward()
    opt.step()

def rate(net, held):
    return net(held[:-1], held[1:]).sum()

def main():
    net, held, other = Net(), read("data/fineweb_val_*.bin"), Net()
    optimizer = torch.optim.SGD(ADAPTED.parameters())
    timed("before", rate, net, held)
    adapt(ADAPTED, held, optimizer)
    timed("after", rate, net, held)
main()
"""


@pytest.mark.parametrize(("adapted", "expected"), [("net", "trained first"), ("other", "unclear")])
def test_a_score_may_be_printed_by_what_is_handed_the_function(adapted: str, expected: str) -> None:
    (only,) = found(TIMED.replace("ADAPTED", adapted))
    # The optimizer is made by the caller, too.
    assert str(only.order) == expected
    assert only.label == ("after {} val_bpb:{}" if expected == "trained first" else "")


TABLED = """
conf = {"train_files": "data/fineweb_train_*.bin", "val_files": "data/fineweb_val_*.bin"}
def main():
    net = Net()
    held = read(conf["KEY"])
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = net(held[:-1], held[1:])
    loss.backward()
    opt.step()
main()
"""


@pytest.mark.parametrize(("key", "count"), [("train_files", 0), ("val_files", 1)])
def test_an_entry_of_a_written_table_is_what_stands_there(key: str, count: int) -> None:
    assert len(found(TABLED.replace("KEY", key))) == count


def test_the_score_of_a_function_that_trains_first_has_the_label_of_its_print() -> None:
    lines = (FORWARD, *STEP, FORWARD, COUNT)
    (only,) = found(online(*lines).replace("val_bpb", "sgd_ttt val_bpb"))
    assert (str(only.order), only.label) == ("trained first", "sgd_ttt val_bpb:{}")


@pytest.mark.parametrize(
    ("bound", "text", "expected"),
    [
        ('tag = "ttt" if adapted else "plain"', "{tag}_exact val_bpb:", "ttt|plain_exact val_bpb:{}"),
        ('tag = "ttt"', "final_{tag} val_bpb:", "final_ttt val_bpb:{}"),
        ('tag = "ttt" if adapted else "plain"', "final_{tag} val_bpb:", "final_{} val_bpb:{}"),
        ("tag = adapted", "{tag} val_bpb:", "{} val_bpb:{}"),
        ('tag = "ttt"\n    tag += adapted', "{tag} val_bpb:", "{} val_bpb:{}"),
        ("pass", "final_{args.tag} val_bpb:", "final_{} val_bpb:{}"),
    ],
)
def test_a_label_has_the_text_of_a_name_or_a_hole(bound: str, text: str, expected: str) -> None:
    made = module(f'def report(adapted, bits):\n    {bound}\n    print(f"{text}{{bits}}")\n', "train_gpt.py")
    call = made.calls("print")[0]
    assert printed(call, made.scope_of(call))[0] == expected
