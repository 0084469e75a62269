"""Remarks on many files, in few lines."""

from jaxreg.io.remarks import grouped


def test_the_same_remark_on_many_files_is_one_line_that_counts_them():
    many = [f"warning: a/{n}.nii: sform and qform lie up to {n}.5 mm apart." for n in range(5)]
    few = [f"a/{n}.nii: a soft mask" for n in range(3)]
    plain = [f"a/{n}.nii: sform and qform lie up to {n}.5 mm apart." for n in range(2)]
    got = grouped([*many, *few, *few, *plain])
    assert got == [
        "warning: a/0.nii: sform and qform lie up to 0.5 mm apart (and so in 4 more files)",
        *few,
        *plain,
    ]
    assert grouped([]) == []
