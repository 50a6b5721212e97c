"""Attributes that methods read on `self` and that nothing in the script ever sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.analysis.index import Index, children, dotted, last_name

# What every torch module has, methods and documented state; other attributes of `nn.Module` are private.
_MODULE = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type xpu zero_grad
    """.split()  # noqa: SIM905 - one word a line would hide the list
)
_LINEAR = frozenset({"in_features", "out_features", "weight", "bias", "reset_parameters"})
_EMBEDDING = frozenset(
    """
    num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse weight reset_parameters
    from_pretrained
    """.split()  # noqa: SIM905 - the same
)
_OPTIMIZER = frozenset(
    """
    param_groups state defaults step zero_grad add_param_group state_dict load_state_dict profile_hook_step
    register_step_pre_hook register_step_post_hook register_state_dict_pre_hook register_state_dict_post_hook
    register_load_state_dict_pre_hook register_load_state_dict_post_hook
    """.split()  # noqa: SIM905 - the same
)
# Attributes of base classes that scripts build on; a class with any other foreign base is not judged.
FOREIGN = {
    "object": frozenset[str](),
    "ABC": frozenset[str](),
    "Module": _MODULE,
    "Linear": _MODULE | _LINEAR,
    "Embedding": _MODULE | _EMBEDDING,
    "Optimizer": _OPTIMIZER,
}
# Classes that come by attributes in ways that the text does not show.
_OPEN_METHODS = frozenset({"__getattr__", "__getattribute__", "__setattr__", "__class_getitem__"})
_SETTERS = frozenset({"register_buffer", "register_parameter", "add_module", "register_module", "set_submodule"})
_ASKING = frozenset({"hasattr", "getattr", "setattr", "delattr", "__setattr__", "__getattribute__"})


@dataclass(slots=True)
class _Class:
    """A class as its text shows it."""

    node: ast.ClassDef
    bases: list[str]
    read: list[ast.Attribute] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    opened: bool = False


class Attributes:
    """The classes of one script and the attributes of `self` in them.

    Attributes:
        never_set: reads of attributes that neither the class, nor a base, nor a subclass, nor any other code sets.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        # Every class, also those of the same name in different functions.
        self._classes = {
            node: _Class(node, [last_name(base) for base in node.bases]) for node in index.each(ast.ClassDef)
        }
        self._by_name: dict[str, list[_Class]] = {}
        for each in self._classes.values():
            self._by_name.setdefault(each.node.name, []).append(each)
        self._elsewhere: set[str] = set()
        self._collect()
        self.never_set = sorted(self._find(), key=lambda node: (node.lineno, node.col_offset))

    def owner(self, read: ast.Attribute) -> ast.ClassDef:
        """The class whose method reads the attribute."""
        return next(each for each in self._index.ancestors(read) if isinstance(each, ast.ClassDef))

    def _collect(self) -> None:
        """One pass over the uses of `self`, one over what is set, one over calls, one over bodies of classes."""
        of_line = self._classes_by_line()
        for use in self._index.names.get("self", ()):
            above = self._index.parent(use)
            if isinstance(above, ast.Attribute):
                self._note(above, of_line[above.lineno])
        for name, stored in self._index.stored_attributes.items():
            if any(not isinstance(node.value, ast.Name) or node.value.id != "self" for node in stored):
                self._elsewhere.add(name)
        for call in self._index.calls_of(*_SETTERS, *_ASKING, "vars"):
            self._note_call(call, of_line[call.lineno])
        for each in self._classes.values():
            _class_level(each)

    def _note(self, node: ast.Attribute, owner: _Class | None) -> None:
        if owner is None:
            self._elsewhere.add(node.attr)
        elif node.ctx.__class__ is not ast.Load:
            owner.has.add(node.attr)
        elif node.attr == "__dict__":
            owner.opened = True
        else:
            owner.read.append(node)

    def _classes_by_line(self) -> list[_Class | None]:
        last = max((getattr(node, "end_lineno", 0) for node in self._index.tree.body), default=0)
        lines: list[_Class | None] = [None] * (last + 2)
        for node in self._index.of(ast.ClassDef):
            end = node.end_lineno or node.lineno
            lines[node.lineno : end + 1] = [self._classes[node]] * (end + 1 - node.lineno)
        return lines

    def _note_call(self, call: ast.Call, owner: _Class | None) -> None:
        """Names that a call sets or asks for; a name that is worked out opens the class that the call stands in."""
        constants = [each.value for each in call.args[:2] if isinstance(each, ast.Constant)]
        self._elsewhere.update(each for each in constants if isinstance(each, str))
        worked_out = not constants and last_name(call.func) not in {"hasattr", "getattr", "delattr"}
        on_self = any(isinstance(each, ast.Name) and each.id == "self" for each in (*call.args[:1], _owner(call.func)))
        if worked_out and on_self and owner is not None:
            owner.opened = True

    def _find(self) -> Iterator[ast.Attribute]:
        children: dict[str, list[_Class]] = {}
        for each in self._classes.values():
            for base in each.bases:
                children.setdefault(base, []).append(each)
        for each in self._classes.values():
            family = self._family(each, children)
            if family is None:
                continue
            known = set[str]().union(*(member.has for member in family))
            known |= self._elsewhere.union(*(FOREIGN.get(base, ()) for member in family for base in member.bases))
            for node in each.read:
                if node.attr not in known and not node.attr.startswith("__") and self._is_self(node, each):
                    yield node

    def _family(self, start: _Class, children: dict[str, list[_Class]]) -> list[_Class] | None:
        """The class with its own bases and its subclasses; None where one of them is not fully seen."""
        family: list[_Class] = []
        queue = [start]
        while queue:
            member = queue.pop()
            if any(member is each for each in family):
                continue
            if member.opened or member.node.decorator_list or member.node.keywords:
                return None
            family.append(member)
            for base in member.bases:
                own = self._by_name.get(base, [])
                if len(own) > 1 or (not own and base not in FOREIGN):
                    return None
                queue += own
            queue += children.get(member.node.name, [])
        return family

    def _is_self(self, node: ast.Attribute, owner: _Class) -> bool:
        """Whether `self` is the method's own first parameter, and not caught by a handler or a decorator."""
        below: ast.AST = node
        for above in self._index.ancestors(node):
            if isinstance(above, ast.Try) and below in above.body and above.handlers:
                return False
            if above is owner.node:
                return isinstance(below, ast.FunctionDef) and _takes_self(below)
            below = above
        return False


def _owner(function: ast.expr) -> ast.expr | None:
    return function.value if isinstance(function, ast.Attribute) else None


def _takes_self(method: ast.FunctionDef) -> bool:
    decorators = {dotted(each) for each in method.decorator_list}
    first = [*method.args.posonlyargs, *method.args.args][:1]
    return not decorators & {"staticmethod", "classmethod"} and bool(first) and first[0].arg == "self"


def _class_level(each: _Class) -> None:
    """What the class body binds, at any depth of conditions."""
    stack: list[ast.AST] = list(each.node.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            each.has.add(node.name)
            each.opened |= node.name in _OPEN_METHODS
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            each.has.add(node.id)
            if node.id == "__slots__":
                each.opened = True
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            each.has.update(alias.asname or alias.name for alias in node.names)
        stack.extend(children(node))
