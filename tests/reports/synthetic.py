"""Synthetic runs for tests of the page: made with the public Recorder, shaped like a small GPT's training."""

import time
from pathlib import Path

import numpy as np

KINDS = ("attention.query.weight", "attention.out.weight", "mlp.up.weight", "mlp.down.weight")


def layer_names(blocks: int) -> list[str]:
    return [
        "embedding.weight",
        *(f"blocks.{b}.{kind}" for b in range(blocks) for kind in KINDS),
        "head.weight",
    ]


def record_run(
    path: Path,
    *,
    name: str,
    seed: int = 0,
    steps: int = 3_000,
    blocks: int = 3,
    spike: int | None = None,
    tokens: bool = True,
) -> Path:
    """Write a run: loss with evaluation, rate, norms in all and by layer, units, speed, cost, events."""
    from thalweg.record import Recorder

    random = np.random.default_rng(seed)
    t = np.arange(1, steps + 1)
    start = time.time()
    times = start + np.cumsum(0.12 + 0.01 * random.random(steps))
    layers = layer_names(blocks)
    config = {
        "model": {"layers": blocks, "width": 256},
        "optimizer": {"name": "AdamW", "lr": 3e-4 * (1 + seed)},
        "batch": 32,
    }
    environment = {
        "python": "3.11.2",
        "torch": "2.13.0",
        "thalweg": "0.1.0",
        "device": "CPU, 2 cores",
        "git": "3f9c2e1",
    }
    recorder = Recorder(path, name=name, config=config, tags=("synthetic", "gpt"), environment=environment)
    recorder.declare("loss", role="train loss", unit="nats")
    recorder.declare("eval/loss", role="evaluation loss", unit="nats")
    recorder.declare("eval/accuracy", role="evaluation metric")
    recorder.declare("lr", role="rate")
    recorder.declare("grad/norm", role="gradient norm", stage="applied")
    recorder.declare("grad/norm_raw", role="gradient norm", stage="raw")
    recorder.declare("update/ratio", role="update ratio")
    recorder.declare("weight/norm", role="weight norm")
    recorder.declare("time/step", role="step time", unit="s")
    recorder.declare("tokens", role="tokens")
    recorder.declare("watch/cost", role="cost")
    for quantity in ("grad/norm", "update/ratio", "weight/norm", "units/dormant"):
        for layer in layers:
            recorder.declare(f"{quantity}/{layer}", layer=layer)

    bump = np.zeros(steps)
    if spike is not None:
        bump = 8 * np.exp(-np.maximum(t - spike, 0) / 12) * (t >= spike)
    rate = 3e-4 * (1 + seed) * np.minimum(t / 200, 0.5 * (1 + np.cos(np.pi * t / steps)))
    loss = 1.6 + 2.6 * np.exp(-t / (250 + 60 * seed)) + 0.3 * bump + 0.05 * random.standard_normal(steps)
    raw = (
        (0.6 + 2 * np.exp(-t / 400))
        * np.exp(0.25 * random.standard_normal(steps))
        * (1 + 3 * np.roll(bump, -4))
    )
    ratio = 1e-3 * rate / rate.max() * np.exp(0.1 * random.standard_normal(steps)) + 1e-8
    weight = 40 + 12 * np.sqrt(t / steps)
    columns = {
        "loss": loss, "lr": rate, "grad/norm_raw": raw, "grad/norm": np.minimum(raw, 1.0), "update/ratio": ratio,
        "weight/norm": weight, "time/step": np.diff(times, prepend=start), "watch/cost": 0.012 + 0.002 * random.random(steps),
    }  # fmt: skip
    if tokens:
        columns["tokens"] = t * 8_192.0
    recorder.extend(list(columns), t, np.stack(list(columns.values()), axis=1), times=times)

    due = t[::10]
    depth = np.linspace(0, 1, len(layers))
    noise = np.exp(0.3 * random.standard_normal((len(due), len(layers))))
    grads = raw[due - 1, None] * 10 ** (-1.5 * depth[None, ::-1]) * noise
    of_layers = {
        "grad/norm": grads,
        "update/ratio": ratio[due - 1, None] * (0.5 + depth) * noise**0.3,
        "weight/norm": weight[due - 1, None] * (0.2 + 0.5 * depth),
        "units/dormant": np.clip(0.5 * depth * (due[:, None] / steps) * noise**0.2, 0, 1),
    }
    for quantity, values in of_layers.items():
        recorder.extend([f"{quantity}/{layer}" for layer in layers], due, values, times=times[due - 1])
    checks = t[249::250]
    held = np.stack([loss[checks - 1] + 0.08, 1 - np.exp(-checks / 900)], axis=1)
    recorder.extend(["eval/loss", "eval/accuracy"], checks, held, times=times[checks - 1])

    recorder.event("cadence", step=400, severity="note", source="governor", period=10, was=5)
    if spike is not None:
        recorder.event(
            "spike",
            step=spike,
            severity="warning",
            source="loss",
            ratio=2.4,
            precursor="grad/norm_raw ×14 six steps before",
        )
        recorder.event(
            "non-finite",
            step=spike + 3,
            severity="critical",
            source="gradient",
            layer="blocks.1.mlp.up.weight",
        )
    recorder.set_meta("cost", {"share": 0.0124, "low": 0.0117, "high": 0.0131})
    recorder.set_meta("summary", {"loss": float(loss[-1])})
    recorder.close()
    return path
