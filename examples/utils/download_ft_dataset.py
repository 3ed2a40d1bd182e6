"""The name that one of the published guides has for `download_ft_datasets.py`."""

from small_doge.compat.data_scripts import download_datasets


if __name__ == "__main__":
    download_datasets("ft")
