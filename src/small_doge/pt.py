"""The guides' older place of `trainer/doge/pt.py`."""

from small_doge.trainer.doge.pt import main


if __name__ == "__main__":
    main()
