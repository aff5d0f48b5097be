"""Roles guessed from names; names of files."""

from pathlib import Path

import pytest

from thalweg.record import guess_role, next_segment_path, rank_path, segment_path
from thalweg.record.naming import FileName, family, join_name, split_name

ROLES = {
    "loss": "train loss",
    "train/loss": "train loss",
    "train_loss": "train loss",
    "train_loss_step": "train loss",
    "G:loss": "train loss",
    "training.loss": "train loss",
    "val/loss": "evaluation loss",
    "eval_loss": "evaluation loss",
    "validation_loss_epoch": "evaluation loss",
    "eval/pile/loss": "evaluation loss",
    "test/nll": "evaluation loss",
    "aux_loss": "",
    "kl_loss": "",
    "lr": "rate",
    "lr-AdamW": "rate",
    "train/learning_rate": "rate",
    "lr/group0": "rate",
    "grad_norm": "gradient norm",
    "grad/norm": "gradient norm",
    "grad/norm_raw": "gradient norm",
    "grad/norm/blocks.0.mlp.weight": "gradient norm",
    "train/grad_norm": "gradient norm",
    "update/ratio": "update ratio",
    "eval/accuracy": "evaluation metric",
    "acc": "train metric",
    "val_acc": "evaluation metric",
    "train/epoch": "epoch",
    "num_input_tokens_seen": "tokens",
    "tokens": "tokens",
    "batch_size": "batch size",
    "noise/scale": "noise scale",
    "weather": "",
    "glossary": "",
    "": "",
}


@pytest.mark.parametrize("name", ROLES)
def test_the_role_that_a_name_suggests(name):
    assert guess_role(name) == ROLES[name]


@pytest.mark.parametrize("parts", [("a", 0, 0), ("a~b", 1, 0), ("run 1.5", 0, 3), ("ä*[x]", 4, 12)])
def test_names_of_files_are_taken_apart_and_put_together(parts):
    name = FileName(*parts)
    assert split_name(join_name(Path("x"), name)) == name


def test_the_next_segment_and_ranks(tmp_path):
    path = tmp_path / "first.tw"
    for other in ("first.tw", "first~2.tw", "first~2~r1.tw", "first2.tw", "first~x.tw", "first.tw.bak"):
        (tmp_path / other).touch()
    assert next_segment_path(path) == tmp_path / "first~3.tw"
    assert rank_path(path, 0) == path
    assert segment_path(path, 1, 3) == tmp_path / "first~2~r3.tw"
    assert segment_path(tmp_path / "first~2~r1.tw", 0) == path
    assert rank_path(tmp_path / "first~2.tw", 5) == tmp_path / "first~2~r5.tw"
    assert [p.name for p in family(path)] == ["first.tw", "first~2.tw", "first~2~r1.tw"]
