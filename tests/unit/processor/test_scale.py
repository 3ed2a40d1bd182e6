import os
import stat
import sys

import pytest

from small_doge.processor import mix_reader, readers
from small_doge.processor.data_config import DataConfig
from small_doge.processor.prepare import prepare
from small_doge.processor.scale import Cluster, prepare_at_scale
from small_doge.processor.stream import MixedStream
from small_doge.utils.errors import UserError


pytest.importorskip("datatrove")

MIX = [{"embedded:world:120": 0.7}, {"embedded:arithmetic:60": 0.3}]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(mix_reader, "RANGE_BYTES", 8000)
    monkeypatch.setattr(readers, "RANGE_ROWS", 20)


def mix_of(**settings):
    return DataConfig(MIX, max_length=64, test_size=5, total_sample_size=90, **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_give_the_rows_of_one_machine_and_of_the_stream(tiny_tokenizer, tmp_path, workers, capfd):
    alone = prepare(mix_of(cache_dir=tmp_path / "alone"), tiny_tokenizer)
    tasks = prepare_at_scale(mix_of(cache_dir=tmp_path / "tasks"), tiny_tokenizer, Cluster(workers=workers))
    assert tasks["train"].to_dict() == alone["train"].to_dict() and tasks["test"].to_dict() == alone["test"].to_dict()
    streamed = [row["input_ids"].tolist() for row in MixedStream(mix_reader.MixReader(mix_of(), tiny_tokenizer))]
    assert streamed == alone["train"]["input_ids"]
    assert "| INFO" not in capfd.readouterr().err  # the library's own log is in a file


@pytest.mark.slow
def test_slurm_gets_a_script_whose_tasks_do_the_work(tiny_tokenizer, tmp_path, monkeypatch):
    """With stand-ins for sbatch and srun, which run each task of the array here."""
    commands = tmp_path / "bin"
    commands.mkdir()
    stand_ins = {
        "sbatch": f"""#!{sys.executable}
import os, re, subprocess, sys
script = sys.argv[-1]
text = open(script).read()
open({str(tmp_path / "script")!r}, "a").write(text)
array = re.search(r"--array=0-(\\d+)", text)
for task in range(int(array[1]) + 1 if array else 1):
    env = {{**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": "1", "SLURM_NODELIST": "localhost", "RUN_OFFSET": "0",
           "SLURM_NODEID": "0", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"}}
    subprocess.run(["bash", script], env=env, check=True, stdout=sys.stderr)
print("Submitted batch job 1")
""",
        "srun": '#!/bin/bash\nwhile [[ "$1" == -* || "$1" =~ ^[0-9]+$ ]]; do shift; done\nexec "$@"\n',
        "scontrol": "#!/bin/bash\necho localhost\n",
    }
    for name, text in stand_ins.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    cluster = Cluster("slurm", partition="cpu", time="01:00:00")
    rows = prepare_at_scale(mix_of(cache_dir=tmp_path / "slurm"), tiny_tokenizer, cluster)
    script = (tmp_path / "script").read_text()
    assert "--partition=cpu" in script and "--time=01:00:00" in script
    rows = rows or prepare_at_scale(mix_of(cache_dir=tmp_path / "slurm"), tiny_tokenizer, cluster)
    assert rows["train"].to_dict() == prepare(mix_of(cache_dir=tmp_path / "alone"), tiny_tokenizer)["train"].to_dict()


def test_bad_clusters_are_named():
    with pytest.raises(ValueError, match="unknown executor 'slrm'; did you mean 'slurm'"):
        Cluster("slrm")
    with pytest.raises(ValueError, match="executor=slurm needs the name of a partition"):
        Cluster("slurm")
    with pytest.raises(ValueError, match="workers=0 must be positive"):
        Cluster(workers=0)


def test_without_datatrove_the_install_is_named(monkeypatch, tiny_tokenizer, tmp_path):
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    with pytest.raises(UserError, match=r"pip install 'small-doge\[scale\]'"):
        prepare_at_scale(mix_of(cache_dir=tmp_path), tiny_tokenizer, Cluster())


def test_without_ray_the_install_is_named(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("small_doge.processor.scale.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install ray"):
        prepare_at_scale(mix_of(cache_dir=tmp_path), tiny_tokenizer, Cluster("ray"))
