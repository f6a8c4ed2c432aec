"""The two messages that carry objects, read and written without copying the objects.

An object has up to 20 MB (flwr 1.33 `common/constant.py`). Protobuf would copy it twice when
reading and twice when writing.
"""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from flower_nats.wire import common_pb2 as common

_CONTENT = common.PushObjectRequest.DESCRIPTOR.fields_by_name["object_content"].number

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10


def read_push_object(body: bytes) -> tuple[common.PushObjectRequest, memoryview]:
    """Return a PushObjectRequest without its object's content, and the content, not copied.

    Raises `DecodeError`.
    """
    view, rest, content, at = memoryview(body), bytearray(), memoryview(b""), 0
    while at < len(view):
        begin = at
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        start = at
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind == _LENGTH:
            size, start = _varint(view, at)
            at = start + size
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise DecodeError(f"a field of the unknown kind {kind}")
        if at > len(view):
            raise DecodeError("a field is longer than the message")
        if number == _CONTENT and kind == _LENGTH:
            content = view[start:at]
        else:
            rest += view[begin:at]
    return common.PushObjectRequest.FromString(bytes(rest)), content


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(view):
            break
        byte = view[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise DecodeError("a number has no end")


def write_pull_object_response(pieces: Sequence[bytes | memoryview]) -> bytes:
    """Return the PullObjectResponse with the object's content from these pieces."""
    return b"".join((pull_object_response_head(sum(map(len, pieces))), *pieces))


def pull_object_response_head(size: int) -> bytes:
    """Return the part of a PullObjectResponse before a content of `size` bytes."""
    head = common.PullObjectResponse(object_found=True, object_available=True)
    return head.SerializeToString() + _length_prefix(size)


_PULLED_CONTENT = common.PullObjectResponse.DESCRIPTOR.fields_by_name["object_content"].number


def _length_prefix(size: int) -> bytes:
    prefix = bytearray([_PULLED_CONTENT << 3 | _LENGTH])
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix)
