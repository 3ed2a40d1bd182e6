"""The guides' older place of `trainer/doge/dpo.py`."""

from small_doge.trainer.doge.dpo import main


if __name__ == "__main__":
    main()
