"""Whether two answers in LaTeX are the same mathematics, as math-verify reads them.

It is slow, and never ends for some answers: call it only in a process that can be killed.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy import (
    Complement,
    Eq,
    Expr,
    Float,
    I,
    Intersection,
    Interval,
    MatrixBase,
    N,
    Pow,
    Rational,
    Symbol,
    Tuple,
    UnevaluatedExpr,
    expand,
    log,
    nan,
    zoo,
)
from sympy.core.relational import Relational

from strop.rewards.answer.number import rounds, same_value

DIGITS = 40
"""Significant digits in which two numbers have to agree if one of them is no fraction."""

_READ = (
    LatexExtractionConfig(
        try_extract_without_anchor=False,
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="last"
        ),
    ),
)
_HUNDREDTH = UnevaluatedExpr(Rational(1, 100))
_NO_NUMBER = (TypeError, ValueError, ArithmeticError, NotImplementedError, AttributeError,
              RecursionError)  # fmt: skip
"""What sympy raises where an expression has no value."""


def equal(said: str, gold: str) -> bool:
    """Whether two answers are the same mathematics; an unreadable answer equals nothing."""
    try:
        return _equal(said, gold)
    except Exception:  # noqa: BLE001 - whatever sympy raises on what nobody can compute
        return False


def _equal(said: str, gold: str) -> bool:
    left, right = _parsed(said), _parsed(gold)
    if left is None or right is None or _repeats(said, left) != _repeats(gold, right):
        return False
    known = _positive([left, right])
    left, right = _settled(left, known), _settled(right, known)
    left, right = _ordered(left, right), _ordered(right, left)
    return bool(verify(right, left, allow_set_relation_comp=True, timeout_seconds=None))


def same_number(one: Any, other: Any, *_: object) -> bool:
    """Equal exactly, or within a relative error where no exact form is known. math-verify's own
    comparison calls 1/2^98 and 1/2^99 equal, because their difference is small.

    A percentage equals its share and its number (`50% = 0.5` and `50% = 50`).
    """
    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        return one.shape == other.shape and all(
            same_number(a, b) or expand(a - b) == 0
            for a, b in zip(one.flat(), other.flat(), strict=True)
        )
    shares = [_share(one), _share(other)]
    if None not in shares:
        return _same(shares[0], shares[1])
    return any(_same(a, b) for a, b in product(*map(_forms, (one, other))))


grader.sympy_numeric_eq = same_number


def _share(one: Any) -> Any:
    """The number before the percent sign; `None` if there is none."""
    percent = getattr(one, "is_Mul", False) and len(one.args) == 2 and one.args[1] == _HUNDREDTH
    return one.args[0] if percent else None


def _forms(one: Any) -> list[Any]:
    return [one] if _share(one) is None else [one, _share(one)]


def _same(one: Any, other: Any) -> bool:
    try:
        one, other = one.doit(), other.doit()
        if not isinstance(one, Expr) or not isinstance(other, Expr):
            return False
        if one.free_symbols or other.free_symbols:
            return bool(expand(one - other) == 0)
        if one.is_Rational and other.is_Rational:
            return same_value(_fraction(one), _fraction(other))
        return _same_digits(one, other)
    except _NO_NUMBER:
        return False


def _same_digits(one: Expr, other: Expr) -> bool:
    """Compare two values, at least one of which is no fraction."""
    near, far = N(one, DIGITS + 20), N(other, DIGITS + 20)
    if not (near.is_finite and far.is_finite):
        return False
    if abs(near - far) <= max(abs(near), abs(far)) * Float(10) ** -DIGITS:
        return bool(near != 0 and far != 0) or one == other
    if one.is_Rational and far.is_real:
        return rounds(_fraction(one), _cut(far))
    return bool(other.is_Rational and near.is_real) and rounds(_fraction(other), _cut(near))


def _cut(value: Expr) -> Fraction:
    """An irrational value as a fraction that agrees with it in `DIGITS` digits but has no finite
    decimal."""
    near = Rational(str(value))
    return Fraction(int(near.p), int(near.q)) * Fraction(3 * 10**DIGITS + 1, 3 * 10**DIGITS)


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def _parsed(answer: str) -> Any:
    """The mathematics of an answer, or `None`."""
    found = parse(rf"\boxed{{{answer}}}", _READ, fallback_mode="no_fallback",
                  extraction_mode="first_match", parsing_timeout=None)  # fmt: skip
    if not found or found[0] in (nan, zoo) or _contradicts(found[0]):
        return None
    return found[0]


def _contradicts(expression: Any) -> bool:
    """Whether a chain of equations gives two numbers: `x = 6 = 5`."""
    chain = expression._unsorted_args if isinstance(expression, And) else [expression]
    if not all(isinstance(one, Eq) for one in chain):
        return False
    sides = [side for one in chain for side in one.args if isinstance(side, Expr)]
    numbers = [side for side in sides if not side.free_symbols]
    return any(not same_number(numbers[0], number) for number in numbers[1:])


def _repeats(answer: str, expression: Any) -> int:
    """How many items of a list (`1, 1, 2`) are repetitions, which a set would drop."""
    if not isinstance(expression, FiniteSet) or answer.startswith("\\{"):
        return 0
    items = expression._unsorted_args
    return sum(
        any(one == other or same_number(one, other) for other in items[:number])
        for number, one in enumerate(items)
    )


def _ordered(one: Any, other: Any) -> Any:
    """A list in its written order, if the other answer is a tuple."""
    is_list = isinstance(one, FiniteSet) and isinstance(other, Tuple | Interval)
    return Tuple(*one._unsorted_args) if is_list else one


def _settled(expression: Any, known: dict[str, bool]) -> Any:
    """An expression in normal form: exact decimals, `i` as the imaginary unit, symbols that differ
    only by name, set operations carried out."""
    if isinstance(expression, FiniteSet):
        return FiniteSet(*[_settled(item, known) for item in expression._unsorted_args])
    if isinstance(expression, And):
        parts = [_settled(part, known) for part in expression._unsorted_args]
        return And(*parts, evaluate=False)
    if isinstance(expression, Relational):  # sympy would settle `n = {1, 2}` as false
        sides = [_settled(side, known) for side in expression.args]
        return expression.func(*sides, evaluate=False)
    if isinstance(expression, Intersection | Complement):
        return expression.func(*[_settled(part, known) for part in expression.args])
    changes: dict[Any, Any] = {one: Rational(str(one)) for one in expression.atoms(Float)}
    for symbol in expression.atoms(Symbol):
        named = Symbol(symbol.name, real=True, positive=known.get(symbol.name))
        imaginary = symbol.name == "i" and symbol in expression.free_symbols
        changes[symbol] = I if imaginary else named
    return expression.xreplace(changes)


def _positive(expressions: list[Any]) -> dict[str, bool]:
    """Symbols that have to be positive for both expressions to be real: `1/sqrt(n)`."""
    names = [
        {base.name for base in _rooted(expression) if isinstance(base, Symbol)}
        for expression in expressions
    ]
    return dict.fromkeys(set.intersection(*names), True)


def _rooted(expression: Any) -> list[Any]:
    """Expressions under an even root or in a logarithm; of a reciprocal there, its denominator."""
    roots = [one.base for one in expression.atoms(Pow)
             if one.exp.is_Rational and one.exp.q % 2 == 0]  # fmt: skip
    inside = [*roots, *(one.args[0] for one in expression.atoms(log))]
    return [
        one.base if isinstance(one, Pow) and one.exp == -1 else one for one in map(_bare, inside)
    ]


def _bare(expression: Any) -> Any:
    """Without the factor 1 that the parser leaves."""
    return expression.doit() if isinstance(expression, Expr) else expression
