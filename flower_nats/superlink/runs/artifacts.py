"""The results of a run, as one file, for `flwr pull`.

An unchanged app can leave results with the server in one place: the state of its context. The app's
process sends the context when the app has ended. Its content becomes files that people can open.
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
"""The serialization type of arrays in NumPy's format (flwr 1.30 `common/constant.py` SType)."""

_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of each member: a fixed time, so that the same context gives the same file."""


def pack_artifacts(run: Run, context: bytes) -> bytes:
    """Return a zip archive of the results of a run.

    `run.json` describes the run, and `context.pb` is the context as the app left it. Each record of
    the state becomes a file: arrays as `.npz`, metrics and configurations as `.json`.
    """
    files = {"run.json": _json(_about(run)), "context.pb": context}
    # If the state cannot be read, the archive has only the context as it came.
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
    # A key may be any text, and must not lead out of the folder for unpacking.
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
"""Characters of a file's name. File systems allow 255."""


def _arrays(record: records.ArrayRecord) -> bytes:
    """Return an archive of arrays for `numpy.load`, each in NumPy's format."""
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
    """Return a value for JSON: bytes become base64 text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _archive(files: Mapping[str, bytes]) -> bytes:
    # Not compressed, because a model's numbers hardly get smaller.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), content)
    return buffer.getvalue()
