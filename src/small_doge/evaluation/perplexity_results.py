"""Perplexity of files as a whole: they are read and scored, and the figures are written with tables and a picture."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..inference import Engine
from ..utils.errors import UserError
from ..utils.files import write_json, write_text
from ..utils.hardware import describe_device
from .perplexity import Reading, discard_kept, measure_perplexity, name_kept
from .perplexity_tables import plot_positions, write_markdown
from .provenance import find_commit, hash_model
from .scored_documents import Document, DocumentReader, take_tokens


def read_documents(reader: DocumentReader, files: Sequence[str], max_tokens: int | None = None) -> list[Document]:
    """Read the documents of files, up to a number of scored tokens.

    Raises:
        UserError: a file can't be read, or there is nothing to score.
    """
    documents = list(take_tokens((document for name in files for document in reader.read(name)), max_tokens))
    if not documents:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in reader.failed.items()) or "they are empty"
        raise UserError(f"{', '.join(files)}: nothing to score ({reasons})")
    return documents


def measure_documents(
    engine: Engine, model: str, documents: Sequence[Document], reading: Reading, facts: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Score documents by every attention of a reading, with a progress bar, and write the figures.

    A run that was stopped goes on after the last attention that it had measured whole.

    Args:
        engine: of the model; nobody else uses it meanwhile.
        model: folder or hub name.
        documents: at least one.
        reading: from `plan_reading`.
        facts: where the documents come from, for the figures.
        folder: for `perplexity.json`, `.md` and `.png`.

    Returns:
        The content of `perplexity.json`.
    """
    digest, start = hash_model(model), time.perf_counter()
    kept = name_kept(folder, digest, documents, reading)
    total = sum(int(document.scored.sum()) for document in documents) * len(reading.attentions)
    with tqdm(total=total, unit=" tokens", unit_scale=True, desc="scoring", dynamic_ncols=True, mininterval=1) as bar:
        found = measure_perplexity(engine, documents, reading, bar.update, kept)
    result = {
        "model": model,
        "model_hash": digest,
        **facts,
        "context": reading.context,
        "stride": reading.stride,
        "joined": reading.joined,
        "vocab_size": engine.backend.vocab_size,
        "trained_length": engine.trained_length,
        "keep_window_size": engine.backend.keep_window_size,
        **found,
        "commit": find_commit(),
        "machine": describe_device(),
        "seconds": time.perf_counter() - start,
    }
    write_json(folder / "perplexity.json", result)
    discard_kept(kept)
    plot_positions(result, folder / "perplexity.png")
    write_text(folder / "perplexity.md", write_markdown(result, "perplexity.png"))
    return result
