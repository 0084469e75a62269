"""Programs on disk: those of another process give what this one's would, bit for bit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jaxreg import stored_programs
from jaxreg.runtime import PROGRAMS_FOLDER
from jaxreg.stored_programs import StoredProgram, stored_program, stored_shapes


class Two(NamedTuple):
    """A structure that the functions get."""

    one: Float[Array, "n"]
    other: Float[Array, "n"] | None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs are stored, as for the one device of a user."""
    monkeypatch.setenv(PROGRAMS_FOLDER, str(tmp_path / "programs"))
    monkeypatch.setattr(stored_programs, "_surroundings", lambda: ("a test",))
    return tmp_path / "programs"


@pytest.fixture
def counted():
    """A function, and how often it was traced."""
    traced = []

    def scaled(two: Two, times: int, key, *, power: float, how=None):
        traced.append(power)
        noise = jax.random.uniform(jax.random.wrap_key_data(key), two.one.shape)
        value = (two.one + noise) ** power * times
        return {"value": value if how is None else how(value), "other": two.other}, jnp.sum(value)

    return scaled, traced


def arguments():
    key = jax.random.key_data(jax.random.key(3))
    return Two(jnp.linspace(0.1, 1, 7), None), 3, key


def in_another_process(function):
    """A program that knows nothing of what this process has traced."""
    return StoredProgram(function, ("power", "how"))


def test_another_process_runs_the_stored_program_without_tracing(folder, counted):
    function, traced = counted
    expected = jax.jit(function, static_argnames=("power", "how"))(*arguments(), power=1.5)
    traced.clear()
    for _ in range(2):
        (found, total) = in_another_process(function)(*arguments(), power=1.5)
        assert found["other"] is None
        np.testing.assert_array_equal(found["value"], expected[0]["value"])
        np.testing.assert_array_equal(total, expected[1])
    assert traced == [1.5] and len(list(folder.iterdir())) == 1


def test_what_decides_on_the_program_is_kept_apart(folder, counted, monkeypatch):
    function, traced = counted
    two, times, key = arguments()
    in_another_process(function)(two, times, key, power=1.5)
    in_another_process(function)(two, times, key, power=2.0)
    in_another_process(function)(Two(two.one[:5], None), times, key, power=2.0)
    in_another_process(function)(Two(two.one, two.one), times, key, power=2.0)
    in_another_process(function)(two, float(times), key, power=2.0)
    monkeypatch.setattr(stored_programs, "_surroundings", lambda: ("another version",))
    in_another_process(function)(two, times, key, power=1.5)
    assert len(traced) == 6 == len(list(folder.iterdir()))


def test_a_function_as_argument_is_known_by_its_name_on_disk_alone(folder, counted):
    function, traced = counted
    plain, named = (lambda x: 2 * x), (lambda x: 2 * x)
    in_another_process(function)(*arguments(), power=1.0, how=plain)
    assert not folder.exists()  # it may hold numbers that no key knows
    named.stored_as = "twice"  # pyright: ignore[reportFunctionMemberAccess]
    for _ in range(2):
        in_another_process(function)(*arguments(), power=1.0, how=named)
    assert len(traced) == 2 and len(list(folder.iterdir())) == 1


def test_a_damaged_file_is_made_again_and_a_closed_folder_keeps_nothing(
    folder, counted, tmp_path, monkeypatch
):
    function, traced = counted
    expected = in_another_process(function)(*arguments(), power=1.5)[1]
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-9], whole[:60] + b"x" + whole[61:]):
        path.write_bytes(damaged)
        assert in_another_process(function)(*arguments(), power=1.5)[1] == expected
        assert path.read_bytes()[:32] == whole[:32] or len(path.read_bytes()) == len(whole)
    assert len(traced) == 4
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(PROGRAMS_FOLDER, str(tmp_path / "file" / "below"))
    assert in_another_process(function)(*arguments(), power=1.5)[1] == expected


def test_load_gives_the_shapes_and_the_call_compiles_nothing_more(folder, counted, caplog):
    function, traced = counted
    program = in_another_process(function)
    shapes = program.load(*jax.eval_shape(arguments), power=1.5)
    assert shapes[0]["value"].shape == (7,) and shapes[1].dtype == jnp.float32
    two, times, key = arguments()
    given = two, jnp.int32(times), key
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        program(*given, power=1.5)
    assert not [r for r in caplog.records if "Finished XLA compilation" in r.message]
    assert len(traced) == 1


def test_inside_other_programs_and_without_a_folder_it_is_plain_jit(folder, monkeypatch):
    @stored_program(static_argnames=("power",))
    def raised(x, *, power):
        return x**power

    batch = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(jax.jit(lambda x: raised(x, power=2))(batch), batch**2)
    np.testing.assert_array_equal(jax.vmap(lambda x: raised(x, power=2))(batch), batch**2)
    assert not folder.exists()
    monkeypatch.delenv(PROGRAMS_FOLDER)
    np.testing.assert_array_equal(raised(batch, power=2), batch**2)
    assert raised.load(batch, power=2).shape == (2, 3) and not folder.exists()


def test_several_devices_and_changed_sources_are_other_surroundings(monkeypatch):
    stored_programs._surroundings.cache_clear()
    assert jax.device_count() > 1 and stored_programs._surroundings() is None
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    stored_programs._surroundings.cache_clear()
    found = stored_programs._surroundings()
    assert found is not None and jax.__version__ in found
    monkeypatch.setattr(
        stored_programs.Path, "read_bytes", lambda path: path.name.encode(), raising=True
    )
    stored_programs._surroundings.cache_clear()
    assert stored_programs._surroundings() != found
    stored_programs._surroundings.cache_clear()


def test_shapes_are_stored_too(folder):
    made = []

    def make():
        made.append(1)
        kernel = jax.ShapeDtypeStruct((3, 2), jnp.float32)
        return {"dense": {"kernel": kernel, "count": jax.ShapeDtypeStruct((), jnp.int32)}}

    first, again = (stored_shapes("parameters", (3, 2), make) for _ in range(2))
    assert made == [1] and first == again
    stored_shapes("parameters", (3, 4), make)
    assert made == [1, 1]
