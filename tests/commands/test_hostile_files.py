"""Files that promise too much, names that lead astray, and a short campaign of mutated inputs."""

import gzip
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import killing
import numpy as np
import pytest

from jaxreg.data.cohort import read_cohort
from jaxreg.data.synthetic.phantom import write_phantom_cohort
from jaxreg.data.volumes import Volumes
from jaxreg.errors import InputError
from jaxreg.geometry.field import Field
from jaxreg.geometry.grid import Volume
from jaxreg.io.displacement_fields import read_field, write_field
from jaxreg.io.images import read, read_image, write

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def nifti(shape, *, data=b"", datatype=2, bits=8, offset=352.0):
    """A NIfTI-1 file with a header that promises `shape`."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, offset)
    struct.pack_into("<2h", header, 252, 0, 2)
    for row in range(3):
        struct.pack_into("<f", header, 280 + 16 * row + 4 * row, 1.0)
    header[344:348] = b"n+1\0"
    return bytes(header) + data


def mgh(shape):
    header = struct.pack(">7i", 1, *shape, 1, 3, 0) + struct.pack(">h", 0)
    return header.ljust(284, b"\0") + bytes(100)


def refused(path, read, *words):
    """`read` refuses a file at once and without memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in (path.name, *words)), caught.value


def test_the_header_made_here_is_a_good_one(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti((2, 3, 4), data=bytes(range(24))))
    assert read(tmp_path / "a.nii").array.shape == (2, 3, 4)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz"])
def test_a_header_that_promises_30000_cubed_is_refused_before_anything_is_reserved(name, tmp_path):
    path, shape = tmp_path / name, (30_000, 30_000, 30_000)
    data = nifti(shape, data=bytes(100)) if ".nii" in name else mgh(shape)
    path.write_bytes(gzip.compress(data) if name.endswith(("gz", "mgz")) else data)
    refused(path, read, "27,000,000,000,000" if ".nii" in name else "promises")


def test_a_field_that_promises_too_much_is_refused(tmp_path):
    shape = (30_000, 30_000, 30_000, 1, 3)
    path = tmp_path / "warp.nii.gz"
    path.write_bytes(gzip.compress(nifti(shape, data=bytes(99), datatype=16, bits=32)))
    refused(path, read_field, "promises")


def test_zeros_packed_a_thousandfold_are_refused(tmp_path):
    """Three gigabytes that a few megabytes really hold."""
    path = tmp_path / "bomb.nii.gz"
    start = gzip.compress(nifti((1500, 1500, 1400)))
    path.write_bytes(start + gzip.compress(bytes(1 << 24), 9) * 188)
    assert path.stat().st_size < 4 << 20
    refused(path, read_image, "promises 3,150,000,000")


def test_a_small_volume_before_an_endless_tail_is_refused(tmp_path):
    path = tmp_path / "tail.nii.gz"
    start = gzip.compress(nifti((2, 3, 4), data=bytes(range(24))))
    path.write_bytes(start + gzip.compress(bytes(1 << 24), 9) * 40)
    refused(path, read, "far longer")


def test_voxels_that_start_gigabytes_later_are_refused(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        data = nifti((2, 3, 4), data=bytes(24), offset=2e9)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        refused(tmp_path / name, read, "2e+09")


@pytest.mark.parametrize("name", ["a.nii.bz2", "a.mnc", "a.png", "a", "a.nii.gz.exe"])
def test_other_kinds_of_files_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(nifti((2, 3, 4), data=bytes(range(24))))
    refused(tmp_path / name, read, ".mgz")


@pytest.mark.parametrize("name", ["a\0b.nii", "a" * 300 + ".nii", ""])
def test_names_that_no_file_can_have_are_not_found(name):
    with pytest.raises(InputError, match="no such file"):
        read(name)


@pytest.mark.parametrize(
    "folder", ["with spaces", "it's", 'say "so"', "größe 脳", "-rf", "a;b&c$d"]
)
def test_any_name_of_a_folder_will_do(folder, tmp_path):
    place = tmp_path / folder
    subjects = {"train": 1}
    write_phantom_cohort(place, shape=(16, 16, 16), spacing_mm=12.0, subjects=subjects)
    cohort = read_cohort(place)
    (subject,) = cohort.members("train", "T1w")
    assert Volumes(cohort, [(subject, "T1w")]).shape == (16, 16, 16)
    write_field(place / "ü warp.nii.gz", Field(np.ones((3, 3, 3, 3), np.float32), AFFINE))
    assert read_field(place / "ü warp.nii.gz").vectors.shape == (3, 3, 3, 3)


def test_symbolic_links_are_followed_and_broken_ones_refused(tmp_path):
    image = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)
    write(tmp_path / "elsewhere.nii.gz", image)
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tmp_path / "elsewhere.nii.gz")
    np.testing.assert_array_equal(read(link).array, image.array)
    (tmp_path / "elsewhere.nii.gz").unlink()
    refused(link, read, "no such file")
    loop = tmp_path / "loop.nii"
    loop.symlink_to(loop)
    refused(loop, read, "no such file")


@pytest.mark.parametrize(
    "name", ["../sub-01", "..", ".", "a/b", "/etc", "a\\b", "sub\x00", "sub\x1b[2J", "x" * 300, ""]
)
def test_a_participant_that_leads_out_of_the_cohort_is_refused(name, tmp_path):
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsplit\n{name}\ttrain\n")
    with pytest.raises(InputError, match="participants.tsv"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("index", ["2147483648", "-2147483648", "1" * 400, "1" * 5000, "1.0", ""])
def test_a_label_that_does_not_fit_is_refused(index, tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\ttrain\n")
    (tmp_path / "labels.tsv").write_text(f"index\tname\n{index}\tCortex\n")
    with pytest.raises(InputError, match="labels.tsv"):
        read_cohort(tmp_path)


def test_a_cell_longer_than_csv_takes_is_refused(tmp_path):
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsplit\n" + "x" * 200_000 + "\ttrain\n"
    )
    with pytest.raises(InputError, match="participants.tsv"):
        read_cohort(tmp_path)


@pytest.mark.slow
def test_mutated_files_give_input_errors_only():
    script = Path(__file__).resolve().parents[1] / "helpers" / "fuzz_readers.py"
    done = subprocess.run(
        [sys.executable, str(script), "--count=400", "--seed=7"],
        env=killing.environment(),
        cwd=killing.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
