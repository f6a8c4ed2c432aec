"""Members of zip archives, unpacked in little memory, whatever the archive claims."""

import bz2
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator

_PIECE = 64 * 1024
_METHODS_OF_ZIPFILE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER_BYTES = 30
_LENGTHS_AT = 26
"""Where in the header before a member's data the lengths of its name and of its extra field are."""

_LZMA_LENGTH = slice(2, 4)
"""Where in LZMA data the length of its properties is (APPNOTE.TXT, 5.8.8)."""

_LZMA_PROPERTIES = slice(4, 9)


def unpack(content: bytes, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what a member of the archive in `content` holds, in pieces of at most 64 KiB.

    In all it is no more than the archive says (`file_size`). Of damaged archives zipfile and its
    decompressors raise nearly anything.
    """
    with archive.open(member) as file:
        if member.compress_type in _METHODS_OF_ZIPFILE:
            while piece := file.read(_PIECE):
                yield piece
            return
    # zipfile would unpack at least 4 KiB of the archive at once: gigabytes, in bzip2.
    yield from _unpack_bounded(_packed(content, member), member)


def _packed(content: bytes, member: zipfile.ZipInfo) -> bytes:
    name, extra = struct.unpack_from("<HH", content, member.header_offset + _LENGTHS_AT)
    start = member.header_offset + _HEADER_BYTES + name + extra
    return content[start : start + member.compress_size]


def _unpack_bounded(packed: bytes, member: zipfile.ZipInfo) -> Iterator[bytes]:
    decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()
    if member.compress_type == zipfile.ZIP_LZMA:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
        packed = _with_header_of_its_own(packed)
    left, checksum = member.file_size, 0
    while not decompressor.eof:
        # Once more after the last piece: the end of the data is checked too.
        piece = decompressor.decompress(packed, _PIECE)[:left]
        if not piece:
            break
        packed = b""
        left -= len(piece)
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if checksum != member.CRC:
        raise zipfile.BadZipFile("Bad CRC-32")


def _with_header_of_its_own(packed: bytes) -> bytes:
    """Turn LZMA data of an archive into an .lzma file, which begins with properties and a length."""
    if packed[_LZMA_LENGTH] != b"\x05\x00":
        raise lzma.LZMAError("Invalid or unsupported options")
    unknown = b"\xff" * 8
    return packed[_LZMA_PROPERTIES] + unknown + packed[_LZMA_PROPERTIES.stop :]
