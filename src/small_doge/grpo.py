"""The guides' older place of `trainer/doge/grpo.py`."""

from small_doge.trainer.doge.grpo import main


if __name__ == "__main__":
    main()
