"""The guides' older place of `trainer/doge/sft.py`."""

from small_doge.trainer.doge.sft import main


if __name__ == "__main__":
    main()
