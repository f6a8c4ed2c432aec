"""A FAB is accepted if, and only if, stock Flower can install it."""

from __future__ import annotations

import struct
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_files
from flwr.cli.install import install_from_fab
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_nats.model.fab import InvalidFab, read_fab
from flower_nats.model.fab_archive import MAX_FILES, MAX_NAME, MAX_UNPACKED_BYTES
from harness.fabs import PROJECT, archive, list_of, make_fab, pack

LIST = ".info/CONTENT"
FILES = {"pyproject.toml": PROJECT.encode(), "app/server.py": b"app = None\n"}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SLOW_METHODS = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def installs(content: bytes) -> bool:
    """Return whether stock Flower can install the FAB."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            install_from_fab(content, Path(folder), skip_prompt=True)
        # Stock passes on all exceptions of zipfile and the file system.
        except Exception:
            return False
    return True


def reason(content: bytes) -> str:
    """Return the reason of a refusal."""
    with pytest.raises(InvalidFab) as refused:
        read_fab(content)
    return str(refused.value)


def listed(text: str | bytes, *more: tuple[str, bytes]) -> bytes:
    """Return a FAB with this list of files, and more members."""
    raw = text.encode() if isinstance(text, str) else text
    return archive([*FILES.items(), *more, (LIST, raw)])


HONEST = list_of(FILES)


@pytest.mark.parametrize(
    "content",
    [
        make_fab(),
        build_fab_from_files({"pyproject.toml": PROJECT.encode(), "app/server.py": b""})[0],
        pack({**FILES, "app/späße.py": b"x"}),
        listed(HONEST, ("not-listed.txt", b"x"), (".info/more", b"x"), ("folder/", b"")),
        listed(HONEST.splitlines()[0]),
        listed(f"\r\n{HONEST}\n\n".replace("\n", "\r\n")),
        listed(HONEST.replace(",88", ",not a size")),
        listed(HONEST.replace("app/", "./app//./../app/")),
    ],
)
def test_what_stock_installs_is_accepted(content: bytes) -> None:
    assert installs(content)
    assert read_fab(content).fab_id == "somebody/app"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(FILES.items()), f"holds no {LIST}"),
        (archive([*FILES.items(), (f"{LIST}/", b"")]), f"holds no {LIST}"),
        (archive([*FILES.items(), (".info", b"")]), f"holds no {LIST}"),
        (listed(""), 'The line ""'),
        (listed(HONEST.replace("\n", "\n\n")), 'The line ""'),
        (listed(HONEST.replace(",88", ",88,")), 'The line "app/server.py,'),
        (listed(b"\xff"), "not UTF-8"),
        (listed("\ufeff" + HONEST), 'lists "\ufeffpyproject.toml"'),
        (listed(HONEST.replace("server", "client")), 'lists "app/client.py"'),
        (listed(HONEST.replace("app/server.py", "app")), 'lists "app"'),
        (listed(HONEST.replace("app/", "nowhere/../app/")), 'lists "nowhere/../app/server.py"'),
        (listed(HONEST.replace("app/", "app/server.py/../")), 'lists "app/server.py/../server.py"'),
        (listed(HONEST.replace("app/", "../")), 'lists "../server.py"'),
        (listed(HONEST.upper().replace("PYPROJECT.TOML", "pyproject.toml")), '"pyproject.toml"'),
        (listed(list_of({**FILES, "app/server.py": b"other"})), '"app/server.py" in the app\'s'),
        (listed(HONEST, ("../out", b"")), '"../out" in the app\'s FAB lies outside'),
        (listed(HONEST, ("/etc/out", b"")), '"/etc/out" in the app\'s FAB lies outside'),
        (listed(HONEST, ("app", b"")), "where something else is a folder"),
        (listed(HONEST, ("app/server.py/x", b"")), "where something else is a folder"),
        (listed(HONEST, ("app/server.py/", b"")), "where something else is a folder"),
        (listed(HONEST, (".", b"")), "where something else is a folder"),
    ],
)
def test_what_stock_cannot_install_is_refused_with_the_remedy(content: bytes, said: str) -> None:
    assert not installs(content)
    assert said in reason(content)
    assert "flwr build" in reason(content)


@pytest.mark.parametrize("name", ["publisher", "name"])
def test_an_app_whose_folder_could_not_be_named_is_refused(name: str) -> None:
    project = PROJECT.replace(f'{name} = "', f'{name} = "a/')

    assert not installs(make_fab(project))
    assert f'"{name}"' in reason(make_fab(project))


PATHS = ("a", "a/", "a/b", "a//b", "./a", "a/../c", "a/b/c", "../a", "/a", "..", "a\\b", ".info/x")
HASHES = ("", "0" * 64, HONEST.split(",")[1])
MEMBERS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from((b"", b"x"))), max_size=3)
LINES = st.lists(
    st.one_of(
        st.sampled_from(PATHS).map(lambda path: list_of({path: b"x"})),
        st.tuples(st.sampled_from(PATHS), st.sampled_from(HASHES)).map(
            lambda two: f"{two[0]},{two[1]},"
        ),
        st.sampled_from(("", " ", ",", ",,", "a,b,c,d", "\x85")),
    ),
    max_size=2,
)


# Each example writes files, which takes time on a busy machine.
@settings(max_examples=300, deadline=None)
@given(MEMBERS, LINES, st.sampled_from(("\n", "\r\n", "\r", "\n ")), st.booleans())
def test_whatever_an_archive_holds_it_is_accepted_if_stock_installs_it(
    members: list[tuple[str, bytes]], lines: list[str], separator: str, all_listed: bool
) -> None:
    lines = [*HONEST.splitlines(), *(list_of(dict(members)).splitlines() * all_listed), *lines]
    with warnings.catch_warnings():
        # zipfile warns of two members with the same name.
        warnings.simplefilter("ignore")
        content = listed(separator.join(lines), *members)

    assert accepts(content) == installs(content)


@settings(deadline=None)
@given(st.data())
def test_however_an_archive_is_damaged_it_is_accepted_if_stock_installs_it(data: Any) -> None:
    files = {**FILES, LIST: HONEST.encode()}
    content = bytearray(archive(files.items(), data.draw(st.sampled_from(METHODS))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    assert not accepts(bytes(content)) or installs(bytes(content))


def accepts(content: bytes) -> bool:
    """Return whether we accept the FAB."""
    try:
        return bool(read_fab(content).version)
    except InvalidFab as refused:
        assert str(refused)
        return False


@pytest.mark.parametrize("method", METHODS)
def test_archives_are_read_however_they_are_compressed(method: int) -> None:
    files = {**FILES, "large.txt": bytes(range(256)) * 2_000}
    content = archive([*files.items(), (LIST, list_of(files).encode())], method)

    assert installs(content)
    assert accepts(content)


@pytest.mark.parametrize("method", SLOW_METHODS)
def test_an_archive_is_refused_whose_method_stock_does_not_use(method: int) -> None:
    """A file of 969 bytes of bzip2 takes 1.7 seconds to unpack."""
    content = archive([*FILES.items(), (LIST, HONEST.encode())], method)

    assert '"pyproject.toml" in the app\'s FAB is not packed with deflate' in reason(content)
    assert "flwr build" in reason(content)


def test_an_archive_of_too_many_files_is_refused() -> None:
    files = dict.fromkeys(map(str, range(MAX_FILES)), b"")

    assert "holds 10,003 files, and at most 10,000" in reason(pack({**FILES, **files}))


def test_a_file_whose_path_is_too_long_is_refused() -> None:
    name = "x" * (MAX_NAME + 1)

    assert "1,025 characters, and at most 1,024" in reason(pack({**FILES, name: b""}))


@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_is_damaged_is_named(method: int) -> None:
    content = archive([*FILES.items(), (LIST, HONEST.encode())], method)
    at = content.index(b"app/server.py") + len("app/server.py") + 9
    damaged = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]

    assert not installs(damaged)
    assert '"app/server.py" cannot be unpacked' in reason(damaged)


def test_a_file_that_is_encrypted_or_packed_by_an_unknown_method_is_named() -> None:
    content = make_fab()
    entry = content.rindex(b"app/server.py") - 46
    for at, value, said in ((8, 1, "encrypted"), (10, 77, "not packed with deflate")):
        changed = bytearray(content)
        struct.pack_into("<H", changed, entry + at, value)

        assert not installs(bytes(changed))
        assert '"app/server.py"' in reason(bytes(changed))
        assert said in reason(bytes(changed))


@pytest.mark.parametrize("name", ["pyproject.toml", "app/server.py", LIST])
def test_a_file_that_swells_up_takes_little_memory(name: str) -> None:
    files = {**FILES, LIST: HONEST.encode(), name: bytes(60_000_000)}
    content = archive(files.items())

    tracemalloc.start()
    try:
        assert reason(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    content = bytearray(make_fab())
    entry = content.rindex(b"app/server.py") - 46
    struct.pack_into("<I", content, entry + 24, MAX_UNPACKED_BYTES)

    assert "536,870,912 (512 MiB) are accepted" in reason(bytes(content))
