"""A method's card: what it is, where it comes from, what it needs and costs.

Every method's file holds one literal ``CARD = Card(...)``. The index of methods is built by parsing these
literals, so a card may hold only literals: strings, numbers, tuples and dictionaries of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Card:
    """The description of one method, from which lists, help, documentation and tests are made.

    Attributes:
        name: the stable name a user types, in lower case with hyphens ("gradient-norm").
        kind: what sort of method: "instrument", "importer", "schedule", "law", "rule", "optimizer", ...
        summary: one sentence: what it says or does.
        papers: ids in the bibliography (`thalweg papers`) of the papers it comes from; empty for plain counts.
        formula: the definition in the paper's symbols, as plain text.
        symbols: what each symbol of the formula means, with its unit.
        needs: what must be there for it to work ("gradients", "a GradScaler", "eager mode").
        cost: what it costs, in words a user can check ("one pass over the gradients").
        options: name of each option -> what it does, with its default and the reason for it.
        signals: name patterns of the signals it writes (instruments only).
    """

    name: str
    kind: str
    summary: str
    papers: tuple[int, ...] = ()
    formula: str = ""
    symbols: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    needs: str = ""
    cost: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    signals: tuple[str, ...] = ()
