"""Runs a stage's script, `pretrain` or `sft`, and prints what the model is wrapped in when training begins."""

import sys

from transformers import TrainerCallback

from small_doge.trainer import base
from small_doge.trainer.doge.script import run_script


class Reporter(TrainerCallback):
    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0 and state.is_world_process_zero:
            trainer = Reporter.trainer
            print("WRAPPED IN", type(trainer.model_wrapped).__name__, flush=True)
            print("WORLD SIZE", args.world_size, flush=True)
            if any(getattr(p, "ds_id", None) is not None for p in trainer.model.parameters()):
                print("PARTITIONED", flush=True)


original = base.DogeTrainer.__init__


def patched(self, *args, **kwargs):
    original(self, *args, **kwargs)
    Reporter.trainer = self
    self.add_callback(Reporter())


base.DogeTrainer.__init__ = patched
stage, *words = sys.argv[1:]
run_script(stage, words)
