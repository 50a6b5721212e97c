"""Learning: gradients, steps and changes in place, and what of the text went into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .codes import ELEMENT_BITS
from .ledger import Ledger
from .origins import Origins
from .positions import Places, ranges
from .weights import Learned

BOS = 1
# Under which nodes of autograd's graph keep the numbers of losses.
MARK = "harness-losses"
# Fill a tensor with what knows nothing of the text.
FRESH = frozenset({"zero_", "fill_", "normal_", "uniform_", "exponential_", "bernoulli_", "random_"})
# Take the whole content of another tensor; `__set__` is that of `.data`.
COPY = frozenset({"copy_", "__set__"})
FRESH_PREFIX = ("kaiming_", "xavier_", "trunc_normal_", "orthogonal_", "constant_", "zeros_", "ones_", "eye_")


class Updates:
    """Follows gradients into the weights.

    Args:
        ledger: where events go.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.stepping = False
        self.training_steps = 0
        self.training: list[int] = []
        self.origins = Origins(ledger.weights, lambda: ledger.pending)
        # Called after each backward pass, in a world of several processes.
        self.synchronized: Callable[[], None] = lambda: None
        self._targets: Learned = ledger.weights.nothing
        self._inputs: Learned = ledger.weights.nothing
        self._participants: tuple[int, ...] = ()
        self._weights = "00000000"
        self._what = "in-place"
        self._applied = True
        # Losses of which no gradient was taken yet, by the number of their computation.
        self._open: list[int] = []

    def install(self) -> Callable[[], None]:
        """Hook into backward passes and optimizers; returns what undoes it."""
        real_backward, real_grad = torch.autograd.backward, torch.autograd.grad

        def backward(tensors: Any, *arguments: Any, **keywords: Any) -> Any:
            with torch._C.DisableTorchFunction():
                self.learn(tensors, "in-place")
            made = real_backward(tensors, *arguments, **keywords)
            # Hooks may have stepped.
            self.ledger.weights.writes += 1
            with torch._C.DisableTorchFunction():
                self.synchronized()
            return made

        def grad(outputs: Any, *arguments: Any, **keywords: Any) -> Any:
            with torch._C.DisableTorchFunction():
                self.learn(outputs, "autograd.grad")
            made = real_grad(outputs, *arguments, **keywords)
            self.ledger.weights.writes += 1
            if self.ledger.pending.any():
                for each in made:
                    if each is not None:
                        self.ledger.gradients.set(each, self.ledger.pending)
            return made

        torch.autograd.backward, torch.autograd.grad = backward, grad
        saving = self.origins.install()
        hooks = register_optimizer_step_pre_hook(self._before_step), register_optimizer_step_post_hook(self._after_step)

        def undo() -> None:
            torch.autograd.backward, torch.autograd.grad = real_backward, real_grad
            saving()
            for hook in hooks:
                hook.remove()

        return undo

    def opened(self, codes: torch.Tensor, loss: torch.Tensor) -> None:
        """A loss was computed from which a gradient may be taken."""
        number = int(codes[0]) >> ELEMENT_BITS
        self._open.append(number)
        if loss.grad_fn is not None:
            # On the node itself: to keep the node here would keep its tensors.
            notes: Any = loss.grad_fn.metadata
            notes.setdefault(MARK, []).append(number)

    def learn(self, tensors: Any, what: str) -> None:
        """A gradient is taken of some losses."""
        every = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        found: dict[int, Places] = {}
        for tensor in every:
            for number, places in self.ledger.places_of(tensor).items():
                found[number] = np.union1d(found[number], places) if number in found else places
        if not found:
            # The way from the losses to this was lost: what was computed since the last gradient may be in it, if the
            # graph of this leads there.
            sources, reached = self.ledger.sources, _reached(every)
            found = {
                number: sources[number].targets[sources[number].targets >= 0]
                for number in self._open
                if reached is None or number in reached
            }
        self._open.clear()
        if self._applied:
            self._targets = self._inputs = self.ledger.weights.nothing
            self.ledger.pending = self.ledger.weights.nothing
            self._applied, self._participants = False, ()
        self._what = what
        for number, places in found.items():
            self._add(number, places)

    def received(self, learned: Learned) -> None:
        """Gradients of other processes were added to those of this one."""
        if self._applied:
            self._targets = self._inputs = self.ledger.weights.nothing
            self._applied, self._participants = False, ()
        self._targets = self._targets | learned
        self.origins.awake = True
        self.ledger.pending = self._targets | self._inputs

    def settle(self) -> None:
        """Before losses are computed: have weights been changed by hand?"""
        changed = self.ledger.weights.settle(self.ledger.pending)
        if changed and not self._applied and self._targets.any():
            self._report(self._what, changed=True)

    def filled(self, name: str, tensor: torch.Tensor, sources: Sequence[Any] = ()) -> None:
        """A tensor was changed in place.

        Args:
            name: of the operation.
            tensor: what was changed.
            sources: the other tensors that took part.
        """
        weights = self.ledger.weights
        if name in FRESH or name.startswith(FRESH_PREFIX):
            weights.fill(tensor, weights.nothing)
        elif name in COPY and not any(self.ledger.gradients.get(each) is not None for each in sources):
            weights.fill(tensor, self.origins.content(next(iter(sources), None)))
        else:
            weights.change(tensor)

    def _add(self, number: int, places: Places) -> None:
        self.origins.awake = True
        source, weights = self.ledger.sources[number], self.ledger.weights
        targets, inputs = weights.nothing.copy(), weights.nothing.copy()
        targets[places] = True
        inputs[_inputs(source.targets, source.inputs, targets)] = True
        # That a document begins is no news.
        inputs &= self.ledger.shard.tokens != BOS
        self._targets, self._inputs = self._targets | targets, self._inputs | inputs
        self._participants, self._weights = source.participants, source.weights
        self.ledger.pending = self._targets | self._inputs

    def _before_step(self, *_: object) -> None:
        self.stepping = True

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self.stepping = False
        # What is looked at here is not used by the script.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self._stepped(optimizer)

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                # Fused steps leave torch's counter as it was.
                self.ledger.weights.touch(parameter)
        if not self._targets.any():
            self._applied = True
            self.training_steps += 1
            number = self.ledger.tick()
            self.training = [self.training[0] if self.training else number, number]
            return
        changed = self.ledger.weights.settle(self.ledger.pending)
        if changed or not self._applied:
            self._report("optimizer.step", changed=changed)

    def _report(self, what: str, *, changed: bool) -> None:
        self._applied = True
        self.ledger.write(
            "update",
            {
                "at": self.ledger.tick(),
                "what": what,
                "positions": ranges(np.flatnonzero(self._targets)),
                "inputs": ranges(np.flatnonzero(self._inputs)),
                "before": self._weights,
                "weights": self.ledger.weights.hash(self._participants),
                "changed": changed,
            },
        )


def _reached(losses: Iterable[torch.Tensor]) -> set[int] | None:
    """Numbers of the losses in the graphs of some tensors; None where a graph is not known."""
    todo: list[Any] = [loss.grad_fn for loss in losses]
    if None in todo:
        return None
    found: set[int] = set()
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        found.update(node.metadata.get(MARK, ()))
        todo += [each for each, _ in node.next_functions if each is not None]
    return found


def _inputs(targets: Places, inputs: Places | None, used: Learned) -> Places:
    """What was read to predict some targets: their row, up to the last of them."""
    if inputs is None:
        return np.zeros(0, dtype=np.int64)
    columns = inputs.shape[-1]
    hit = (targets.reshape(-1, columns) >= 0) & used[np.maximum(targets.reshape(-1, columns), 0)]
    last = np.where(hit.any(1), columns - 1 - np.argmax(hit[:, ::-1], axis=1), -1)
    read = np.where(np.arange(columns)[None] <= last[:, None], inputs, -1)
    return read[read >= 0]
