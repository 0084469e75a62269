"""Where results may be written: links, mounts, parents without permission, long names, claims."""

import os
import subprocess
import sys

import killing
import pytest

from jaxreg.errors import InputError
from jaxreg.io import atomic
from jaxreg.io.atomic import (
    check_inputs_outside,
    claimed,
    completed,
    completed_folder,
    require_writable,
)
from jaxreg.registration.output.files import check_folder


def fill(path, name="new"):
    with completed_folder(path) as folder:
        (folder / name).write_text(name)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_link_to_a_folder_stays_and_the_folder_is_filled(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "old").touch()
    link.symlink_to(target)
    fill(link)
    assert link.is_symlink() and names(target) == ["new"] and names(tmp_path) == ["link", "target"]
    gone = tmp_path / "gone"
    gone.symlink_to(tmp_path / "later" / "folder")
    fill(gone)
    assert gone.is_symlink() and names(tmp_path / "later" / "folder") == ["new"]


def test_a_link_to_a_file_stays_and_the_file_is_written(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with completed(tmp_path / "link.csv") as path:
        path.write_text("1")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "1"


@pytest.fixture
def fixed_in_place(monkeypatch):
    """Folders that cannot be renamed, as mounts."""
    monkeypatch.setattr(atomic, "_replaceable", lambda folder: False)


def test_a_folder_that_cannot_be_renamed_is_filled_inside(tmp_path, fixed_in_place):
    target = tmp_path / "mount"
    (target / "lost+found").mkdir(parents=True)
    (target / "old").touch()
    inode = target.stat().st_ino
    fill(target)
    assert names(target) == ["lost+found", "new"] and target.stat().st_ino == inode
    with pytest.raises(InputError, match="gone"), completed_folder(target) as folder:
        (folder / "half").touch()
        raise OSError(5, "gone")
    assert names(target) == ["lost+found", "new"]


def test_what_was_inside_comes_back_where_moving_fails(tmp_path, fixed_in_place, monkeypatch):
    target = tmp_path / "mount"
    target.mkdir()
    for name in ("a", "b"):
        (target / name).write_text("old")
    replace = os.replace

    def breaking(source, destination):
        if os.path.basename(destination) == "b" and ".old" not in f"{source}{destination}":
            raise OSError(28, "No space left on device")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", breaking)
    with pytest.raises(InputError, match="No space"), completed_folder(target) as folder:
        for name in ("a", "b"):
            (folder / name).write_text("new")
    assert names(target) == ["a", "b"]
    assert {(target / n).read_text() for n in "ab"} == {"old"}


@pytest.mark.parametrize("length", [1, 200, 201, 245, 255])
def test_any_length_of_a_name_that_the_file_system_takes_will_do(tmp_path, length):
    path = tmp_path / ("é" * (length // 2) + "x" * (length % 2))
    require_writable(path)
    with claimed(path):
        fill(path)
        fill(path, "newer")
    assert names(path) == ["newer"] and names(tmp_path) == [path.name]
    file = tmp_path / ("y" * (length - 1) + "z")
    with completed(file) as partial:
        partial.write_text("1")
    assert file.read_text() == "1"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / ("x" * 256), tmp_path / "file" / "out", loop, "/proc/out"):
        with pytest.raises(InputError):
            check_folder(type(tmp_path)(path), overwrite=False)
    require_writable(tmp_path / "new" / "and" / "deep")
    assert names(tmp_path) == ["file", "loop"]


def test_an_input_inside_the_folder_of_the_results_is_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "moved.nii.gz").touch()
    (tmp_path / "link.nii.gz").symlink_to(out / "moved.nii.gz")
    with pytest.raises(InputError, match="is an input"):
        check_inputs_outside(out, [tmp_path / "link.nii.gz"])
    check_inputs_outside(out, [tmp_path / "other.nii.gz"])


def test_a_claim_keeps_other_processes_out_until_it_ends_or_its_owner_dies(tmp_path):
    code = (
        "import sys; from jaxreg.io.atomic import claimed\n"
        "with claimed(sys.argv[1]): print('mine', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=killing.environment(),
        cwd=killing.ROOT,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"mine\n"
        with pytest.raises(InputError, match="another run"), claimed(out):
            pass
        other.kill()
    with claimed(out):
        pass
    assert not names(tmp_path)
