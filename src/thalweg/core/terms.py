"""Terms of the field where one word names several things: here each thing has its own name, formula and source.

The documentation prints this list, and signals, findings and cards keep to its names.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Term:
    """One thing that the field calls by a word it shares with others.

    Attributes:
        word: the shared word ("forgetting").
        name: the name Thalweg gives to this one of its meanings ("average forgetting").
        meaning: what it says, in a sentence.
        formula: the definition, as plain text.
        paper: id in the bibliography of the paper that defines it so; None for common usage.
    """

    word: str
    name: str
    meaning: str
    formula: str
    paper: int | None = None


def glossary(word: str | None = None) -> list[Term]:
    """Return the terms, in the order of their words; with `word`, only the meanings of that one.

    Raises:
        KeyError: the glossary hasn't this word.
    """
    if word is None:
        return list(_TERMS)
    if not (meanings := [term for term in _TERMS if term.word == word]):
        words = ", ".join(dict.fromkeys(term.word for term in _TERMS))
        raise KeyError(f"the glossary has no {word!r}; its words are: {words}")
    return meanings


_TERMS = (
    Term(
        word="dormant",
        name="dormant unit",
        meaning="A unit whose mean absolute activation is at most a share tau of its layer's mean.",
        formula="s_i = E|h_i| / mean_k E|h_k|;  dormant if s_i <= tau",
        paper=183,
    ),
    Term(
        word="dormant",
        name="dead unit",
        meaning="A unit that is zero for every example of the batch: the dormant unit of tau = 0.",
        formula="h_i(x) = 0 for all x in the batch",
    ),
    Term(
        word="effective rank",
        name="entropy rank",
        meaning="The exponential of the entropy of the normalized singular values.",
        formula="exp(-sum_i p_i ln p_i),  p_i = sigma_i / sum_k sigma_k",
        paper=1002,
    ),
    Term(
        word="effective rank",
        name="threshold rank",
        meaning="How many of the largest singular values hold the share 1 - delta of their sum (srank).",
        formula="min{k : sum_{i<=k} sigma_i / sum_i sigma_i >= 1 - delta},  delta = 0.01",
        paper=1003,
    ),
    Term(
        word="effective rank",
        name="stable rank",
        meaning="The squared Frobenius norm over the squared largest singular value.",
        formula="sum_i sigma_i^2 / sigma_1^2",
    ),
    Term(
        word="effective rate",
        name="effective rate",
        meaning="The rate at which the direction of a scale-invariant weight turns under plain gradient descent.",
        formula="lr / ||w||^2",
        paper=25,
    ),
    Term(
        word="effective rate",
        name="update ratio",
        meaning="The size of the update that was applied, relative to the weight it was applied to.",
        formula="||w_t - w_{t-1}|| / ||w_{t-1}||",
    ),
    Term(
        word="Fisher",
        name="Fisher",
        meaning="The expectation over labels drawn from the model's own prediction.",
        formula="E_x E_{y ~ p(y|x)} [g g^T],  g = grad log p(y|x)",
        paper=1007,
    ),
    Term(
        word="Fisher",
        name="empirical Fisher",
        meaning="The same with the labels of the data: another matrix, close to the Fisher only near a good fit.",
        formula="1/N sum_n g_n g_n^T,  g_n = grad log p(y_n|x_n)",
        paper=1007,
    ),
    Term(
        word="Fisher",
        name="squared mean gradient",
        meaning="The square of a batch's mean gradient: not a Fisher, and dependent on the batch size.",
        formula="(1/B sum_n g_n)^2",
    ),
    Term(
        word="forgetting",
        name="average forgetting",
        meaning="How far each earlier task has fallen below the best accuracy it ever had.",
        formula="1/(k-1) sum_{j<k} (max_{l<k} a_{l,j} - a_{k,j});  a_{l,j}: accuracy on task j after task l",
        paper=1008,
    ),
    Term(
        word="forgetting",
        name="backward transfer",
        meaning="How far each earlier task has moved from the accuracy it had right after it was learned.",
        formula="1/(T-1) sum_{i<T} (a_{T,i} - a_{i,i})",
        paper=1009,
    ),
    Term(
        word="forgetting",
        name="forgetting event",
        meaning="One example goes from correct to incorrect between two of its presentations.",
        formula="sum_t [correct_t and not correct_{t+1}]",
        paper=31,
    ),
    Term(
        word="gradient norm",
        name="raw gradient norm",
        meaning="The norm of what the backward pass left, unscaled, before any clipping: grad/norm_raw.",
        formula="||g||",
    ),
    Term(
        word="gradient norm",
        name="applied gradient norm",
        meaning="The norm of what the optimizer is given, unscaled, after any clipping: grad/norm.",
        formula="min(1, c / ||g||) ||g|| when clipped at the norm c",
    ),
    Term(
        word="noise scale",
        name="simple noise scale",
        meaning="The batch size, in examples, at which a gradient's noise is as large as the gradient.",
        formula="tr(Sigma) / |G|^2;  G, Sigma: mean and covariance of one example's gradient",
        paper=1001,
    ),
    Term(
        word="noise scale",
        name="dynamics noise scale",
        meaning="The strength of the noise that steps of this rate and batch put into the weights.",
        formula="lr (N / B - 1), about lr N / B;  N examples in all, B in a batch",
        paper=1004,
    ),
    Term(
        word="sharpness",
        name="top curvature",
        meaning="The largest eigenvalue of the Hessian of the training loss.",
        formula="lambda_max(H);  gradient descent at the rate lr is stable on a quadratic below 2 / lr",
        paper=1005,
    ),
    Term(
        word="sharpness",
        name="neighborhood sharpness",
        meaning="How much the loss can rise within a ball around the weights.",
        formula="max_{||e|| <= rho} L(w + e) - L(w)",
        paper=1006,
    ),
)
