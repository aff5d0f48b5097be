"""What a signal probably means, guessed from its name: for logs whose authors declared nothing.

The guess goes by the words of the name, so that ``trainLoss``, ``train/lm loss``, ``loss_step`` and ``Training Loss`` are
one thing, and ``eval_squad_loss`` another. Names that are no measurement of their kind (``best_loss``, ``loss_weight``,
``tokens_per_second``) get no role.
"""

import re

from thalweg.record.signals import Role


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_EVALUATION = _set(
    "val valid vali validation eval evaluation evaluate test testing dev heldout holdout predict"
)
_TRAINING = _set("train training trainer")
_SETTING = _set("metrics metric stats perf optim optimizer opt global charts epoch step")
_AVERAGE = _set("step epoch mean avg average running iter iteration batch smoothed ema value per current")
_LOSS = _set("loss losses nll xent crossentropy ce trl tel")
_WHOLE = _set("lm total main overall ce mlm nll cross entropy sum combined all objective")
_METRIC = _set(
    """acc accuracy acc1 acc5 top1 top5 f1 auc auroc auprc error err perplexity ppl bpb bpc bleu sacrebleu rouge rouge1
    rouge2 rougel rougelsum r2 mae mse rmse mape smape precision recall reward rewards return returns score dice iou miou map map50
    map95 wer cer ap ap50 psnr ssim fid meteor matthews mcc pearson spearman kappa hellaswag winrate"""
)
_NOT_A_MEASURE = _set(
    """best min max std var variance scale weight weights ratio lambda coef coefficient alpha window spike time diff
    delta improvement count threshold patience target step_time per_second runtime clip"""
)
_SPEED = re.compile(r"per_(?:s|sec|second|gpu)|_s$|/s|/sec|it_s|throughput|tps|tok_sec")
_PLAIN: tuple[tuple[Role, str], ...] = (
    ("weight decay", r"(?:weight_decay|wd)(?:[/_.]\w*)?"),
    ("momentum", r"(?:momentum|beta1)(?:[/_.]\d+)?"),
    ("batch size", r"(?:global_|train_|micro_|effective_|total_)?(?:batch_size|batchsize|bsz)"),
    (
        "gradient norm",
        r"(?:(?:global|total|raw|overall)_)?(?:grads?|gradient|gradients)[/_.]?(?:total_)?norm(?:_total|_raw|_clipped|/.*)?|gnorm|gnorm_raw|total_norm|norm",
    ),
    ("update norm", r"(?:update|updates)[/_.]norm(?:/.*)?"),
    ("update ratio", r"(?:update|updates)[/_.]ratio(?:/.*)?|update_to_weight(?:_ratio)?"),
    ("weight norm", r"(?:weights?|params?|parameters?)[/_.]norm(?:/.*)?"),
    ("noise scale", r"noise[/_]scale|gradient_noise_scale|gns"),
    ("loss scale", r"loss[/_]scale|(?:scaler|amp)[/_]scale|grad_scale|loss_scaler?"),
    (
        "skipped updates",
        r"(?:num_|number_of_|n_)?skipped(?:_updates|_steps|_iterations|_iters)?|amp/skipped|overflows?",
    ),
    (
        "tokens",
        r"(?:num_|n_|total_|consumed_|train_|input_|seen_|cumulative_)*tokens?(?:_seen|_total|_processed|_consumed|_so_far)*",
    ),
    (
        "samples",
        r"(?:num_|n_|total_|consumed_|train_)*(?:samples|examples|images|sequences)(?:_seen|_processed|_consumed)?",
    ),
    ("epoch", r"epochs?|current_epoch|train/epoch"),
    (
        "wall time",
        r"_?(?:wall|elapsed|relative|train|training|total)[/_]?time(?:_?(?:s|sec|seconds))?|_?timestamp|elapsed|_runtime",
    ),
    (
        "step time",
        r"(?:step|iter|iteration|batch|update)[/_]?time(?:_?(?:s|ms))?|time[/_]step|(?:elapsed_)?time_per_(?:step|iteration|iter|batch)"
        r"|(?:ms|s|sec|seconds)(?:_per_|/)(?:step|batch|it|iter)|step_(?:ms|avg)|dt",
    ),
    (
        "memory",
        r"(?:max_|peak_|gpu_|cuda_)*(?:memory|mem|vram)(?:[/_](?:peak|allocated|reserved|used|gb|mb|max|usage))*",
    ),
)
_RULES = tuple((role, re.compile(rf"^(?:{pattern})$")) for role, pattern in _PLAIN)
_RATE = re.compile(r"^(?:\w{1,24}[/_.])?(?:lr|learning_?rate)(?:[/_.][\w.\-]{1,40})*$")
_NO_RATE = re.compile(
    r"schedul|mult|decay|warmup|lr_(?:min|max|scale|ratio|drop)|(?:min|max|base|initial|peak)_l"
)
_PREFIX = re.compile(
    r"^(?:train|training|trainer|optim|optimizer|opt|global|stats|perf|metrics|debug|progress)[/.]"
)
_UNIT = re.compile(
    r"\s{0,4}[\[(]\s{0,4}(?:[mµun]?s|secs?|seconds?|min|h|%|[kmgt]i?b|nats?|bits?|(?:it|tok|tokens|samples)/s|db|w|°c)"
    r"\s{0,4}[\])]$"
)
_BOX = re.compile(r"^metrics/[\w\-]{1,20}\([a-z]\)$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def guess_role(name: str) -> Role:
    """The role a name suggests, or "" where it suggests none.

    A leading "key:" and prefixes such as "train/" don't matter; "val", "eval", "test" and the like as a word of
    the name make a loss or metric one of evaluation.

    >>> guess_role("val/loss"), guess_role("train/learning_rate"), guess_role("weather")
    ('evaluation loss', 'rate', '')
    """
    low = _CAMEL.sub("_", name.strip()).lower()
    if re.match(r"^[\w\- ]+:", low):
        low = low.split(":", 1)[1]
    if _BOX.match(low):
        return "evaluation metric"  # Ultralytics' are those of the validation
    low = _UNIT.sub("", low).strip()
    bare = _PREFIX.sub("", re.sub(r"[\s\-]+", "_", low))
    words = _words(low)
    evaluation = any(word in _EVALUATION for word in words)
    if not evaluation:
        if _RATE.match(bare) and not _NO_RATE.search(bare):
            return "rate"
        for role, pattern in _RULES:
            if pattern.match(bare):
                return role
    if _SPEED.search(bare) or any(word in _NOT_A_MEASURE for word in words):
        return ""
    role = _measure(words, evaluation)
    return "" if role.endswith("loss") and _is_part(low.rsplit("/", 1)[-1]) else role


def guess_part(name: str) -> Role:
    """The role of a loss that is one of several ("box_loss", "loss_cls", "eval_squad_loss"), "" for any other name.

    Such a loss has no role by itself: it is the loss of a run where no other signal is.

    >>> guess_part("train/box_loss"), guess_part("eval_squad_loss"), guess_part("train_loss_step")
    ('train loss', 'evaluation loss', '')
    """
    low = _CAMEL.sub("_", name.strip()).lower()
    words = _words(low)
    if guess_role(name) or _SPEED.search(low) or any(word in _NOT_A_MEASURE for word in words):
        return ""
    role = _measure(words, any(word in _EVALUATION for word in words))
    return role if role in ("train loss", "evaluation loss") else ""


def _measure(words: list[str], evaluation: bool) -> Role:
    core = [
        word for word in words if word not in _EVALUATION and word not in _TRAINING and word not in _AVERAGE
    ]
    core = [word for word in core if not word.isdigit()] or core
    if not core:
        return ""
    if core[-1] in _LOSS or core[0] in _LOSS or core[-2:] == ["cross", "entropy"]:
        return "evaluation loss" if evaluation else "train loss"
    if any(word.rstrip("0123456789") in _METRIC or word in _METRIC for word in (core[-1], core[0])):
        return "evaluation metric" if evaluation else "train metric"
    return ""


def _is_part(last: str) -> bool:
    """Whether the last piece of a loss's name has a word of its own."""
    known = _EVALUATION | _TRAINING | _SETTING | _AVERAGE | _LOSS | _WHOLE
    return any(word not in known and not word.isdigit() for word in _words(last))


def _words(low: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", low) if word]
