"""Of several sessions, images, masks and label maps of one subject: what is taken, and who decides.

Each case is worked out by hand from the rules of `docs/prepare.md`.
"""

import pytest

from jaxreg.configuration.preparation import parse_entities
from jaxreg.data.prepare import layouts
from jaxreg.errors import InputError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def found(tmp_path, *names, entities="", layout="bids"):
    """What is found where subject 01 has these images and subject 02 has a plain T1w."""
    touch(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    touch(tmp_path, *(f"sub-01/anat/sub-01_{name}.nii.gz" for name in names))
    wishes = parse_entities(entities) if entities else {}
    return layouts.find(layout, tmp_path, wishes=wishes)


def images_of(source, name="sub-01"):
    """Contrast → name of the image without the subject."""
    (files,) = [f for f in source.subjects if f.participant == name]
    return {d: p.name.split("_", 1)[1].split(".")[0] for d, p in files.images.items()}


@pytest.mark.parametrize(
    ("names", "taken", "rule"),
    [
        (["ce-gd_T1w", "T1w"], "T1w", "without ce-"),
        (["space-MNI_T1w", "T1w"], "T1w", "without space-"),
        (["desc-preproc_T1w", "T1w"], "T1w", "without desc-"),
        (["part-mag_T1w", "part-phase_T1w"], "part-mag_T1w", "never taken"),
        (["part-phase_T1w", "T1w"], "T1w", "never taken"),
        (["part-real_T1w", "part-imag_T1w", "part-mag_T1w"], "part-mag_T1w", "never taken"),
        (["echo-1_T1w", "echo-2_T1w", "T1w"], "T1w", "without echo-"),
        (["run-2_T1w", "run-10_T1w"], "run-2_T1w", "lowest run"),
        (["run-02_T1w", "T1w"], "T1w", "lowest run"),
        (["ce-gd_run-1_T1w", "run-2_T1w", "run-3_T1w"], "run-2_T1w", "without ce-"),
        (["acq-a_ce-gd_T1w", "acq-b_T1w"], "acq-b_T1w", "without ce-"),
    ],
)
def test_a_rule_decides_and_the_choice_is_told(tmp_path, names, taken, rule):
    source = found(tmp_path, *names)
    assert images_of(source) == {"T1w": taken} and not source.left_out
    (choice,) = source.choices
    assert (choice.participant, choice.what) == ("sub-01", "T1w")
    others = {f"sub-01_{name}.nii.gz" for name in names if name != taken}
    assert set(choice.others) == others and choice.taken == f"sub-01_{taken}.nii.gz"
    assert rule in str(choice) and all(name in str(choice) for name in others)


@pytest.mark.parametrize(
    ("names", "flag"),
    [
        (["acq-highres_T1w", "acq-lowres_T1w"], "acq=highres"),
        (["acq-highres_T1w", "T1w"], "acq=highres"),
        (["rec-norm_T1w", "T1w"], "rec=norm"),
        (["chunk-1_T1w", "chunk-2_T1w"], "chunk=1"),
        (["echo-1_T1w", "echo-2_T1w"], "echo=1"),
        (["ce-gd_T1w", "ce-iron_T1w"], "ce=gd"),
        (["space-MNI_T1w", "space-T2w_T1w"], "space=MNI"),
        (["acq-a_run-1_T1w", "acq-b_run-2_T1w"], "acq=a"),
        (["T1w", "acq-a_T2w", "acq-b_T2w"], "acq=a"),
        (["foo-1_T1w", "foo-2_T1w"], "foo=1"),
    ],
)
def test_what_no_rule_decides_leaves_the_subject_out_and_names_all(tmp_path, names, flag):
    source = found(tmp_path, *names)
    assert [f.participant for f in source.subjects] == ["sub-02"]
    reason = source.left_out["sub-01"]
    assert f"--entities {flag}" in reason
    assert all(f"sub-01_{name}.nii.gz" in reason for name in names if name != "T1w" or "T2" in flag)
    # and the flag that it names does decide
    assert "sub-01" in [f.participant for f in found(tmp_path, *names, entities=flag).subjects]


def test_one_name_twice_is_not_decided(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii")
    source = found(tmp_path, "T1w")
    assert "sub-01_T1w.nii," in source.left_out["sub-01"]
    assert "sub-01_T1w.nii.gz" in source.left_out["sub-01"]


@pytest.mark.parametrize(
    ("names", "entities", "taken"),
    [
        (["acq-a_T1w", "acq-b_T1w"], "acq=b", {"T1w": "acq-b_T1w"}),
        (["acq-a_T1w", "T1w"], "acq=", {"T1w": "T1w"}),
        (["acq-a_T1w", "T1w"], "acq=a", {"T1w": "acq-a_T1w"}),
        (["acq-a_T1w", "acq-b_T1w", "T2w"], "acq=a", {"T1w": "acq-a_T1w", "T2w": "T2w"}),
        (["run-01_T1w", "run-02_T1w"], "run=2", {"T1w": "run-02_T1w"}),
        (["ce-gd_T1w", "T1w"], "ce=gd", {"T1w": "ce-gd_T1w"}),
        (["acq-b_T1w", "acq-c_T1w"], "acq=a,acq=c", {"T1w": "acq-c_T1w"}),
        (["acq-a_run-1_T1w", "acq-a_run-2_T1w", "acq-b_run-3_T1w"], "acq=a,run=2",
         {"T1w": "acq-a_run-2_T1w"}),
    ],
)  # fmt: skip
def test_the_user_chooses_by_entities(tmp_path, names, entities, taken):
    touch(tmp_path, "sub-03/anat/sub-03_acq-a_T1w.nii.gz")
    source = found(tmp_path, *names, entities=entities)
    assert images_of(source) == taken
    assert images_of(source, "sub-02") == {"T1w": "T1w"}  # who has no such entity is not hurt
    chosen = [c for c in source.choices if c.participant == "sub-01"]
    assert chosen and all("--entities" in c.rule for c in chosen)


def test_who_has_another_value_only_is_left_out_by_the_flag(tmp_path):
    source = found(tmp_path, "acq-a_T1w", "acq-a_T2w", entities="acq=a")
    assert "sub-01" not in source.left_out
    touch(tmp_path, "sub-03/anat/sub-03_acq-b_T1w.nii.gz")
    source = found(tmp_path, "acq-a_T1w", entities="acq=a")
    assert "--entities" in source.left_out["sub-03"] and "acq-b" in source.left_out["sub-03"]


@pytest.mark.parametrize("entities", ["aqc=a", "acq=x"])
def test_a_wish_that_nothing_meets_is_misspelled(tmp_path, entities):
    with pytest.raises(InputError, match=f"{entities[:3]}.*acq"):
        found(tmp_path, "acq-a_T1w", entities=entities)


def test_a_parts_only_contrast_is_told_and_not_taken(tmp_path):
    source = found(tmp_path, "T1w", "part-phase_T2w")
    assert images_of(source) == {"T1w": "T1w"}
    (choice,) = source.choices
    assert choice.taken is None and "part-phase_T2w" in str(choice)
    assert "sub-01" in found(tmp_path / "b", "part-phase_T1w").left_out


def test_only_suffixes_count_and_not_the_ends_of_other_words(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_acq-noT1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz.bak")
    assert images_of(found(tmp_path, "T2w")) == {"T2w": "T2w"}


@pytest.mark.parametrize(
    ("entities", "taken"),
    [("", "ses-b"), ("ses=a", "ses-a"), ("ses=c", "ses-c")],
)
def test_one_session_is_taken_and_told(tmp_path, entities, taken):
    touch(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
        "sub-01/ses-c/anat/sub-01_ses-c_T2w.nii.gz",
        "sub-01/ses-c/anat/sub-01_ses-c_FLAIR.nii.gz",
    )
    source = found(tmp_path, entities=entities)
    (files,) = [f for f in source.subjects if f.participant == "sub-01"]
    assert {p.parent.parent.name for p in files.images.values()} == {taken}
    (choice,) = source.choices
    assert (choice.what, choice.taken) == ("session", taken) and len(choice.others) == 2
    assert ("--entities" in choice.rule) == bool(entities)


def test_masks_of_several_pipelines(tmp_path):
    places = [f"derivatives/{p}/sub-01/anat/sub-01_desc-brain_mask.nii.gz" for p in ("b", "a")]
    touch(tmp_path, *places)
    for entities, taken in (("", "a"), ("pipeline=b", "b")):
        source = found(tmp_path, "T1w", entities=entities)
        assert source.subjects[0].mask == tmp_path / f"derivatives/{taken}" / places[0][14:]
        (choice,) = source.choices
        assert choice.what == "mask" and str(choice.taken).startswith(f"{taken}/sub-01")


def test_two_images_of_one_ixi_number_are_not_decided(tmp_path):
    for folder in ("a", "b"):
        touch(tmp_path, f"{folder}/IXI002-Guys-0828-T1.nii.gz")
    touch(tmp_path, "a/IXI012-HH-1211-T1.nii.gz")
    source = layouts.find("ixi", tmp_path)
    assert [f.participant for f in source.subjects] == ["sub-IXI012"]
    assert all(f"{f}/IXI002" in source.left_out["sub-IXI002"] for f in ("a", "b"))


def test_where_nobody_is_decided_the_refusal_says_how_to_choose(tmp_path):
    touch(tmp_path, *(f"sub-01/anat/sub-01_acq-{a}_T1w.nii.gz" for a in "xy"))
    with pytest.raises(InputError, match="sub-01: several T1w: .*--entities acq=x"):
        layouts.find("bids", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"BIDSVersion": 1.0, "Authors": "A"}', "\xff"])
def test_names_alone_count_and_not_what_describes_the_data_set(tmp_path, text):
    places = ("", "derivatives/a/", "sub-01/anat/sub-01_T1w/")
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "dataset_description.json").write_bytes(text.encode("latin-1"))
    for name in (
        "genetic_info.json",
        "participants.tsv",
        ".bidsignore",
        ".ancpbids-dataset.pickle",
    ):
        (tmp_path / name).write_bytes(b"\xff{")
    assert images_of(found(tmp_path, "T1w")) == {"T1w": "T1w"}
