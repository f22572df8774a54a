"""Stand-ins for the heavy third-party packages while the arguments of a verb are read.

The options of a verb grow from the settings dataclasses that lie beside the code they configure, and importing that
code imports torch, scipy, Lance and more, which takes seconds. Printing help or refusing a misspelt option needs the
dataclasses alone. While `heavy_packages_replaced` is active, a finder at the head of `sys.meta_path` therefore answers
for the heavy packages with modules whose attributes are harmless classes: they can be subclassed, subscripted, called
and used as decorators or annotations, and nothing of the package runs but definitions. Sphinx's `autodoc_mock_imports`
works the same way. Afterwards all modules of mcss that saw a stand-in are forgotten, so that the verb itself is
imported with the real packages.

Defaults, choices (`Literal`) and checks (`__post_init__`) of settings must not depend on a heavy package, since the
user would be shown a stand-in. tests/cli/test_help.py compares the help of every verb with the one that the real
packages give.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

HEAVY = {
    "PIL", "anny", "av", "cv2", "faiss", "h5py", "jinja2", "lance", "lancedb", "lightning", "lightning_fabric",
    "matplotlib", "numba", "pandas", "pyarrow", "safetensors", "scipy", "sklearn", "timm", "torch", "torchvision",
}  # fmt: skip
"""Packages that are replaced. NumPy is not among them: it loads fast, and tables at module level are made of it."""


class _StandInType(type):
    """Makes every attribute of a stand-in another stand-in."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __iter__(cls) -> Any:  # or `__getitem__` would yield without end
        raise TypeError("a package that is not loaded for --help cannot be iterated over at module level")

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "_is_stand_in" not in cls.__dict__:  # a class of mcss that inherits from one
            return super().__call__(*args, **kwargs)
        if len(args) == 1 and isinstance(args[0], FunctionType | type) and not kwargs:
            return args[0]  # used as a decorator
        return cls


def _stand_in(name: str) -> Any:
    return _StandInType(name, (), {"_is_stand_in": True})


class _StandInModule(ModuleType):
    """A module that has every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = _stand_in(name)
        setattr(self, name, attribute)  # the same class every time
        return attribute


class _StandInFinder(MetaPathFinder, Loader):
    """Answers imports of the heavy packages and of everything in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        heavy = fullname.split(".")[0] in HEAVY
        return ModuleSpec(fullname, self, is_package=True) if heavy else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def heavy_packages_replaced() -> Iterator[None]:
    """Replace the heavy packages, and forget on leaving what was imported with the replacements."""
    finder, before = _StandInFinder(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.split(".")[0] in HEAVY | {"mcss"}:
                _forget(name)


def _forget(name: str) -> None:
    parent, _, attribute = name.rpartition(".")
    module = sys.modules.pop(name)
    if parent in sys.modules and vars(sys.modules[parent]).get(attribute) is module:
        delattr(sys.modules[parent], attribute)


def heavy_packages_are_loaded() -> bool:
    """Whether stand-ins would save nothing, as within a program that uses the real packages already."""
    return "torch" in sys.modules
