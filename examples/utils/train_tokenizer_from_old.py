"""Train a tokenizer with an old one's algorithm, special tokens and template on the pre-training data sets."""

from small_doge.compat.data_scripts import train_tokenizer_from_old


if __name__ == "__main__":
    train_tokenizer_from_old()
