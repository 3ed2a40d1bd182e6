"""The GPU benchmark: runs at a tiny size, keeps what it has when a part fails, counts the operations of a step."""

import pytest
import torch
from benchmarks import bench_gpu, common
from tests.conftest import build_tiny
from torch.utils.flop_counter import FlopCounterMode


def test_a_part_runs_at_a_tiny_size_and_its_table_is_written(tmp_path):
    output = tmp_path / "gpu.md"
    bench_gpu.main(["--smoke", "--parts", "attention", "--output", str(output)])
    text = output.read_text()
    assert "| tokens | pass | causal ms | auto ms | auto / causal |" in text
    assert "| 64 | backward |" in text


def test_a_part_that_fails_or_takes_too_long_is_said(tmp_path, monkeypatch):
    broken = {"attention": ["-c", "print('so far'); 1 / 0"], "training": ["-c", "import time; time.sleep(60)"]}
    monkeypatch.setattr(bench_gpu, "SMOKE", broken)
    monkeypatch.setattr(bench_gpu.PARTS["training"], "seconds", 1)
    with pytest.raises(SystemExit, match="attention, training"):
        bench_gpu.main(["--smoke", "--parts", "attention", "training", "--output", str(tmp_path / "gpu.md")])
    text = (tmp_path / "gpu.md").read_text()
    assert "ended with code 1" in text and "so far" in text and "ZeroDivisionError" in text
    assert "stopped after its limit of 1 seconds" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so():
    with pytest.raises(SystemExit, match="no CUDA device"):
        bench_gpu.main([])


def test_operations_of_a_step_are_those_that_torch_counts():
    model = build_tiny()
    ids = torch.zeros(1, 8, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert common.count_step_flops(model.config, [8]) == pytest.approx(counter.get_total_flops(), rel=0.05)
