"""Small mistakes in a function, made on purpose: one operator or constant at a time."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Final

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.Gt, ast.Eq),
    ast.LtE: (ast.Lt, ast.GtE, ast.Eq),
    ast.Gt: (ast.GtE, ast.Lt, ast.Eq),
    ast.GtE: (ast.Gt, ast.LtE, ast.Eq),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: Final[dict[type[ast.operator], tuple[type[ast.operator], ...]]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mult,),
}
_OTHER_CALL: Final = {"max": "min", "min": "max"}

Mutant = tuple[str, Callable[..., Any]]


def mutants_of(function: Callable[..., Any]) -> Iterator[Mutant]:
    """Yield every mutant of *function*: what was changed, and the function with the change.

    Comparisons, arithmetic, ``and`` and ``or``, ``not``, ``min`` and ``max``, numbers, the
    condition of each ``if``, and each operand of a sum left out.
    """
    assert isinstance(function, FunctionType)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    places = list(ast.walk(tree))
    for number, node in enumerate(places):
        for what, change in _changes(node):
            mutant = copy.deepcopy(tree)
            twin = list(ast.walk(mutant))[number]
            change(mutant, twin)
            name = f"line {getattr(node, 'lineno', '?')}: {ast.unparse(node)}: {what}"
            yield name, _compiled(mutant, function)


Change = Callable[[ast.AST, Any], None]


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        for other in _COMPARISONS.get(type(node.ops[0]), ()):
            yield other.__name__, _set_comparison(other)
    elif isinstance(node, ast.BinOp):
        for operator in _ARITHMETIC.get(type(node.op), ()):
            yield operator.__name__, _set_operator(operator)
        yield "left alone", lambda tree, twin: _replace(tree, twin, twin.left)
        yield "right alone", lambda tree, twin: _replace(tree, twin, twin.right)
    elif isinstance(node, ast.BoolOp):
        yield "and for or", _other_connective
        for place in range(len(node.values)):
            yield f"without operand {place}", _without(place)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", lambda tree, twin: _replace(tree, twin, twin.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _OTHER_CALL:
            yield _OTHER_CALL[node.func.id], _other_call
            for place in range(len(node.args)):
                yield f"argument {place} alone", _argument(place)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "one more", _add(1)
        yield "one less", _add(-1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "always", _condition(True)
        yield "never", _condition(False)


def _set_comparison(other: type[ast.cmpop]) -> Change:
    def change(tree: ast.AST, twin: Any) -> None:
        twin.ops = [other()]

    return change


def _set_operator(other: type[ast.operator]) -> Change:
    def change(tree: ast.AST, twin: Any) -> None:
        twin.op = other()

    return change


def _other_connective(tree: ast.AST, twin: Any) -> None:
    twin.op = ast.Or() if isinstance(twin.op, ast.And) else ast.And()


def _without(place: int) -> Change:
    def change(tree: ast.AST, twin: Any) -> None:
        rest = [value for number, value in enumerate(twin.values) if number != place]
        _replace(tree, twin, rest[0] if len(rest) == 1 else ast.BoolOp(twin.op, rest))

    return change


def _other_call(tree: ast.AST, twin: Any) -> None:
    twin.func.id = _OTHER_CALL[twin.func.id]


def _argument(place: int) -> Change:
    return lambda tree, twin: _replace(tree, twin, twin.args[place])


def _add(number: int) -> Change:
    def change(tree: ast.AST, twin: Any) -> None:
        twin.value += number

    return change


def _condition(value: bool) -> Change:
    def change(tree: ast.AST, twin: Any) -> None:
        twin.test = ast.Constant(value)

    return change


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list) and any(each is old for each in value):
                value[:] = [new if each is old else each for each in value]


def _compiled(tree: ast.AST, function: FunctionType) -> Callable[..., Any]:
    ast.fix_missing_locations(tree)
    assert isinstance(tree, ast.Module)
    # The future import keeps annotations what they are: names that need not exist here.
    flags = function.__code__.co_flags
    code = compile(tree, "<mutant>", "exec", flags & 0x1000000, dont_inherit=True)
    names = dict(function.__globals__)
    exec(code, names)
    mutant: Callable[..., Any] = names[function.__name__]
    return mutant
