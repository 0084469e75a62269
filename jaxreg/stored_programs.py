"""Programs that are kept on disk as they were traced: a new process need not trace them again.

JAX's own cache keeps what was compiled, and finds it again by tracing the function and lowering it,
which keeps Python busy for seconds in each process. A `StoredProgram` keeps the lowered program
(`jax.export`) too, under the shapes of its arguments and what else decides on it: the source of
jaxreg, the versions of the libraries, the settings of JAX. What is compiled stays in JAX's cache.

Programs are stored where `runtime.prepare` says, by environment variable, and only for one CPU
device. Everywhere else a `StoredProgram` is what `jax.jit` makes of its function. The folder is the
user's, as JAX's own cache is. A file holds a program of XLA and names and shapes, no Python: so a
stored function returns arrays in tuples, lists and dictionaries alone.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from jaxreg.runtime import PROGRAMS_FOLDER

_NUMBERS = {bool: np.bool_, int: np.int32, float: np.float32}
"""The types of Python's numbers as arguments."""
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


class _Ready(NamedTuple):
    """A compiled program of flat arguments, and the shapes of its results."""

    compiled: Any
    shapes: Any


class StoredProgram:
    """`jax.jit` of a function whose programs are kept on disk.

    Arrays are positional arguments, static ones are given by name. A static argument is known on
    disk by its `repr`, a function by its attribute `stored_as`; where it has none, nothing is
    stored.
    """

    def __init__(self, function: Callable[..., Any], static_argnames: tuple[str, ...] = ()):
        """Nothing is traced before the first call."""
        self._plain, self._name = function, f"{function.__module__}.{function.__qualname__}"
        self._jitted = jax.jit(function, static_argnames=static_argnames)
        self._ready: dict[Hashable, _Ready] = {}

    def __call__(self, *args: Any, **static: Any) -> Any:
        """What the function returns."""
        key = self._key(args, static)
        if key is None:
            return self._jitted(*args, **static)
        ready = self._program(key, args, static)
        values = (_NUMBERS.get(type(leaf), _same)(leaf) for leaf in jax.tree.leaves(args))
        return ready.compiled(*values)

    def load(self, *args: Any, **static: Any) -> Any:
        """Make the program ready for arguments of these shapes; returns the shapes of the results.

        It is compiled, or fetched from JAX's cache.
        """
        key = self._key(args, static)
        if key is None:
            lowered = self._jitted.lower(*args, **static)
            lowered.compile()
            return lowered.out_info
        return self._program(key, args, static).shapes

    def _key(self, args: Any, static: dict[str, Any]) -> Hashable:
        """What decides on the program beside `_surroundings`; None where it is not to be stored."""
        if not os.environ.get(PROGRAMS_FOLDER) or _surroundings() is None:
            return None
        leaves, tree = jax.tree.flatten(args)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):  # pyright: ignore
            return None
        names = tuple((name, _text(static[name])) for name in sorted(static))
        if any(text is None for _, text in names):
            return None
        return str(tree), tuple((s.shape, str(s.dtype)) for s in map(_shape, leaves)), names

    def _program(self, key: Hashable, args: Any, static: dict[str, Any]) -> _Ready:
        if key not in self._ready:
            path = _path(self._name, key)
            self._ready[key] = _ready(_read(path) or self._made(path, args, static))
        return self._ready[key]

    def _made(self, path: Path, args: Any, static: dict[str, Any]) -> bytes:
        leaves, tree = jax.tree.flatten(args)

        def flat(*values):
            return self._plain(*jax.tree.unflatten(tree, values), **static)

        program = bytes(export.export(jax.jit(flat))(*map(_shape, leaves)).serialize())
        _write(path, program)
        return program


def stored_program(*, static_argnames: tuple[str, ...] = ()) -> Callable[..., StoredProgram]:
    """The decorator that makes a `StoredProgram` of a function."""
    return functools.partial(StoredProgram, static_argnames=static_argnames)


def stored_shapes(name: str, key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` returns: shapes and types in nested dictionaries, on which `key` decides."""
    if not os.environ.get(PROGRAMS_FOLDER) or _surroundings() is None:
        return make()
    path = _path(name, key)
    content = _read(path)
    if content is not None:
        return _shapes_of(json.loads(content))
    shapes = make()
    _write(path, json.dumps(_described(shapes)).encode())
    return shapes


def _described(shapes: Any) -> Any:
    """Nested dictionaries of [type, sizes] in the place of shapes."""
    if isinstance(shapes, dict):
        return {name: _described(part) for name, part in shapes.items()}
    return [str(shapes.dtype), list(shapes.shape)]


def _shapes_of(described: Any) -> Any:
    """What `_described` described."""
    if isinstance(described, dict):
        return {name: _shapes_of(part) for name, part in described.items()}
    kind, sizes = described
    return jax.ShapeDtypeStruct(tuple(sizes), kind)


def _path(name: str, key: Hashable) -> Path:
    whole = repr((name, key, _surroundings())).encode()
    return Path(os.environ[PROGRAMS_FOLDER]) / hashlib.sha256(whole).hexdigest()


def _ready(content: bytes) -> _Ready:
    program = export.deserialize(bytearray(content))
    wanted, shapes = (
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
        for avals in (program.in_avals, program.out_avals)
    )
    compiled = jax.jit(program.call).lower(*wanted).compile()
    return _Ready(compiled, jax.tree.unflatten(program.out_tree, shapes))


def _text(value: Any) -> str | None:
    """How a static argument is known on disk."""
    return getattr(value, "stored_as", None) if callable(value) else repr(value)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of an argument."""
    number = _NUMBERS.get(type(leaf))
    if number is not None:
        return jax.ShapeDtypeStruct((), number)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _same(leaf: Any) -> Any:
    return leaf


@functools.cache
def _surroundings() -> tuple[str, ...] | None:
    """What else decides on a program; None where programs are not stored."""
    if jax.default_backend() != "cpu" or jax.device_count() != 1:
        return None
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    if not sources:  # a package in an archive
        return None
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    settings = {k: v for k, v in jax.config.values.items() if "cache" not in k}
    return digest.hexdigest(), *versions, repr(sorted(settings.items()))


def _read(path: Path) -> bytes | None:
    """What was stored; None where the file is not there, or damaged."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    checksum, content = whole[:32], whole[32:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole; where none can be written, nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(file.name, path)
    except OSError:
        return
