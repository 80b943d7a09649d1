"""Which handlers run in processes of their own, and where those find them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from bridge.errors import ConfigurationError

JOBS: Final = 100
"""Jobs that one process does: few enough that what a library leaks stays small, many enough that its start is cheap."""
LEAST_MEMORY: Final = 64 * 1024 * 1024
"""Below this Python itself does not start."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """A handler's own processes.

    Args:
        module: Where the function is.
        name: What it is called there.
        memory: Bytes of addresses that one process may use; None is no ceiling.
        jobs: Jobs that one process does before another takes its place.
    """

    module: str
    name: str
    memory: int | None
    jobs: int

    @classmethod
    def of(cls, function: Callable[..., Any], memory: int | None, jobs: int | None) -> Self:
        """What `Worker.handler` was told.

        Raises:
            ConfigurationError: Another process could not import the function, or a limit cannot be.
        """
        name, module = getattr(function, "__qualname__", ""), module_of(function)
        where = f"handler {name or repr(function)}: isolation='process'"
        if not name or "<" in name:
            raise ConfigurationError(f"{where} takes a function at the top level of a module, to be imported there")
        if module == "__main__" or not _findable(module):
            raise ConfigurationError(
                f"{where} takes a function of a module that can be imported, and {module} cannot; "
                "move it to a file of its own, or start this one as python -m MODULE"
            )
        if memory is not None and memory < LEAST_MEMORY:
            raise ConfigurationError(f"{where}: memory={memory}; say bytes, at least {LEAST_MEMORY}")
        if jobs is not None and jobs < 1:
            raise ConfigurationError(f"{where}: recycle={jobs}; say how many jobs one process does, at least 1")
        return cls(module, name, memory, JOBS if jobs is None else jobs)

    def check(self, function: Callable[..., Any]) -> None:
        """Check, once its module is there, that its name leads to the function.

        Raises:
            ConfigurationError: It leads elsewhere.
        """
        found: Any = sys.modules.get(self.module) or sys.modules.get("__main__")
        for part in self.name.split("."):
            found = getattr(found, part, None)
        if found is not function:
            raise ConfigurationError(
                f"handler {self.name}: isolation='process' imports it as {self.module}.{self.name}, which is something "
                "else; let @worker.handler be its first decorator, and its name its own"
            )


def module_of(thing: Any) -> str:
    """The name that another process would import the module of a function or class by."""
    module: str = getattr(thing, "__module__", None) or "__main__"
    if module != "__main__":
        return module
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`
    return spec.name if spec is not None else "__main__"


def names(kinds: tuple[type[BaseException], ...]) -> set[str]:
    """What another process calls these classes."""
    return {f"{module_of(kind)}.{kind.__qualname__}" for kind in kinds}


def _findable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
