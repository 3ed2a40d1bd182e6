"""Losses of TRL's own trainers, called directly on the same data."""

import pytest
import torch
from tests.conftest import build_tiny
from transformers import TrainingArguments

from small_doge.processor.ft_datasets_process import mix_datasets_by_ratio
from small_doge.processor.packing import PackedCollator
from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.base import DogeTrainer


trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")

COMMON = {
    "per_device_train_batch_size": 4,
    "max_steps": 5,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "seed": 7,
    "disable_tqdm": True,
}


def losses(trainer):
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("packing", [False, True])
def test_fine_tuning_has_the_losses_of_trls_trainer(tiny_tokenizer, tmp_path, packing):
    rows = mix_datasets_by_ratio(
        [{"embedded:chat:200": 1.0}],
        processing_class=tiny_tokenizer,
        max_length=64,
        packing=packing,
        total_sample_size=24,
        cache_dir=str(tmp_path / "data"),
    )["train"]
    torch.manual_seed(0)
    ours = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0)
    theirs = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0)
    theirs.load_state_dict(ours.state_dict())
    theirs.config.name_or_path = "tiny"
    theirs.config.router_aux_loss_coef = 0.0
    trainer = DogeTrainer(
        model=ours,
        args=StageArguments(output_dir=str(tmp_path / "ours"), warmup_steps=0, **COMMON),
        train_dataset=rows,
        data_collator=PackedCollator(),
        processing_class=tiny_tokenizer,
        settings={},
    )
    config = trl.SFTConfig(
        output_dir=str(tmp_path / "theirs"),
        max_length=None,
        padding_free=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{**COMMON, "bf16": False, "weight_decay": 0.0, "gradient_checkpointing": False, "shuffle_dataset": False},
    )
    columns = ["input_ids", "labels", "seq_lengths"]
    peer = trl.SFTTrainer(
        model=theirs, args=config, train_dataset=rows.select_columns(columns), processing_class=tiny_tokenizer
    )
    assert isinstance(peer.args, TrainingArguments)
    assert losses(trainer) == pytest.approx(losses(peer), rel=2e-4)
