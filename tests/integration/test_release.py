"""Released packages hold their templates, styles and SQL; `make release` tries them, too."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness.release import ROOT, NotWhole, build, check

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs a clone"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_and_the_source_have_all_that_they_need_and_no_tests(
    built: tuple[Path, Path],
) -> None:
    check(*built)


@pytest.mark.parametrize("ending", [".sql", ".html", ".css", "py.typed", "digits/pyproject.toml"])
def test_a_wheel_that_lacks_something_is_refused(
    built: tuple[Path, Path], tmp_path: Path, ending: str
) -> None:
    source, wheel = built
    less = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(less, "w") as copy:
        for name in whole.namelist():
            if not name.endswith(ending):
                copy.writestr(name, whole.read(name))

    with pytest.raises(NotWhole, match=f"lacks .*{ending}"):
        check(source, less)


def test_a_source_with_tests_is_refused(built: tuple[Path, Path], tmp_path: Path) -> None:
    source, wheel = built
    more = tmp_path / source.name
    with tarfile.open(source) as whole, tarfile.open(more, "w:gz") as copy:
        for member in whole.getmembers():
            copy.addfile(member, whole.extractfile(member))
        copy.add(__file__, f"{source.name.removesuffix('.tar.gz')}/tests/test_one.py")

    with pytest.raises(NotWhole, match=r"holds tests/test_one\.py"):
        check(more, wheel)
