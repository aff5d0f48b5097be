"""The Hugging Face Trainer, watched: the same run, the Trainer's own numbers, one run over a resume."""

import copy
import importlib
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from thalweg.core.errors import MissingExtra, ThalwegWarning, UsageError
from thalweg.integrations.transformers import ThalwegCallback, split_names
from thalweg.record import open_run, open_runs

STEPS = 12


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Random tokens that depend on the index alone."""

    def __init__(self, n: int = 64, length: int = 16) -> None:
        self.rows = torch.randint(0, 50, (n, length), generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def _model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def _trainer(folder: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "learning_rate": 1e-2,
        "logging_steps": 3,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 3,
    }
    kind = arguments.pop("trainer", Trainer)
    sets = arguments.pop("eval_dataset", Tokens(8))
    return kind(
        model=_model(),
        args=TrainingArguments(**(settings | arguments)),
        train_dataset=Tokens(),
        eval_dataset=sets,
        callbacks=list(callbacks),
    )


def _same(one: Trainer, other: Trainer) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    moments = zip(
        one.optimizer.optimizer.state.values(), other.optimizer.optimizer.state.values(), strict=True
    )
    return all(torch.equal(a[k], b[k]) for k in a) and all(
        torch.equal(torch.as_tensor(m[k]), torch.as_tensor(n[k])) for m, n in moments for k in m
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, ThalwegCallback, Trainer]:
    """One training watched, with evaluation and clipping, and its unwatched twin."""
    folder = tmp_path_factory.mktemp("hf")
    callback = ThalwegCallback(out=folder / "run.tw", config={"note": "mine"}, tags=["t"], cadence=1)
    settings: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": 4,
        "include_num_input_tokens_seen": "all",
        "run_name": "tiny",
    }
    trainer = _trainer(folder, callback, **settings)
    trainer.train()
    noise = torch.rand(3)
    plain = _trainer(folder / "plain", **settings)
    plain.train()
    assert torch.equal(noise, torch.rand(3))
    return trainer, callback, plain


def test_the_watched_training_is_the_same_training(watched: tuple[Any, ...]) -> None:
    trainer, _, plain = watched
    assert _same(trainer, plain)
    for log, other in zip(trainer.state.log_history, plain.state.log_history, strict=True):
        for key in ("loss", "grad_norm", "learning_rate", "eval_loss"):
            assert log.get(key) == other.get(key)


def test_nothing_stays_in_the_trainer(watched: tuple[Any, ...]) -> None:
    trainer, _, _ = watched
    assert "training_step" not in vars(trainer)
    assert "clip_grad_norm_" not in vars(trainer.accelerator)
    assert not trainer.model._forward_pre_hooks
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks


def test_every_update_is_recorded_as_the_trainer_logs_it(watched: tuple[Any, ...]) -> None:
    trainer, callback, _ = watched
    run = open_run(callback.watch.path)
    logs = [h for h in trainer.state.log_history if "loss" in h]
    assert len(logs) == STEPS // 3
    every = np.arange(STEPS)
    np.testing.assert_array_equal(run["loss"].steps, every)
    np.testing.assert_array_equal(run["lr"].steps, every)
    np.testing.assert_array_equal(run["grad/norm_raw"].steps, every)
    for log in logs:
        last = log["step"] - 1
        np.testing.assert_allclose(run["loss"].values[last - 2 : last + 1].mean(), log["loss"], rtol=1e-5)
        np.testing.assert_allclose(run["grad/norm_raw"].values[last], log["grad_norm"], rtol=1e-6)
        np.testing.assert_allclose(run["lr"].values[last], log["learning_rate"], rtol=1e-6)
    assert run["trainer/loss"].steps.tolist() == [2, 5, 8, 11]
    assert run["trainer/loss"].spec.window == 3
    np.testing.assert_allclose(run["trainer/loss"].values, [h["loss"] for h in logs], rtol=1e-6)
    np.testing.assert_allclose(
        run["grad/norm"].values, np.minimum(run["grad/norm_raw"].values, 0.5), rtol=1e-4
    )
    clipped = run["grad/norm_raw"].values > 0.5
    assert 0 < clipped.sum() < STEPS
    np.testing.assert_array_equal(run["grad/clipped"].values, clipped)


def test_evaluation_is_apart_from_training(watched: tuple[Any, ...]) -> None:
    trainer, callback, _ = watched
    run = open_run(callback.watch.path)
    logs = [h for h in trainer.state.log_history if "eval_loss" in h]
    assert run["eval/loss"].steps.tolist() == [h["step"] for h in logs] == [4, 8, 12]
    np.testing.assert_allclose(run["eval/loss"].values, [h["eval_loss"] for h in logs], rtol=1e-6)
    assert run.by_role("evaluation loss").name == "eval/loss"
    assert run.by_role("train loss").name == "loss"
    assert {s.name for s in run.all_by_role("train loss")} == {"loss", "trainer/loss"}
    assert run.by_role("rate").name == "lr"
    assert run["trainer/grad_norm"].spec.stage == "raw"


def test_counts_settings_and_the_end_are_kept(watched: tuple[Any, ...]) -> None:
    trainer, callback, _ = watched
    run = open_run(callback.watch.path)
    assert run.name == "tiny"
    assert run.config["note"] == "mine"
    assert run.config["learning_rate"] == 1e-2
    assert run.config["model"]["n_embd"] == 16
    assert run.config["lr_scheduler_kwargs"] is None
    assert run.config["train_batch_size"] == 4
    assert run["samples"].values[-1] == STEPS * 8
    assert run["tokens"].values[-1] == STEPS * 8 * 16 == trainer.state.num_input_tokens_seen
    assert run["epoch"].steps.tolist()[0] == 3
    (end,) = run.events("training finished")
    assert end.details["train_loss"] == pytest.approx(run["loss"].values.mean(), rel=1e-5)
    assert run.segments[-1].reason == "closed"
    assert not run.events("failure")
    assert "update/ratio" in run.names() or run.names("update/*")
    readers = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj", "attn.c_attn")
    assert {f"units/dormant/transformer.h.{i}.{r}" for i in (0, 1) for r in readers} <= set(run.names())


def test_a_resumed_training_is_a_second_segment(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
    first = ThalwegCallback(out=tmp_path / "run.tw")
    _trainer(tmp_path, first, **settings).train()
    checkpoint = tmp_path / "out" / "checkpoint-5"
    assert (checkpoint / "thalweg.pt").is_file()
    moved = tmp_path / "elsewhere"
    checkpoint.rename(moved)

    again = ThalwegCallback(out=tmp_path / "run.tw")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", ThalwegWarning)
        resumed = _trainer(tmp_path, again, **settings)
        resumed.train(resume_from_checkpoint=str(moved))
    assert not [w for w in shown if w.category is ThalwegWarning], [str(w.message) for w in shown]
    plain = _trainer(tmp_path / "plain", **settings)
    plain.train()
    assert _same(resumed, plain)

    run = open_run(tmp_path / "run.tw")
    assert again.watch.path == tmp_path / "run~2.tw"
    assert [s.first_step for s in run.segments] == [0, 5]
    np.testing.assert_array_equal(run["loss"].steps, np.arange(STEPS))
    np.testing.assert_allclose(
        run["loss"].values, open_run(tmp_path / "run.tw", segment=0)["loss"].values, rtol=1e-5
    )
    assert run["samples"].values[-1] == STEPS * 8
    assert sorted(p.name for p in tmp_path.glob("*.tw")) == ["run.tw", "run~2.tw"]


def test_an_evaluation_just_before_the_checkpoint_survives_the_resume(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 4,
    }
    _trainer(tmp_path, ThalwegCallback(out=tmp_path / "run.tw", probes="none"), **settings).train()
    again = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    resumed = _trainer(tmp_path, again, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    logged = [(h["step"], h["eval_loss"]) for h in resumed.state.log_history if "eval_loss" in h]
    series = open_run(tmp_path / "run.tw")["eval/loss"]
    assert series.steps.tolist() == [step for step, _ in logged] == [4, 8, 12]
    np.testing.assert_allclose(series.values, [loss for _, loss in logged], rtol=1e-6)


def test_an_exception_in_a_step_ends_the_record_with_its_name(tmp_path: Path) -> None:
    class Breaks(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 4:
                raise FloatingPointError("stop")
            return super().compute_loss(*args, **kwargs)

    callback = ThalwegCallback(out=tmp_path / "run.tw")
    trainer = _trainer(tmp_path, callback, trainer=Breaks)
    with pytest.raises(FloatingPointError):
        trainer.train()
    run = open_run(tmp_path / "run.tw")
    assert run.segments[-1].reason == "FloatingPointError"
    assert run["loss"].steps.tolist() == [0, 1, 2, 3]
    assert "training_step" not in vars(trainer)


def test_each_training_with_one_callback_has_its_own_file(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    trainer = _trainer(tmp_path, callback, max_steps=3)
    trainer.train()
    trainer.train()
    _trainer(tmp_path, callback, max_steps=2).train()
    found = {r.path.name: r.steps for r in open_runs(tmp_path)}
    assert set(found) == {"run.tw", "run-2.tw", "run-3.tw"}
    assert open_run(tmp_path / "run-3.tw")["loss"].steps.tolist() == [0, 1]


def test_losses_of_a_trainer_with_its_own_loss_and_labels_are_the_trainers(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    trainer = _trainer(tmp_path, callback, label_smoothing_factor=0.2, max_grad_norm=0.0, logging_steps=1)
    trainer.train()
    run = open_run(tmp_path / "run.tw")
    logged = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    np.testing.assert_allclose(run["loss"].values, logged, rtol=1e-6)
    assert "grad/norm_raw" not in run


@pytest.mark.slow
def test_a_compiled_model_is_watched_from_outside(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", cadence=1)
    settings: dict[str, Any] = {"torch_compile": True, "torch_compile_backend": "eager", "max_steps": 4}
    trainer = _trainer(tmp_path, callback, **settings)
    trainer.train()
    plain = _trainer(tmp_path / "plain", **settings)
    plain.train()
    assert _same(trainer, plain)
    run = open_run(tmp_path / "run.tw")
    assert run["samples"].values[-1] == 32
    assert not run.events("no forward seen")
    assert "grad/norm/transformer.h.0.attn.c_attn.weight" in run


def test_bfloat16_autocast_is_recorded(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    _trainer(tmp_path, callback, bf16=True, max_steps=3).train()
    assert open_run(tmp_path / "run.tw")["loss"].steps.tolist() == [0, 1, 2]


def test_several_evaluation_sets_have_names_of_their_own(tmp_path: Path) -> None:
    callback = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    sets = {"wiki": Tokens(4), "wiki_old": Tokens(8)}
    _trainer(tmp_path, callback, max_steps=2, eval_strategy="steps", eval_steps=2, eval_dataset=sets).train()
    run = open_run(tmp_path / "run.tw")
    assert {s.name for s in run.all_by_role("evaluation loss")} == {"eval/wiki/loss", "eval/wiki_old/loss"}
    assert run["eval/wiki/loss"].steps.tolist() == [2]


def test_a_failure_of_the_watch_does_not_reach_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("thalweg.integrations.fits")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OSError("disk gone")

    monkeypatch.setattr(module, "watch", broken)
    trainer = _trainer(tmp_path, ThalwegCallback(out=tmp_path / "run.tw"), max_steps=2)
    with pytest.warns(ThalwegWarning, match="disk gone"):
        trainer.train()
    assert trainer.state.global_step == 2


def test_an_existing_file_is_left_alone_and_the_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run.tw").write_bytes(b"somebody's")
    with pytest.warns(ThalwegWarning, match=r"run-2\.tw"):
        _trainer(tmp_path, ThalwegCallback(out=tmp_path / "run.tw", probes="none"), max_steps=1).train()
    assert (tmp_path / "run.tw").read_bytes() == b"somebody's"
    assert open_run(tmp_path / "run-2.tw")["loss"].steps.tolist() == [0]


def test_bad_keywords_are_refused_when_the_callback_is_made() -> None:
    with pytest.raises(TypeError, match="did you mean 'budget'"):
        ThalwegCallback(bugdet=0.1)
    with pytest.raises(UsageError, match="budget"):
        ThalwegCallback(budget=3.0)
    with pytest.raises(UsageError, match="probes"):
        ThalwegCallback(probes="no such thing")


def test_enabled_false_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = _trainer(tmp_path, ThalwegCallback(enabled=False), max_steps=2)
    trainer.train()
    assert not list(tmp_path.rglob("*.tw"))


def test_copies_of_a_callback_and_of_an_overheard_trainer_watch_nothing(tmp_path: Path) -> None:
    kept: list[Any] = []

    class Copies(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        def __init__(self, own: ThalwegCallback) -> None:
            self.own = own

        def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            kept.append((copy.deepcopy(self.own), pickle.loads(pickle.dumps(self.own))))

    own = ThalwegCallback(out=tmp_path / "run.tw", probes="none")
    _trainer(tmp_path, own, Copies(own), max_steps=1).train()
    assert all(c.watch is None for c in kept[0])


def test_names_of_the_trainer_become_signals() -> None:
    training, evaluation = split_names(
        {"loss": 1, "eval_accuracy": 2, "test_loss": 3, "epoch": 4, "reward": 5}
    )
    assert training == {"trainer/loss": 1, "reward": 5}
    assert evaluation == {"eval/accuracy": 2, "test/loss": 3}


@pytest.mark.parametrize("library", ["transformers", "lightning", "accelerate"])
def test_an_absent_library_names_its_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"thalweg.integrations.{library}", raising=False)
    monkeypatch.delitem(sys.modules, "pytorch_lightning", raising=False)
    for loaded in [n for n in sys.modules if n.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"thalweg\[{library}\]"):
        importlib.import_module(f"thalweg.integrations.{library}")
