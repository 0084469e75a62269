"""Seals: what they notice, and that coreutils reads them."""

import shutil
import subprocess

import pytest

from jaxreg.io import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "zwölf").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "empty").write_bytes(b"")
    checksums.seal(tmp_path)
    return tmp_path


def test_a_sealed_folder_matches_its_sums_here_nor_for_coreutils(folder):
    assert checksums.mismatch(folder) is None
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--strict", checksums.NAME], cwd=folder, check=True)


def test_sealing_twice_gives_the_same_sums(folder):
    first = (folder / checksums.NAME).read_bytes()
    checksums.seal(folder)
    assert (folder / checksums.NAME).read_bytes() == first


@pytest.mark.parametrize("at", [0, 5000, 10239])
def test_every_flipped_bit_is_seen(folder, at):
    path = folder / "a b" / "zwölf"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert checksums.mismatch(folder) == "a b/zwölf is changed"


def test_missing_and_truncated_files_are_named(folder):
    path = folder / "a b" / "zwölf"
    path.write_bytes(path.read_bytes()[:-1])
    assert checksums.mismatch(folder) == "a b/zwölf is changed"
    path.unlink()
    assert checksums.mismatch(folder) == "a b/zwölf is missing"


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "empty"),
        ("no sums\n", "damaged"),
        ("0" * 64 + "  ../outside\n", "damaged"),
        ("0" * 64 + "  /etc/hostname\n", "damaged"),
    ],
)
def test_sums_that_are_none_or_lead_out_of_the_folder_are_refused(folder, text, flaw):
    (folder / checksums.NAME).write_text(text)
    assert flaw in (checksums.mismatch(folder) or "")


def test_without_its_sums_a_folder_is_not_whole(folder):
    (folder / checksums.NAME).unlink()
    assert checksums.mismatch(folder) == "SHA256SUMS is missing"
