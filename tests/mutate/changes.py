"""The small ways in which a module is broken: one piece of its syntax tree each is another, or is not there."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_REASONED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.RShift: ast.LShift,
    ast.LShift: ast.RShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_TURNED: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SAID: Final = ("annotation", "returns", "decorator_list", "type_params")
"""What says something to a type checker, or is not of the code that runs."""
_TOLD: Final = frozenset({"_log", "structlog", "logging"})


class Change(NamedTuple):
    """A mutant: where it is, and what is put there."""

    function: str
    """Dotted; empty for the module's own."""
    code: str
    """The outermost function whose body holds it, which alone can be exchanged; empty where the module runs it once."""
    line: int
    what: str
    """The code before and after, which with the function names it, whatever stands above it."""
    slot: int
    other: ast.AST


class _Slot(NamedTuple):
    """A place in a tree that holds a node."""

    parent: ast.AST
    name: str
    at: int | None
    function: str
    code: str
    bool_: bool
    """Whether the function returns a truth."""

    @property
    def node(self) -> ast.AST:
        held = getattr(self.parent, self.name)
        return held if self.at is None else held[self.at]  # type: ignore[no-any-return]

    def put(self, node: ast.AST) -> None:
        if self.at is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.at] = node


def changes(source: str) -> list[Change]:
    """Every change of a module, in its order; a value that says little alone is shown with what it is part of."""
    found, named = list[Change](), Counter[tuple[str, str]]()
    for number, slot in enumerate(_slots(ast.parse(source))):
        node = slot.node
        whole = isinstance(node, ast.Constant | ast.Set) and not isinstance(slot.parent, ast.stmt | ast.FormattedValue)
        whole = whole or isinstance(slot.parent, ast.Assign | ast.AnnAssign)
        for other in _others(slot, node):
            before = _short(slot.parent if whole else node)
            slot.put(other)
            after = _short(slot.parent if whole else other)
            slot.put(node)
            what = f"{before} → {after}"
            named[slot.function, what] += 1
            if (times := named[slot.function, what]) > 1:
                what += f" ({times})"
            found.append(Change(slot.function, slot.code, getattr(node, "lineno", 0), what, number, other))
    return found


def changed(source: str, change: Change) -> ast.Module:
    """The tree of a mutant."""
    tree = ast.parse(source)
    slot = list(_slots(tree))[change.slot]
    slot.put(ast.copy_location(copy.deepcopy(change.other), slot.node))
    return ast.fix_missing_locations(tree)


def _short(node: ast.AST) -> str:
    """One line of code."""
    return " ".join(ast.unparse(node).split())


def _slots(tree: ast.AST, function: str = "", code: str = "", bool_: bool = False) -> Iterator[_Slot]:
    """What can be changed; not words for people, nor what is told to a log."""
    if isinstance(tree, ast.JoinedStr | ast.Raise | ast.Assert) or _is_told(tree) or _is_of_a_version(tree):
        return
    for name, value in ast.iter_fields(tree):
        if name in _SAID:
            continue
        for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or getattr(child, "name", "") == "__repr__":
                continue
            inside, runs, truth = function, code, bool_
            if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef) and name == "body":
                runs = code or function
                truth = isinstance(tree.returns, ast.Name) and tree.returns.id == "bool"
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{function}.{child.name}".lstrip(".")
            yield _Slot(tree, name, at, inside, runs, truth)
            yield from _slots(child, inside, runs, truth)


def _is_told(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and isinstance(node.value.func.value, ast.Name)
        and node.value.func.value.id in _TOLD
    )


def _is_of_a_version(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).startswith("sys.version_info")


def _others(slot: _Slot, node: ast.AST) -> list[ast.AST]:
    """What is put in the place of a node."""
    true, false = ast.Constant(True), ast.Constant(False)
    if (slot.name == "test" and isinstance(slot.parent, ast.If | ast.IfExp)) or slot.name == "guard":
        return [true, false, *_parts(node)]
    if slot.name == "test" and isinstance(slot.parent, ast.While) and not isinstance(node, ast.Constant):
        return [false, *_parts(node)]
    if slot.name == "ifs":
        return [true, *_parts(node)]
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            if slot.bool_:
                return [ast.Return(each) for each in (true, false) if ast.unparse(each) != ast.unparse(value)]
            return [ast.Return(ast.Constant(None))]
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())) if not _is_told(node):
            return [ast.Pass()]
        case ast.Raise() if not (
            isinstance(slot.parent, ast.If) and len(slot.parent.body) == 1
        ):  # else its test is false
            return [ast.Pass()]
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _REASONED:
            return [ast.AugAssign(target, _REASONED[type(op)](), value)]
        case ast.Tuple(elts=kinds) if isinstance(slot.parent, ast.ExceptHandler) and len(kinds) > 1:
            return [_tuple(fewer) for fewer in _fewer(kinds)]
    return _parts(node) if slot.name != "op" else []


def _parts(node: ast.AST) -> list[ast.AST]:
    """An expression with a piece of it turned, or left out."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            turned: list[ast.AST] = [
                ast.Compare(left, [*ops[:at], _COMPARED[type(op)](), *ops[at + 1 :]], comparators)
                for at, op in enumerate(ops)
            ]
            match left, comparators:
                case ast.Tuple(elts=ours), [ast.Tuple(elts=theirs)] if len(ours) == len(theirs):
                    pairs = zip(_fewer(ours), _fewer(theirs), strict=True)
                    turned += [ast.Compare(_tuple(one), ops, [_tuple(other)]) for one, other in pairs]
                case _, [ast.Tuple(elts=known)]:
                    turned += [ast.Compare(left, ops, [_tuple(fewer)]) for fewer in _fewer(known)]
            return turned
        case ast.Set(elts=elements) if len(elements) > 1:
            return [ast.Set(fewer) for fewer in _fewer(elements)]
        case ast.BoolOp(op=op, values=values):
            return [fewer[0] if len(fewer) == 1 else ast.BoolOp(op, fewer) for fewer in _fewer(values)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [operand]
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _REASONED:
            return [ast.BinOp(left, _REASONED[type(operator)](), right)]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in _TURNED:
            return [ast.Call(ast.Name(_TURNED[name], ast.Load()), arguments, keywords)]
        case ast.Constant(value=bool() as value):
            return [ast.Constant(not value)]
        case ast.Constant(value=int() as value):
            return [ast.Constant(value + 1)]
        case ast.Constant(value=bytes() as value):
            return [ast.Constant(value + b"x")]
    return []


def _fewer(nodes: list[ast.expr]) -> list[list[ast.expr]]:
    """Each time without one of them."""
    return [[*nodes[:at], *nodes[at + 1 :]] for at in range(len(nodes))]


def _tuple(nodes: list[ast.expr]) -> ast.Tuple:
    return ast.Tuple(nodes, ast.Load())
