"""Flash geometry."""

from espmon.bootloader import flash


def test_sizes() -> None:
    assert flash.size_of_id(0x1640EF) == 4 << 20
    assert flash.size_of_id(0x1440C8) == 1 << 20
    assert flash.size_of_id(0x204020) == 64 << 20
    assert flash.size_of_id(0x01841F) == 512 << 10
    for nobody in (0, 0xFFFFFF, 0xFFFF3F, 0x0140EF):
        assert flash.size_of_id(nobody) is None


def test_runs_and_sectors() -> None:
    assert list(flash.sectors_of(0x1800, 0x1000)) == [0x1000, 0x2000]
    assert list(flash.sectors_of(0x1000, 0)) == []
    assert flash.runs([0x3000, 0x1000, 0x2000, 0x8000]) == [(0x1000, 0x3000), (0x8000, 0x1000)]
