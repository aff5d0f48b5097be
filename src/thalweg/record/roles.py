"""What a signal probably means, guessed from its name: for logs whose authors declared nothing."""

import re

from thalweg.record.signals import Role

_EDGE = r"(?=$|[/_.\- ])"
_EVALUATION = re.compile(
    rf"(?:^|[/_.\- ])(?:val|valid|validation|eval|evaluation|test|dev|held|heldout){_EDGE}"
)
_TRAINING = re.compile(rf"(?:^|[/_.\- ])(?:train|training){_EDGE}")
_REPEAT = r"(?:_(?:step|epoch|mean|avg))?"
_LOSS = re.compile(rf"(?:loss|nll|xent|cross_entropy|ce){_REPEAT}")
_METRIC = re.compile(
    r"(?:acc|accuracy|acc1|acc5|top1|top5|f1|auc|auroc|error|perplexity|ppl|bpb|bleu|rouge|r2|mae|"
    rf"precision|recall|reward|score){_REPEAT}"
)
_PLAIN: tuple[tuple[Role, str], ...] = (
    ("rate", r"(?:lr|learning_rate|learningrate)(?:[/_.\-](?:.*))?"),
    ("weight decay", r"(?:weight_decay|wd)(?:[/_.\-]\d+)?"),
    ("momentum", r"(?:momentum|beta1)(?:[/_.\-]\d+)?"),
    ("batch size", r"(?:batch_size|batchsize|global_batch_size)"),
    (
        "gradient norm",
        r"(?:grad/norm|grad_norm|gradnorm|gradient_norm|total_norm|grad_norm_total|global_grad_norm)(?:_raw|/.*)?",
    ),
    ("update norm", r"(?:update/norm|update_norm)(?:/.*)?"),
    ("update ratio", r"(?:update/ratio|update_ratio)(?:/.*)?"),
    ("weight norm", r"(?:weight/norm|weight_norm|param_norm|params/norm)(?:/.*)?"),
    ("noise scale", r"(?:noise/scale|noise_scale|gradient_noise_scale|gns)"),
    ("loss scale", r"(?:loss_scale|scaler/scale|amp/scale|loss/scale|grad_scale)"),
    ("skipped updates", r"(?:skipped|skipped_updates|amp/skipped|num_skipped|skipped_steps)"),
    (
        "tokens",
        r"(?:tokens|num_tokens|total_tokens|num_input_tokens_seen|tokens_seen|n_tokens|consumed_tokens)",
    ),
    ("samples", r"(?:samples|examples|num_samples|samples_seen|consumed_samples|n_samples|images)"),
    ("epoch", r"epochs?"),
    ("wall time", r"(?:wall_time|walltime|wall/time|timestamp|_timestamp|relative_time|elapsed)"),
    (
        "step time",
        r"(?:step_time|time/step|steptime|iter_time|iteration_time|time_per_step|ms_per_step|step_ms)",
    ),
    ("memory", r"(?:memory|memory/peak|peak_memory|gpu_memory|mem|max_memory(?:_allocated)?)"),
)
_RULES = tuple((role, re.compile(rf"^(?:{pattern})$")) for role, pattern in _PLAIN)
_PREFIX = re.compile(r"^(?:train|training|trainer|optim|optimizer|opt|global|stats|perf|metrics)[/.]")


def guess_role(name: str) -> Role:
    """The role a name suggests, or "" where it suggests none.

    A leading "key:" and prefixes such as "train/" don't matter; "val", "eval", "test" and the like as a word of
    the name make a loss or metric one of evaluation.

    >>> guess_role("val/loss"), guess_role("train/learning_rate"), guess_role("weather")
    ('evaluation loss', 'rate', '')
    """
    low = name.strip().lower()
    if re.match(r"^[\w\- ]+:", low):
        low = low.split(":", 1)[1]
    bare = _PREFIX.sub("", low)
    for role, pattern in _RULES:
        if pattern.match(bare):
            return role
    evaluation = _EVALUATION.search(low) is not None
    last = _TRAINING.sub("", _EVALUATION.sub("", low)).rsplit("/", 1)[-1].strip("_.- ")
    if _LOSS.fullmatch(last):
        return "evaluation loss" if evaluation else "train loss"
    if _METRIC.fullmatch(last):
        return "evaluation metric" if evaluation else "train metric"
    return ""
