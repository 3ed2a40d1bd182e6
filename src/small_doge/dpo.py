"""The path of `trainer/doge/dpo.py` in the published SmallDoge guides."""

from small_doge.trainer.doge.script import run_script


if __name__ == "__main__":
    run_script("dpo")
