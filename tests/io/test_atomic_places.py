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
    claimed_file,
    completed,
    completed_folder,
    require_writable,
)
from jaxreg.registration.output.folder import check_folder


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


def killed_while_filling(path, monkeypatch, at):
    """The state of a folder whose writer died before its `at`-th renaming."""
    replace, count = os.replace, [0]

    class Killed(BaseException):
        pass

    def dying(source, destination):
        count[0] += 1
        if count[0] >= at:
            raise Killed
        replace(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        patch.setattr(atomic.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed), completed_folder(path) as folder:
            for name in ("a", "b", "new"):
                (folder / name).write_text("new")


@pytest.mark.parametrize(
    ("in_place", "at"), [(False, 1), (False, 2), *((True, at) for at in range(1, 8))]
)
def test_a_kill_at_any_moment_loses_nothing_and_the_next_run_cleans_up(
    tmp_path, monkeypatch, in_place, at
):
    if in_place:
        monkeypatch.setattr(atomic, "_replaceable", lambda folder: False)
    target = tmp_path / "out"
    target.mkdir()
    for name in ("a", "b", "old"):
        (target / name).write_text("old")
    killed_while_filling(target, monkeypatch, at)
    old, new = dict.fromkeys(("a", "b", "old"), "old"), dict.fromkeys(("a", "b", "new"), "new")
    with claimed(target):
        found = {p.name: p.read_text() for p in target.iterdir()}
        assert found == (new if in_place and at > 4 else old)
    assert names(tmp_path) == ["out"]


def test_a_folder_of_ones_own_with_a_hidden_name_is_left_alone(tmp_path, fixed_in_place):
    target = tmp_path / "mount"
    (target / ".2019").mkdir(parents=True)
    with pytest.raises(InputError, match="2019"):
        check_folder(target, overwrite=False)
    with claimed(target):
        assert names(target) == [".2019"]


def test_a_name_on_the_way_ends_as_the_name_asked_for(tmp_path):
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "object")
    for name in ("a.nii.gz", "x" * 243 + ".nii.gz", "y" * 250 + ".mat", "link.nii.gz", "plain"):
        with completed(tmp_path / name) as temporary:
            assert temporary.name.endswith(name[name.find(".") :] if "." in name else name)
            temporary.write_text(name)
        assert (tmp_path / name).read_text() == name


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to("/dev/null")
    (tmp_path / "own.csv").write_text("1")
    (tmp_path / "again.csv").hardlink_to(tmp_path / "own.csv")
    (tmp_path / "kept.csv").write_text("2")
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: os.path.basename(p) != "kept.csv" and access(p, mode)
    )
    monkeypatch.setattr(atomic, "_is_mount", lambda p: p.name == "mounted.csv")
    (tmp_path / "mounted.csv").write_text("3")
    before = names(tmp_path)
    refused = {
        "folder.csv": "that of a folder",
        "pipe.csv": "device or a pipe",
        "device.csv": "device or a pipe",
        "own.csv": "no input",
        "again.csv": "no input",
        "kept.csv": "write-protected",
        "mounted.csv": "mounted there by itself",
        "loop.csv": "cannot be written",
        "none/x.csv": "does not exist",
        "own.csv/x.csv": "does not exist",
        "n" * 252 + ".csv": "too long",
        "\0.csv": "cannot be written",
    }
    for name, words in refused.items():
        with (
            pytest.raises(InputError, match=words),
            claimed_file(tmp_path / name, inputs=[tmp_path / "own.csv"]),
        ):
            raise AssertionError(name)
    with pytest.raises(InputError, match="cannot be written"), claimed_file("/proc/self/x.csv"):
        raise AssertionError
    assert names(tmp_path) == before and (tmp_path / "kept.csv").read_text() == "2"


def test_a_file_is_claimed_and_what_was_left_on_the_way_is_removed(tmp_path):
    out = tmp_path / "out.csv"
    (tmp_path / ".77-out.csv").write_text("half")
    (tmp_path / ".77-other.csv").write_text("half")
    with claimed_file(out):
        with pytest.raises(InputError, match="another run"), claimed_file(out):
            raise AssertionError
        with completed(out) as partial:
            partial.write_text("1")
    assert names(tmp_path) == [".77-other.csv", "out.csv"]
