"""gzip by a fast library, held against Python's own."""

import gzip
import io

import numpy as np
import pytest

from jaxreg.io.compression import MAGIC, UNPACKABLE, packed, packing, unpacked, unpacking

DATA = np.random.default_rng(0).integers(0, 9, 3_000_001).astype(np.uint8).tobytes()


def test_what_is_packed_is_gzip_without_name_and_time():
    assert packed(DATA) == packed(DATA)
    assert packed(DATA)[:8] == MAGIC + b"\x08\x00" + bytes(4)
    assert gzip.decompress(packed(DATA)) == DATA


def test_a_stream_holds_what_was_written_to_it():
    file = io.BytesIO()
    with packing(file) as stream:
        for start in range(0, len(DATA), 700_000):
            stream.write(DATA[start : start + 700_000])
    assert gzip.decompress(file.getvalue()) == DATA


def test_what_python_packed_is_unpacked_also_of_several_parts():
    halves = gzip.compress(DATA[:1234]) + gzip.compress(DATA[1234:])
    assert unpacked(halves, len(DATA)) == DATA
    assert unpacking(io.BytesIO(halves)).read() == DATA


def test_more_than_the_limit_is_not_unpacked():
    assert unpacked(packed(DATA), len(DATA) - 1) is None
    assert unpacked(packed(DATA), len(DATA)) == DATA


@pytest.mark.parametrize("kind", ["cut", "changed", "checksum", "appended"])
def test_damage_is_noticed(kind):
    good = packed(DATA)
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "changed": good[:middle] + bytes(64) + good[middle + 64 :],
        "checksum": good[:-8] + bytes([good[-8] ^ 1]) + good[-7:],
        "appended": good + b"no gzip",
    }[kind]
    with pytest.raises(UNPACKABLE):
        unpacked(bad, 2 * len(DATA))
