"""Trainings that go wrong on purpose: each is a sensible one with a single mistake, and names the finding that is right.

What is right was written down before any rule had seen the runs: usually one kind; two where two words are honest.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.diagnosis.networks import GPT, MLP, SYMBOLS, Batch, shuffled
from benchmarks.diagnosis.training import CLOSELY, Training

Spoil = Callable[[Training], str]
"""Makes the mistake; returns the layer that it is in, several separated by spaces, "" if it is in none."""

Variant = tuple[str, str]
"""Network and optimizer."""


@dataclass(frozen=True)
class Recipe:
    """One pathology.

    Attributes:
        name: of its runs.
        kinds: kinds of finding that are right as the first.
        variants: networks and optimizers that it is made in; the seed chooses.
        seen: what a person sees in the record.
        spoil: makes the mistake.
    """

    name: str
    kinds: tuple[str, ...]
    variants: tuple[Variant, ...]
    seen: str
    spoil: Spoil


RECIPES: dict[str, Recipe] = {}


def recipe(kinds: str, variants: str, seen: str) -> Callable[[Spoil], Spoil]:
    """Enter a recipe under the name of its function."""

    def enter(spoil: Spoil) -> Spoil:
        name = spoil.__name__.replace("_", "-")
        chosen = tuple((v.split("-")[0], v.split("-")[1]) for v in variants.split())
        RECIPES[name] = Recipe(name, tuple(kinds.split()), chosen, seen, spoil)
        return spoil

    return enter


def make(name: str, variant: Variant, seed: int) -> tuple[Training, str]:
    """The training of a recipe, and the layer that the trouble is in."""
    training = Training(*variant, seed)
    return training, RECIPES[name].spoil(training)


def chance(t: Training) -> torch.Generator:
    """Random numbers of this run's own, beside those of its weights and order."""
    return torch.Generator().manual_seed(7919 * (t.seed + 1))


def between(t: Training, low: int, high: int) -> int:
    """A number that differs from seed to seed."""
    return int(torch.randint(low, high, (), generator=chance(t)))


# -- the rate -------------------------------------------------------------------------------------------


@recipe(
    "divergence rate-high",
    "mlp-sgd mlpwide-momentum gpt-adamw",
    "the loss rises far above its start and stays there",
)
def rate_diverges(t: Training) -> str:
    t.rate, t.schedule = {"mlp": 10.0, "mlpwide": 3.0, "gpt": 2.0}[t.network], lambda step: 1.0
    if t.network != "gpt":  # with ReLU all units would die, and the loss stand still at that of chance
        torch.manual_seed(t.seed)
        t.model = MLP(64 if t.network == "mlp" else 196, activation=nn.Tanh)
    return ""


@recipe("rate-high", "mlp-momentum cnn-adamw gpt-adamw", "the loss falls, then stays noisy and high")
def rate_noisy(t: Training) -> str:
    t.rate *= {"mlp": 12, "cnn": 60, "gpt": 20}[t.network]
    return ""


@recipe("rate-low", "mlp-sgd cnn-adamw gpt-adamw", "the loss still falls in a straight line at the end")
def rate_far_too_low(t: Training) -> str:
    t.rate /= 100
    return ""


@recipe(
    "warmup-short rate-high",
    "gpt-adamw gpt-adam",
    "the loss leaps at the start, and comes back late or never",
)
def no_warmup(t: Training) -> str:
    torch.manual_seed(t.seed)
    t.model = GPT(SYMBOLS, depth=4, post_norm=True)
    t.warmup, t.rate = 0, 1e-2
    return ""


@recipe("rate-never-decayed", "mlp-momentum cnn-adamw", "a noisy plateau at a constant rate")
def never_decayed(t: Training) -> str:
    t.steps, t.batch, t.schedule = 800, 8, lambda step: 1.0
    t.rate *= 2
    return ""


@recipe(
    "rate-decayed-early",
    "mlp-momentum gpt-adamw",
    "the rate falls at an eighth of the run, and the loss stops",
)
def decayed_early(t: Training) -> str:
    t.schedule = lambda step: 1.0 if step < t.steps // 8 else 0.02
    return ""


@recipe("rate-floor-high", "mlp-momentum cnn-adamw", "a cosine that ends at six tenths; noise stays")
def floor_high(t: Training) -> str:
    t.steps, t.batch = 800, 8
    t.rate *= 2
    t.schedule = lambda step: t.cosine(step, 0.6)
    return ""


@recipe(
    "schedule-stepped-twice", "mlp-sgd cnn-adamw gpt-adamw", "the rate is at its floor at half of the run"
)
def stepped_twice(t: Training) -> str:
    t.scheduler_steps = lambda step: 2
    t.said = {"schedule": "cosine"}
    return ""


@recipe("schedule-not-stepped", "mlp-sgd cnn-adamw gpt-adamw", "the rate never changes")
def never_stepped(t: Training) -> str:
    t.scheduler_steps = lambda step: 0
    t.said = {"schedule": "cosine"}
    if t.network == "mlp":
        t.warmup = 0
    return ""


@recipe("schedule-per-epoch", "mlp-sgd cnn-adamw", "the rate changes once an epoch, and hardly at all")
def stepped_per_epoch(t: Training) -> str:
    t.examples = t.examples.first(640)
    t.warmup = 5 if t.network == "mlp" else 10
    t.scheduler_steps = lambda step: int((step + 1) % (640 // t.batch) == 0)
    t.said = {"schedule": "cosine"}
    return ""


# -- numbers --------------------------------------------------------------------------------------------


@recipe("nonfinite-loss", "mlp-adam cnn-adam", "NaN after some hundred steps, from a loss that was low")
def log_of_zero(t: Training) -> str:
    def one_against_all(logits: Tensor, y: Tensor) -> Tensor:
        p, wanted = torch.sigmoid(logits), F.one_hot(y, 10)
        return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()

    t.criterion, t.schedule = one_against_all, lambda step: 1.0
    t.rate *= 4
    t.steps = 600
    return ""


@recipe("nonfinite-loss", "mlp-sgd mlp-adamw", "infinite as soon as a sum in float16 passes 65,504")
def overflow_of_float16(t: Training) -> str:
    criterion = F.cross_entropy

    def with_penalty(logits: Tensor, y: Tensor) -> Tensor:
        return criterion(logits, y) + 1e-7 * logits.half().square().sum().float()

    t.criterion, t.schedule = with_penalty, lambda step: 1.0
    t.rate *= 4
    t.steps, t.batch = 600, 256
    return ""


@recipe(
    "loss-scale-collapse nonfinite-gradient",
    "mlp-adamw mlp-momentum",
    "the loss scale halves at every step from some step on; the loss stands still",
)
def scale_collapses(t: Training) -> str:
    t.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=50)
    t.autocast = lambda: torch.autocast("cpu", dtype=torch.float16)
    first = between(t, 80, 160)
    seen = iter(range(10**9))

    def with_distance(logits: Tensor, y: Tensor) -> Tensor:
        far = logits.float() - logits.float().detach() if next(seen) >= first else logits.float()
        return F.cross_entropy(logits.float(), y) + 1e-3 * far.square().sum(1).sqrt().mean()

    t.criterion = with_distance
    return ""


@recipe(
    "nonfinite-gradient nonfinite-loss",
    "mlp-adamw mlp-sgd",
    "the loss is NaN from one step on, without a warning",
)
def root_of_zero(t: Training) -> str:
    """Distances of hidden vectors from the batch's first, itself included: the root of zero has no gradient."""
    first, t.watching = between(t, 100, 250), {"cadence": 1}
    seen = iter(range(10**9))
    hidden: list[Tensor] = []

    def penalty(logits: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, y)
        if next(seen) < first:
            return loss
        return loss + 1e-4 * (hidden[-1] - hidden[-1][:1]).square().sum(1).sqrt().mean()

    def keep(module: nn.Module, args: Any, out: Tensor) -> None:
        hidden[:] = [out]

    t.model.get_submodule("layers.1").register_forward_hook(keep)
    t.criterion = penalty
    return "layers.0 layers.1"


@recipe("loss-spike", "mlp-momentum gpt-adamw cnn-sgd", "one leap of the loss at a poisoned batch, then back")
def poisoned_batch(t: Training) -> str:
    bad, t.watching = between(t, 150, 250), CLOSELY

    def batches(first: int) -> Iterator[Batch]:
        for step, (x, y) in enumerate(shuffled(t.examples, t.batch, t.seed), first):
            if step != bad:
                yield x, y
            elif t.network == "gpt":
                noise = torch.randint(SYMBOLS, x.shape, generator=chance(t))
                yield noise, noise.flip(1)
            else:
                yield x * 5, y[torch.randperm(len(y), generator=chance(t))]

    t.batches = batches
    return ""


@recipe(
    "loss-spike",
    "mlp-adamw mlpwide-adam",
    "a leap that lasts tens of steps when inputs wake that were silent",
)
def adam_surprised(t: Training) -> str:
    """Inputs that were silent for long wake up: Adam's long memory (beta2 0.9999) still holds their tiny squares."""
    wakes, t.watching = between(t, 220, 280), CLOSELY
    t.options, t.schedule = {"betas": (0.9, 0.9999)}, lambda step: 1.0
    t.rate *= 3

    def batches(first: int) -> Iterator[Batch]:
        for step, (x, y) in enumerate(shuffled(t.examples, t.batch, t.seed), first):
            if step < wakes:
                x = x.clone()
                x[..., x.shape[-1] // 2 :] *= 1e-3
            yield x, y

    t.batches = batches
    return ""


# -- signals through the depth --------------------------------------------------------------------------


@recipe("gradient-vanishing", "mlp-sgd mlp-momentum mlp-adamw", "the loss stays at that of chance for long")
def deep_sigmoid(t: Training) -> str:
    torch.manual_seed(t.seed)
    t.model = MLP(64, depth=8, activation=nn.Sigmoid)
    return "layers.0 layers.1"


@recipe("gradient-exploding", "mlp-sgd mlp-adamw", "gradients grow from layer to layer towards the input")
def deep_tanh_large_weights(t: Training) -> str:
    torch.manual_seed(t.seed)
    t.model = MLP(64, depth=14, activation=nn.Tanh)
    with torch.no_grad():
        for layer in t.model.layers[:-1]:
            layer.weight.normal_(std=3.5 / layer.in_features**0.5)
    return "layers.0 layers.1"


@recipe(
    "gradient-exploding divergence", "mlp-sgd mlp-momentum", "losses of thousands, gradient norms of millions"
)
def deep_linear_large_weights(t: Training) -> str:
    torch.manual_seed(t.seed)
    t.model = MLP(64, depth=12, activation=nn.Identity)
    t.rate, t.clip = 1e-3, 1.0
    with torch.no_grad():
        for layer in t.model.layers:
            layer.weight.normal_(std=2.2 / layer.in_features**0.5)
    return ""


@recipe("dead-units", "mlp-sgd cnnplain-adamw", "nine tenths of a layer's units never fire")
def dead_relus(t: Training) -> str:
    layer, after = ("layers.1", "layers.2") if t.network == "mlp" else ("conv2", "hidden")
    module = t.model.get_submodule(layer)
    with torch.no_grad():
        module.bias[: len(module.bias) * 9 // 10] = -20.0  # type: ignore[index,operator]  # a Parameter
    return f"{layer} {after} {layer.replace('layers', 'acts').replace('conv', 'act')}"


@recipe(
    "dormant-units dead-units",
    "mlp-adam mlp-momentum mlpwide-adam",
    "ever more units fall silent as labels change their meaning",
)
def dormant_growth(t: Training) -> str:
    t.steps, t.schedule = 800, lambda step: 1.0
    t.rate *= 6
    random = chance(t)
    if t.network == "mlpwide":  # units that fall silent without being dead
        torch.manual_seed(t.seed)
        t.model = MLP(196, width=96, activation=nn.GELU)

    def batches(first: int) -> Iterator[Batch]:
        meaning = torch.arange(10)
        for step, (x, y) in enumerate(shuffled(t.examples, t.batch, t.seed), first):
            if step % 80 == 79:
                meaning = torch.randperm(10, generator=random)
            yield x, meaning[y]

    t.batches, t.evaluate_every = batches, 0
    return ""


@recipe("attention-logits-growth", "gpt-adam gpt-adamw", "attention's largest logit grows into the hundreds")
def attention_unscaled(t: Training) -> str:
    """Attention that doesn't divide by the root of the head's size, at a rate somewhat high; the user logs its logits."""
    t.rate *= 6
    t.schedule = lambda step: 1.0 if step < 350 else 0.1
    logits = 0.0

    def look(module: nn.Module, args: Any, out: Tensor) -> None:
        nonlocal logits
        q, k, _ = (z.unflatten(-1, (4, -1)).transpose(1, 2) for z in out.detach().chunk(3, -1))
        logits = (q @ k.mT).max().item()

    for block in t.model.blocks:  # type: ignore[union-attr]  # a ModuleList
        block.scale = 1.0
    t.model.get_submodule("blocks.1.qkv").register_forward_hook(look)
    t.extra = lambda step: {"attention/largest_logit": logits}
    return ""


@recipe(
    "plateau",
    "mlp-adam mlpwide-adamw",
    "the loss falls a little, then stands for most of the run, far from what is possible",
)
def bottleneck(t: Training) -> str:
    """A hidden layer of one unit: more can't be learned, however long."""
    torch.manual_seed(t.seed)
    t.model = MLP(64 if t.network == "mlp" else 196, width=1, depth=3, activation=nn.Tanh)
    t.steps, t.schedule = 1600, lambda step: 1.0 if step < 1500 else 0.1
    t.rate *= 3
    return ""


# -- what is not trained --------------------------------------------------------------------------------


def some_layer(t: Training) -> str:
    """A layer in the middle; which one differs from seed to seed."""
    names = {
        "mlp": ("layers.0", "layers.1"),
        "cnn": ("conv1", "conv2", "hidden"),
        "gpt": ("blocks.0", "blocks.1"),
    }
    return names[t.network][between(t, 0, 6) % len(names[t.network])]


@recipe("parameters-frozen", "mlp-sgd cnn-adamw gpt-adamw", "a layer has no gradient and never moves")
def layer_frozen(t: Training) -> str:
    layer = some_layer(t)
    t.model.get_submodule(layer).requires_grad_(False)
    return layer


@recipe("parameters-frozen", "mlp-momentum cnn-sgd gpt-adamw", "a layer has gradients and never moves")
def layer_not_given(t: Training) -> str:
    layer = some_layer(t)
    t.trainable = lambda model: [
        p for name, p in model.named_parameters() if not name.startswith(f"{layer}.")
    ]
    return layer


@recipe("parameters-frozen", "mlp-adamw gpt-adamw", "layers before a detach get no gradient")
def detached(t: Training) -> str:
    layer, before = (
        ("layers.1", "layers.0 layers.1") if t.network == "mlp" else ("blocks.0", "tokens places blocks.0")
    )
    t.model.get_submodule(layer).register_forward_hook(lambda module, args, out: out.detach())
    return before


# -- the loop -------------------------------------------------------------------------------------------


@recipe(
    "gradients-accumulate",
    "mlp-sgd cnn-adamw gpt-adamw",
    "the gradient norm grows and turns slowly; loss swings",
)
def zero_grad_forgotten(t: Training) -> str:
    t.zeroed = False
    return ""


@recipe(
    "accumulation-not-averaged rate-high", "mlp-sgd cnn-momentum", "gradients eight times those of a batch"
)
def accumulation_summed(t: Training) -> str:
    t.accumulate, t.averaged = 8, False
    t.batch = 8
    t.rate *= 2
    return ""


@recipe("gradient-clipped", "mlp-sgd gpt-momentum", "the applied norm stands at its bound; the loss crawls")
def clipped_far_too_tight(t: Training) -> str:
    t.clip = 0.02
    return ""


@recipe("epsilon-dominates", "mlp-adamw gpt-adam", "Adam with epsilon 0.01: updates shrink with the gradient")
def epsilon_large(t: Training) -> str:
    t.options = {"eps": 1e-2}
    return ""


@recipe("data-loading-bound", "mlp-adamw cnn-sgd", "most of a step is waiting")
def slow_loader(t: Training) -> str:
    t.steps, t.warmup, t.evaluate_every = 160, 10, 40
    waited = 0.0

    def wait(step: int) -> None:
        nonlocal waited
        began = time.perf_counter()
        if t.network == "mlp":
            time.sleep(0.012)
        elif step % 8 == 0:
            time.sleep(0.15)
        waited = time.perf_counter() - began

    t.before = wait
    if t.network == "mlp":
        t.extra = lambda step: {"time/data": waited}
    return ""


@recipe("memory-growth", "mlpwide-sgd gpt-adamw", "memory grows by the same amount every step")
def batches_kept(t: Training) -> str:
    """Each batch and its logits are kept in a list, to be looked at later."""
    kept: list[Any] = []
    if t.network == "mlpwide":
        t.steps, t.batch = 600, 128
    t.model.register_forward_hook(lambda module, args, out: kept.append((args, out)))
    return ""


# -- the data -------------------------------------------------------------------------------------------


@recipe(
    "overfitting",
    "mlpwide-adam mlp-momentum gpt-adamw",
    "the evaluation loss turns and rises while the training loss falls",
)
def few_examples(t: Training) -> str:
    """A small set; where it has classes, a sixth of the labels is wrong, as in many a small set."""
    t.examples = t.examples.first(60 if t.network == "gpt" else 200)
    t.steps, t.schedule = 600, lambda step: 1.0
    if t.network == "gpt":
        t.rate *= 4
    else:
        t.examples.y = t.examples.y.clone()
        t.examples.y[::6] = torch.randint(10, t.examples.y[::6].shape, generator=chance(t))
    return ""


@recipe(
    "memorization overfitting",
    "mlp-adam cnn-adamw",
    "random labels are learned by heart; evaluation gets worse than chance",
)
def random_labels(t: Training) -> str:
    t.examples = t.examples.first(200)
    t.examples.y = torch.randint(10, (200,), generator=chance(t))
    t.steps, t.schedule = 800, lambda step: 1.0
    return ""


@recipe(
    "constant-prediction",
    "mlp-adamw cnn-sgd",
    "the loss is that of guessing by frequency, accuracy one in ten",
)
def labels_mixed_up(t: Training) -> str:
    def batches(first: int) -> Iterator[Batch]:
        for x, y in shuffled(t.examples, t.batch, t.seed):
            yield x, y[torch.randperm(len(y), generator=random)]

    random = chance(t)
    t.batches = batches
    return ""


@recipe("data-order", "mlp-sgd cnn-adamw", "the loss repeats with the epoch: data sorted by class")
def sorted_by_class(t: Training) -> str:
    t.examples = t.examples.first(640)
    order = t.examples.y.argsort(stable=True)

    def batches(first: int) -> Iterator[Batch]:
        while True:
            for places in order.split(t.batch):
                yield t.examples.at(places)

    t.batches = batches
    return ""


@recipe(
    "resume-jump", "mlp-momentum cnn-adamw", "the loss leaps where the run was resumed: its loader began anew"
)
def loader_restarts(t: Training) -> str:
    """Inputs get noisier over the run; the resumed loader begins with clean ones again."""
    t.resume_at = between(t, 230, 280)
    random = chance(t)

    def batches(first: int) -> Iterator[Batch]:
        for place, (x, y) in enumerate(shuffled(t.examples, t.batch, t.seed)):
            yield x + 4.0 * place / t.steps * torch.randn(x.shape, generator=random), y

    t.batches, t.schedule = batches, lambda step: 1.0
    return ""


@recipe(
    "resume-jump",
    "mlp-adamw cnn-adam",
    "the loss leaps where the run was resumed: Adam's state and the schedule's began anew",
)
def states_lost(t: Training) -> str:
    t.resume_at, t.stateful = between(t, 280, 330), False
    t.warmup = 0
    t.rate *= 4
    return ""


@recipe("evaluation-jump", "cnn-adam cnn-adamw", "training is fine; evaluation is many times worse")
def running_statistics_lag(t: Training) -> str:
    for module in t.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1e-4
    return ""


@recipe(
    "evaluation-jump",
    "mlpwide-adamw cnnplain-momentum",
    "evaluated on pixels that were not scaled as in training",
)
def evaluated_unscaled(t: Training) -> str:
    def measure(model: nn.Module) -> dict[str, float]:
        scaled, t.examples.x_test = t.examples.x_test, t.examples.x_test * 0.3 + 0.13
        try:
            return t.evaluate(model)
        finally:
            t.examples.x_test = scaled

    t.measure = measure
    return ""


@recipe(
    "weight-norm-growth",
    "cnn-adam cnn-momentum",
    "weights before BatchNorm grow to many times their first norm",
)
def no_weight_decay(t: Training) -> str:
    t.steps, t.schedule = 800, lambda step: 1.0 if step < 700 else 0.05
    t.rate *= 8 if t.optimizer == "adam" else 3
    return ""


@recipe(
    "softmax-collapse", "mlp-adam mlpwide-adam", "the loss becomes exactly zero, and so does the gradient"
)
def logits_run_away(t: Training) -> str:
    t.examples = t.examples.first(60)
    t.steps, t.schedule = 1200, lambda step: 1.0
    t.rate *= 10
    t.measure = lambda model: {"eval/accuracy": t.evaluate(model)["eval/accuracy"]}
    return ""


@recipe("batch-small", "gpt-adam gpt-adamw", "batches of four: the gradient is noise")
def batch_of_four(t: Training) -> str:
    t.batch, t.accumulate = 1, 4
    return ""


@recipe(
    "batch-large", "mlp-sgd mlpwide-sgd", "batches of more than a thousand while the noise scale is some tens"
)
def batch_of_thousands(t: Training) -> str:
    t.batch, t.accumulate = len(t.examples) // 4, 4
    t.steps, t.warmup, t.evaluate_every = 100, 10, 10
    return ""
