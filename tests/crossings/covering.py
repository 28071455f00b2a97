"""Few crossings in which every possible pair of values of two axes meets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from allpairspy import AllPairs

from crossings.axes import AXES, Crossing, is_possible

#: A value with its axis.
Chosen = tuple[str, str]
Pair = tuple[Chosen, Chosen]


def covering() -> list[Crossing]:
    """Those of allpairspy, which stops early where many are impossible, and those for the pairs that it left."""
    tried = AllPairs([list(values) for values in AXES.values()], filter_func=is_first_part)
    crossings: list[Crossing] = [dict(zip(AXES, values, strict=True)) for values in tried]
    missing = missing_in(crossings)
    while missing:
        crossing = crossing_for(missing)
        missing -= pairs_in(crossing)
        crossings.append(crossing)
    return crossings


def is_first_part(values: Iterable[str]) -> bool:
    """Whether values of the first axes fit together."""
    return is_possible(dict(zip(AXES, values, strict=False)))


def crossing_for(missing: set[Pair]) -> Crossing:
    """A crossing with one missing pair, and with as many more of them as can be had by choosing axis by axis."""
    crossing = dict(min(missing))
    for axis in AXES:
        if axis not in crossing:
            able = (value for value in AXES[axis] if is_possible({**crossing, axis: value}))
            crossing[axis] = max(able, key=lambda value: len(pairs_in({**crossing, axis: value}) & missing))
    return {axis: crossing[axis] for axis in AXES}


def pairs_in(crossing: Crossing) -> set[Pair]:
    """The pairs of a crossing, or of a part of one."""
    return set(combinations([(axis, crossing[axis]) for axis in AXES if axis in crossing], 2))


def missing_in(crossings: Iterable[Crossing]) -> set[Pair]:
    """The possible pairs that are in no crossing."""
    values = [[(axis, value) for value in values] for axis, values in AXES.items()]
    pairs = {(x, y) for ones, others in combinations(values, 2) for x in ones for y in others}
    possible = {pair for pair in pairs if any(is_possible({"database": on, **dict(pair)}) for on in AXES["database"])}
    return possible.difference(*map(pairs_in, crossings))
