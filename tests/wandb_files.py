"""Reads W&B's offline files: protocol buffers in LevelDB's log format."""

import json
import pathlib

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7


def newest_history(workdir: pathlib.Path) -> list[dict]:
    """Returns the logged rows in the newest offline run of a work directory."""
    file = max(pathlib.Path(workdir).glob("wandb/offline-run-*/run-*.wandb"))
    rows = []
    for data in _records(file.read_bytes()[HEADER:]):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def _records(log: bytes) -> list[bytes]:
    """Returns a log's records; the last one is left out if it was cut short."""
    records, parts, offset = [], b"", HEADER  # the file's own header counts in its first block
    position = 0
    while position + HEADER <= len(log):
        if BLOCK - offset % BLOCK < HEADER:  # a block's end is padded
            padding = BLOCK - offset % BLOCK
            offset, position = offset + padding, position + padding
            continue
        length = int.from_bytes(log[position + 4 : position + 6], "little")
        kind = log[position + 6]  # 1 whole, 2 first, 3 middle, 4 last part
        parts += log[position + HEADER : position + HEADER + length]
        if kind in (1, 4):
            records.append(parts)
            parts = b""
        offset, position = offset + HEADER + length, position + HEADER + length
    return records
