"""Texts of source files from the Software Heritage archive: a public S3 bucket, one gzip object a file."""

import gzip
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ..utils.errors import UserError
from .readers import Record


BUCKET = "softwareheritage"
PREFIX = "content/"
CONNECTIONS = 32
ATTEMPTS = 6
# Records fetched together, which bounds what waits in memory.
BATCH = 512


def connect() -> BaseClient:
    """Make an anonymous client. `AWS_ENDPOINT_URL_S3` names another server, such as a mirror."""
    config = Config(
        signature_version=UNSIGNED,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "adaptive", "max_attempts": ATTEMPTS},
    )
    return boto3.client("s3", region_name="us-east-1", config=config)


def fetch_text(client: BaseClient, blob_id: str) -> tuple[str | None, str]:
    """Fetch the text of a file, or say why there is none.

    Raises:
        UserError: the archive can't be reached.
    """
    try:
        packed = client.get_object(Bucket=BUCKET, Key=PREFIX + blob_id)["Body"].read()
        return gzip.decompress(packed).decode("utf-8", errors="ignore"), ""
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("NoSuchKey", "404", "AccessDenied"):
            return None, f"the archive has no file {blob_id}"
        raise UserError(
            f"the Software Heritage archive answers {code} for {blob_id}; run the same command again later"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return None, f"file {blob_id} is damaged in the archive ({error})"
    except BotoCoreError as error:
        raise UserError(
            f"the Software Heritage archive can't be reached: {error}\nRun the same command again: it goes on where it stopped"
        ) from error


def fetch_texts(records: Iterator[Record]) -> Iterator[Record]:
    """Give records with a `blob_id` their `text`, in the same order, by many connections at once."""
    client = connect()

    def fill(record: Record) -> Record:
        if record.row is None:
            return record
        blob_id: Any = record.row.get("blob_id")
        if not isinstance(blob_id, str) or not blob_id:
            return record._replace(row=None, problem="no blob_id")
        text, problem = fetch_text(client, blob_id)
        return record._replace(row=None if problem else {**record.row, "text": text}, problem=problem)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        while batch := list(islice(records, BATCH)):
            yield from pool.map(fill, batch)
