"""The ground every other room stands on: cards, the bibliography, the index of methods, errors, terms."""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg.core.bibliography import Paper as Paper
    from thalweg.core.bibliography import paper as paper
    from thalweg.core.bibliography import papers as papers
    from thalweg.core.cards import Card as Card
    from thalweg.core.method_index import methods as methods
    from thalweg.core.terms import Term as Term
    from thalweg.core.terms import glossary as glossary
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "Card": "thalweg.core.cards",
            "Paper": "thalweg.core.bibliography",
            "Term": "thalweg.core.terms",
            "glossary": "thalweg.core.terms",
            "methods": "thalweg.core.method_index",
            "paper": "thalweg.core.bibliography",
            "papers": "thalweg.core.bibliography",
        },
    )
