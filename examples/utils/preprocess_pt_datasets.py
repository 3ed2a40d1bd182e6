"""Tokenise each pre-training data set of `--datasets_dir` into `--save_dir/NAME_processed`."""

from small_doge.compat.data_scripts import preprocess_datasets


if __name__ == "__main__":
    preprocess_datasets("pt")
