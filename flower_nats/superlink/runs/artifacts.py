"""What a run has left, as one file: for `flwr pull`.

An app that runs unchanged can leave something with the server in one place: the state of its context.
Its process sends that when the app has ended. What is there becomes files that people can open.
"""

import base64
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError

from flower_nats.model.run import Run
from flower_nats.superlink.convert import iso
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import records_pb2 as records

_NUMPY = "numpy.ndarray"
"""What arrays are written as that are files of NumPy (flwr 1.30 `common/constant.py` SType)."""

_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of each member: there is none that is right, and the same context gives the same file."""


def pack_artifacts(run: Run, context: bytes) -> bytes:
    """Return a zip archive of what a run has left.

    `run.json` says which run it was, `context.pb` is the context as its app has left it. Each record of
    its state is a file of its own: arrays as `.npz`, metrics and configurations as `.json`.
    """
    files = {"run.json": _json(_about(run)), "context.pb": context}
    # Without a state that can be read there is the context as it came.
    try:
        state = records.RecordDict.FromString(common.Context.FromString(context).state)
    except DecodeError:
        return _archive(files)
    return _archive({**files, **dict(map(_record, state.items))})


def _about(run: Run) -> Mapping[str, Any]:
    return {
        "run_id": str(run.run_id),
        "series_id": str(run.series_id),
        "federation": run.federation,
        "account": run.account_name,
        "app": run.fab_id,
        "version": run.fab_version,
        "fab_hash": run.fab_hash,
        "status": run.sub_status,
        "details": run.details,
        "started_at": iso(run.running_at),
        "finished_at": iso(run.finished_at),
    }


def _record(item: records.RecordDict.Item) -> tuple[str, bytes]:
    # A key may be any text, and must not lead out of the folder that somebody unpacks into.
    name = f"state/{quote(item.key, safe=' ()+,=@').replace('..', '%2E%2E')[:_LONGEST_NAME]}"
    match item.WhichOneof("value"):
        case "array_record":
            return f"{name}.npz", _arrays(item.array_record)
        case "metric_record":
            return f"{name}.json", _json(dict(_values(item.metric_record)))
        case "config_record":
            return f"{name}.json", _json(dict(_values(item.config_record)))
    return f"{name}.empty", b""


_LONGEST_NAME = 200
"""Characters of a file's name: file systems take 255."""


def _arrays(record: records.ArrayRecord) -> bytes:
    """Return what `numpy.load` reads: an archive of arrays, each as NumPy writes it."""
    return _archive(
        {
            f"{item.key}.npy" if item.value.stype == _NUMPY else item.key: item.value.data
            for item in record.items
        }
    )


def _values(record: records.MetricRecord | records.ConfigRecord) -> Iterator[tuple[str, Any]]:
    for item in record.items:
        kind = item.value.WhichOneof("value")
        value: Any = None if kind is None else getattr(item.value, kind)
        yield item.key, _plain(list(value.vals) if hasattr(value, "vals") else value)


def _plain(value: Any) -> Any:
    """Return a value as JSON can say it: bytes as text in base64."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _archive(files: Mapping[str, bytes]) -> bytes:
    # Not compressed: numbers of a model hardly get smaller.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), content)
    return buffer.getvalue()
