"""The stores of ELFs and of flash images: by digest, once, bounded, and nothing damaged is believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from espmon.errors import ElfUnusable
from espmon.store.elfs import ElfStore, expand
from espmon.store.images import ImageStore, image_digest


def elf(path: Path, content: bytes, age: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF" + content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_an_elf_is_kept_once_and_found_by_a_printed_prefix(tmp_path: Path) -> None:
    store = ElfStore(tmp_path / "elf")
    first = store.add(elf(tmp_path / "a.elf", b"1"))
    again = store.add(elf(tmp_path / "sub" / "b.elf", b"1"))
    assert first.sha256 == again.sha256
    assert len(store.all()) == 1
    assert store.all()[0].source == str(tmp_path / "a.elf")
    assert store.get(first.sha256[:9]) is not None
    assert store.get("0" * 64) is None
    assert store.get("../../etc/passwd") is None
    (tmp_path / "x.bin").write_bytes(b"\xe9abc")
    with pytest.raises(ElfUnusable, match="no ELF"):
        store.add(tmp_path / "x.bin")
    with pytest.raises(ElfUnusable):
        store.add(tmp_path / "missing.elf")


def test_a_rebuilt_elf_is_kept_beside_the_old_one(tmp_path: Path) -> None:
    store = ElfStore(tmp_path / "elf")
    path = elf(tmp_path / "build" / "fw.elf", b"one", age=20)
    old = store.look(path)
    assert old is not None
    assert old[1]
    assert store.look(path) == (old[0], False)
    elf(path, b"two", age=5)
    new = store.look(path)
    assert new is not None
    assert new[1]
    assert new[0].sha256 != old[0].sha256
    assert {e.sha256 for e in store.all()} == {old[0].sha256, new[0].sha256}
    elf(path, b"half", age=0)
    assert store.look(path) is None, "the linker may still be writing"


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    store = ElfStore(tmp_path / "elf", limit_bytes=2500)
    kept = [store.add(elf(tmp_path / f"{i}.elf", bytes([i]) * 1000)) for i in range(2)]
    os.utime(kept[0].path, (1, 1))
    newest = store.add(elf(tmp_path / "9.elf", b"9" * 1000))
    assert {e.sha256 for e in store.all()} == {kept[1].sha256, newest.sha256}
    assert store.gc(limit_bytes=0, keep={newest.sha256})
    assert [e.sha256 for e in store.all()] == [newest.sha256]


def test_build_folders_and_patterns(tmp_path: Path) -> None:
    a, b = elf(tmp_path / "build" / "fw.elf", b"a"), elf(tmp_path / "build" / "env" / "x" / "y.elf", b"b")
    elf(tmp_path / "build" / "1" / "2" / "3" / "deep.elf", b"c")
    assert set(expand([str(tmp_path / "build")])) == {a, b}
    assert expand([str(tmp_path / "build" / "*.elf"), str(a)]) == [a]


def test_images_come_back_checked(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "image")
    pieces = [(0x10000, b"app" * 1000), (0, b"boot" * 100)]
    image = store.add(pieces, port="bench", mac="aa:bb", origin="learnt")
    assert image.digest == image_digest(list(reversed(pieces)))
    found = store.get(image.digest[:8])
    assert found is not None
    assert found.pieces == ((0, b"boot" * 100), (0x10000, b"app" * 1000))
    assert (found.mac, found.origin, store.known_good("bench"), store.known_good("x")) == ("aa:bb", "learnt", image.digest, None)
    piece = next(iter((tmp_path / "image").glob("piece-*")))
    piece.write_bytes(piece.read_bytes()[:-1] + b"!")
    assert store.get(image.digest) is None, "a damaged image is not known-good"


def test_backups_go_before_learnt_images_and_named_ones_stay(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "image", limit_bytes=3500)
    named = store.add([(0, b"n" * 1000)], origin="named", port="a")
    learnt = store.add([(0, b"l" * 1000)], origin="learnt", port="b")
    backup = store.add([(0, b"b" * 1000)], origin="backup", port="a")
    last = store.add([(0, b"c" * 1000)], origin="backup", port="a")
    assert {m["digest"] for m in store.all()} == {named.digest, learnt.digest, last.digest}
    assert store.get(backup.digest) is None
