"""Fetch the pre-training data sets of the published guides into `--save_dir`, with the hub's layout. `--only` and `--files` take a part."""

from small_doge.compat.data_scripts import download_datasets


if __name__ == "__main__":
    download_datasets("pt")
