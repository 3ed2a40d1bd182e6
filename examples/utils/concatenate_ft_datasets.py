"""Join the processed fine-tuning data sets of `--datasets_dir` into `--save_dir/sft`, `dpo`, `distill` and `grpo`."""

from small_doge.compat.data_scripts import concatenate_datasets_of


if __name__ == "__main__":
    concatenate_datasets_of("ft")
