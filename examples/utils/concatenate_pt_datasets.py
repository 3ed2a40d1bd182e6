"""Join the processed pre-training data sets of `--datasets_dir` into `--save_dir/pretrain`, with a test split."""

from small_doge.compat.data_scripts import concatenate_datasets_of


if __name__ == "__main__":
    concatenate_datasets_of("pt")
