"""Fetching data sets into a mirror with the hub's layout, which is then used in its place."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, hf_hub_download
from tqdm.auto import tqdm

from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.logging import get_logger
from .catalog import CATALOG
from .readers import CONNECTION_ERRORS, Record, split_file
from .report import FAILED, Report, keep_failures
from .software_heritage import fetch_texts
from .sources import find_hub_files, parse_hub_name


logger = get_logger(__name__)

# Rows of python-edu that are fetched between two saves.
SHARD_ROWS = 10_000
# A text of the archive is about 2 kB.
TEXT_BYTES = 2_000


def download(name: str, root: Path, max_files: int | None = None, num_proc: int = 4) -> Path:
    """Fetch a data set, or the first files of it, into `root/owner/name`; what is there already is kept.

    Args:
        name: of the catalogue, or `owner/name[:subset]`.
        root: the mirror; name it in SMALL_DOGE_DATA_ROOT to use it.
        max_files: files to fetch; all if None.
        num_proc: files fetched at once.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown name.
        UserError: too little disk, or a lost connection; the same call goes on.
    """
    entry = CATALOG.get(name)
    hub_name, subset = (entry.hub_name, entry.subset) if entry else parse_hub_name(name)
    folder = root / hub_name
    files = _list_remote(hub_name, subset, entry.split if entry else "train", max_files)
    missing = {path: size for path, size in files.items() if not (folder / path).is_file()}
    _check_disk(root, sum(missing.values()), name)
    _fetch(hub_name, folder, missing, name, num_proc)
    if entry is not None and entry.fields == ("blob_id",):
        fetch_python_edu(folder, [folder / path for path in files if path.endswith(".parquet")])
    return folder


def _list_remote(hub_name: str, subset: str | None, split: str, max_files: int | None) -> dict[str, int]:
    """List paths in the repository and their bytes: the card, which tells subsets and splits apart, and the data files."""
    try:
        addresses = find_hub_files(hub_name, subset, split, mirror=False)
        info = HfApi().dataset_info(hub_name, files_metadata=True)
    except CONNECTION_ERRORS as error:
        raise UserError(f"{hub_name} can't be listed: {error}. Check the name and the connection") from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings}
    wanted = [address.split("/", 5)[-1] for address in addresses]  # hf://datasets/owner/name@revision/path
    card = {"README.md": sizes["README.md"]} if "README.md" in sizes else {}
    return card | {path: sizes.get(path, 0) for path in wanted[:max_files]}


def _check_disk(root: Path, needed: int, name: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{name} needs {needed / 1e9:.1f} GB, and {root} has {free / 1e9:.1f} GB free (all pre-training sets need "
            "about 2 TB with what is made of them). Fetch a part with --files, or choose another --output"
        )


def _fetch(hub_name: str, folder: Path, files: dict[str, int], name: str, num_proc: int) -> None:
    def fetch(path: str) -> int:
        hf_hub_download(hub_name, path, repo_type="dataset", local_dir=folder)
        return files[path]

    with (
        tqdm(total=sum(files.values()), desc=name, unit="B", unit_scale=True, disable=None, dynamic_ncols=True) as bar,
        ThreadPoolExecutor(max(1, num_proc)) as pool,
    ):
        try:
            for size in pool.map(fetch, files):
                bar.update(size)
        except CONNECTION_ERRORS as error:
            pool.shutdown(cancel_futures=True)
            if getattr(error, "errno", None) == 28:
                raise UserError(
                    f"the disk of {folder} is full; free some space and run the same command again"
                ) from error
            raise UserError(
                f"the connection was lost while {name} was fetched ({type(error).__name__}: {error}). Run the same command "
                "again: it goes on where it stopped"
            ) from error


def fetch_python_edu(folder: Path, indexes: list[Path]) -> Path:
    """Fetch the texts that the index files number, in shards; those that are there are not fetched again.

    Returns:
        The folder of the texts, which `python-edu` is read from once all are there.
    """
    texts = folder / "python-edu-texts"
    texts.mkdir(parents=True, exist_ok=True)
    records = chain.from_iterable(file_range.read() for path in indexes for file_range in split_file(str(path)))
    rows = sum(pq.read_metadata(path).num_rows for path in indexes)
    _check_disk(texts, rows * TEXT_BYTES, "the texts of python-edu")
    report = Report()
    with tqdm(total=rows, desc="texts of python-edu", unit="file", disable=None, dynamic_ncols=True) as bar:
        for number in range(-(-rows // SHARD_ROWS)):
            shard = list(islice(records, SHARD_ROWS))
            path = texts / f"train-{number:05d}.parquet"
            summary = path.with_suffix(".json")
            if summary.is_file():
                report.add(Report(**json.loads(summary.read_text(encoding="utf-8"))))
            else:
                report.add(_fetch_shard(path, summary, shard))
            bar.update(len(shard))
            bar.set_postfix_str(f"{len(report.failed)} failed")
    keep_failures(texts / FAILED, [report])
    write_json(texts / "finished.json", {"rows": report.rows, "failed": len(report.failed)})
    if report.failed:
        logger.warning(
            "python-edu: %d of %d texts could not be fetched; see %s", len(report.failed), report.rows, texts / FAILED
        )
    return texts


def _fetch_shard(path: Path, summary: Path, shard: list[Record]) -> Report:
    report = Report(rows=len(shard))
    found = []
    for record in fetch_texts(iter(shard)):
        if record.row is None:
            report.failed.append({"source": "python-edu", "where": record.where, "reason": record.problem})
        else:
            found.append({"text": record.row["text"], "blob_id": record.row["blob_id"]})
    report.documents = len(found)
    temporary = path.with_name(f".{path.name}")
    pq.write_table(pa.Table.from_pylist(found, pa.schema({"text": pa.string(), "blob_id": pa.string()})), temporary)
    temporary.replace(path)
    write_json(summary, asdict(report))
    return report


def iterate_catalog() -> Iterator[tuple[str, ...]]:
    """Yield a line for each data set of the catalogue."""
    for name, entry in CATALOG.items():
        where = entry.hub_name + (f":{entry.subset}" if entry.subset else "")
        rows = f"{entry.rows / 1e6:.3g}M" if entry.rows >= 1e6 else f"{entry.rows / 1e3:.3g}k"
        yield (
            name,
            entry.stage,
            where,
            entry.split,
            ", ".join(entry.fields),
            entry.licence,
            rows,
            f"{entry.gigabytes:g}",
        )
