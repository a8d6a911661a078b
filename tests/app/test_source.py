"""Source lines come from plain files below known folders, and from nowhere else."""

import os
import sys

import pytest

from espmon.app.source import MAX_SOURCE_BYTES, SourceFiles, project_folder


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "weather"
    (root / "src").mkdir(parents=True)
    (root / "src" / "main.cpp").write_text("one\ntwo\r\nthree")
    (root / "platformio.ini").write_text("")
    build = root / ".pio" / "build" / "nodemcu"
    build.mkdir(parents=True)
    (build / "firmware.elf").write_bytes(b"")
    (tmp_path / "secret.c").write_text("secret\n")
    return root


def test_the_project_folder_is_found_from_the_elf(project, tmp_path):
    assert project_folder(project / ".pio/build/nodemcu/firmware.elf") == project
    (tmp_path / "plain").mkdir()
    assert project_folder(tmp_path / "plain" / "x.elf") == tmp_path / "plain"
    (tmp_path / "p2" / "build").mkdir(parents=True)
    assert project_folder(tmp_path / "p2" / "build" / "x.elf") == tmp_path / "p2"


def test_lines_are_found_however_the_path_is_written(project):
    files = SourceFiles([project])
    for path in (
        str(project / "src" / "main.cpp"),
        "src/main.cpp",
        "./src/../src/main.cpp",
        "/home/ci/work/weather/src/main.cpp",
        "C:\\Users\\u\\weather\\src\\main.cpp",
        "../../../src/main.cpp",
    ):
        assert files.line(path, 2) == "two", path
    assert files.line("src/main.cpp", 3) == "three"
    for number in (0, -1, 4, 10**9, None):
        assert files.line("src/main.cpp", number) is None


def test_nothing_outside_is_read(project, tmp_path):
    files = SourceFiles([project])
    (project / "link.c").symlink_to(tmp_path / "secret.c")
    (project / "out").symlink_to(tmp_path)
    for path in (
        "../secret.c",
        str(tmp_path / "secret.c"),
        "link.c",
        "out/secret.c",
        "/etc/passwd",
        "\\\\server\\share\\main.cpp",
        "//server/share/main.cpp",
        "src/main.cpp:stream",
        "CON",
        "src/nul.c",
        "src\0/main.cpp",
        "",
        None,
        "x/" * 3000,
    ):
        assert files.line(path, 1) is None, path


def test_only_what_compilers_read_is_quoted(project):
    files = SourceFiles([project])
    for name in ("id_rsa", ".env", "wifi.json", ".c", "notes.txt"):
        (project / name).write_text("secret\n")
        assert files.line(name, 1) is None, name
    for name in ("a.c", "b.S", "c.ino", "d.hpp"):
        (project / name).write_text("code\n")
        assert files.line(name, 1) == "code", name


def test_a_link_inside_the_project_is_fine(project):
    (project / "alias.cpp").symlink_to(project / "src" / "main.cpp")
    assert SourceFiles([project]).line("alias.cpp", 1) == "one"


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in the file system on Windows")
def test_only_regular_files_of_bounded_size(project):
    files = SourceFiles([project])
    os.mkfifo(project / "pipe.c")
    assert files.line("pipe.c", 1) is None
    (project / "folder.c").mkdir()
    assert files.line("folder.c", 1) is None
    (project / "big.c").write_bytes(b"x\n" * (MAX_SOURCE_BYTES // 2 + 1))
    assert files.line("big.c", 1) is None


def test_source_roots_add_to_the_project(project, tmp_path):
    other = tmp_path / "framework"
    (other / "cores").mkdir(parents=True)
    (other / "cores" / "main.c").write_text("core\n")
    files = SourceFiles([project, other])
    assert files.line("/opt/arduino/cores/main.c", 1) == "core"


def test_a_folder_that_may_not_be_looked_into_is_passed_by(monkeypatch, tmp_path):
    """An ELF below somebody else's home: no mark is seen there, and nothing is raised."""
    real = os.stat

    def refuses(path, **options):
        if os.path.basename(path) in ("Makefile", ".git", "platformio.ini", "sdkconfig", "CMakeLists.txt"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", refuses)
    assert project_folder(tmp_path / "firmware.elf") == tmp_path.resolve()
