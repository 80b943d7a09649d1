"""Trials: the tests of a module, run against one mutant of it each time, in a process that was forked for it.

Importing and collecting takes longer than most tests, so mutants share it: pytest collects once, and each fork
exchanges the code of one function, wherever it is held. What a module runs or makes when it is imported cannot be
exchanged: such a mutant is imported, and its tests collected, in a fork of a process that knows nothing of ours yet.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Final, NamedTuple, NoReturn

import pytest

from tests.mutate.changes import Change, changed
from tests.mutate.forks import Outcome, apart

TEST_S: Final = 20
"""Seconds that a test may take at a mutant, with ten times what it takes without: who takes longer never ends."""
TIMES: Final = 10
WHOLE_S: Final = 240
"""The same of all tests of a mutant that has to be imported."""
UNRUN: Final = "it is to be imported"
"""Said of a mutant in a function that runs when modules are imported, or was made by one that did, and of one whose
code needs another closure than the function has: that of ``super()``, for one."""
OPTIONS: Final = ("-q", "--assert=plain", "-p", "no:cacheprovider", "--hypothesis-profile=mutate")


class Seen(NamedTuple):
    """What a test did with the module as it is."""

    seconds: float
    functions: frozenset[str]
    """The functions of the module that ran in it, or while its file's tests were set up."""


class Trials:
    """A plugin of pytest that tries mutants of one module in place of running its tests once.

    Args:
        path: The module.
        wanted: What is to be tried, of what can be exchanged.
        hints: The test that killed a mutant before, by its function and what it is.
        at_once: How many at a time.
        told: Is given each outcome.
    """

    def __init__(
        self,
        path: Path,
        wanted: Sequence[Change],
        hints: dict[tuple[str, str], str],
        at_once: int,
        told: Callable[[Change, Outcome], None],
    ) -> None:
        self._path, self._wanted, self._hints, self._at_once, self._told = path, wanted, hints, at_once, told
        self._killers = Counter[str]()
        self._source = path.read_text()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            _fail(session, "its tests cannot be collected")
        tests = self._as_it_is(session)
        items = {item.nodeid: item for item in session.items}
        live = _functions(self._path)

        def trials() -> Iterator[tuple[Change, Callable[[], str | None]]]:
            for change in self._wanted:
                chosen = [(items[name], tests[name]) for name in self._order(change, tests)]
                exchanged = self._exchanged(change, live)
                if chosen and all(each.__code__.co_freevars == code.co_freevars for each, code in exchanged):
                    yield change, partial(self._try, session, exchanged, chosen)
                else:
                    self._told(change, Outcome(False, UNRUN))

        for change, outcome in apart(trials(), self._at_once):
            self._killers[outcome.by] += 1
            self._told(change, outcome)
        return True

    def _order(self, change: Change, tests: dict[str, Seen]) -> list[str]:
        """The tests that run the function: the one that killed it before, then those that killed most, or are quick."""
        hint = self._hints.get((change.function, change.what))
        running = [name for name, test in tests.items() if change.code in test.functions]
        return sorted(running, key=lambda name: (name != hint, -self._killers[name], tests[name].seconds))

    def _exchanged(
        self, change: Change, live: dict[tuple[str, int], list[FunctionType]]
    ) -> list[tuple[FunctionType, CodeType]]:
        """Functions that there are, and the code that each gets."""
        codes = _codes(compile(changed(self._source, change), str(self._path), "exec"))
        mine = [code for code in codes if code.co_qualname == change.code]
        return [(each, code) for code in mine for each in live.get((code.co_qualname, code.co_firstlineno), ())]

    def _try(
        self,
        session: pytest.Session,
        exchanged: list[tuple[FunctionType, CodeType]],
        chosen: list[tuple[pytest.Item, Seen]],
    ) -> str | None:
        """In the fork: the test that fails."""
        for function, code in exchanged:
            function.__code__ = code
        following = [*(item for item, _ in chosen[1:]), None]
        for (item, test), after in zip(chosen, following, strict=False):
            signal.setitimer(signal.ITIMER_REAL, TEST_S + TIMES * test.seconds)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return item.nodeid
        return None

    def _as_it_is(self, session: pytest.Session) -> dict[str, Seen]:
        """Run every test once, without a mutant, and see what it runs.

        Raises:
            pytest.Session.Failed: One of them fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            seen = Path(folder) / "seen"
            ((_, outcome),) = apart([(None, partial(_look, session, str(self._path), seen))], 1)
            if outcome.killed or not seen.is_file():
                _fail(session, f"its tests fail as it is: {outcome.by}")
            return {
                name: Seen(seconds, frozenset(ran)) for name, (seconds, ran) in json.loads(seen.read_text()).items()
            }


class _Watch:
    """A plugin that sees which functions of a file run, where tests are set up and elsewhere."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.setting_up, self.running = set[str](), set[str]()
        self._seen = self.running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self._seen = self.setting_up

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        self._seen = self.running

    def see(self, frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename == self._path:
            self._seen.add(frame.f_code.co_qualname)


def _look(session: pytest.Session, path: str, seen: Path) -> str | None:
    """In the fork: the test that fails; else what each does is written down."""
    times, ran, shared = dict[str, float](), dict[str, set[str]](), dict[Path, set[str]]()
    for item, after in zip(session.items, [*session.items[1:], None], strict=True):
        watch = _Watch(path)
        session.config.pluginmanager.register(watch)
        threading.setprofile(watch.see)
        sys.setprofile(watch.see)
        began = time.monotonic()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        sys.setprofile(None)
        session.config.pluginmanager.unregister(watch)
        if session.testsfailed:
            return item.nodeid
        times[item.nodeid], ran[item.nodeid] = time.monotonic() - began, watch.running
        shared.setdefault(item.path, set()).update(watch.setting_up)
    found = {item.nodeid: (times[item.nodeid], sorted(ran[item.nodeid] | shared[item.path])) for item in session.items}
    seen.write_text(json.dumps(found))
    return None


def _fail(session: pytest.Session, why: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    raise session.Failed(why)


def _functions(path: Path) -> dict[tuple[str, int], list[FunctionType]]:
    """The functions of a module that there are, decorated ones too, by name and first line."""
    found = dict[tuple[str, int], list[FunctionType]]()
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
            found.setdefault((each.__code__.co_qualname, each.__code__.co_firstlineno), []).append(each)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


class _Import(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads a mutant in its module's place."""

    def __init__(self, name: str, path: Path, change: Change) -> None:
        self._name, self._path, self._change = name, path, change

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self, origin=str(self._path)) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        tree = changed(self._path.read_text(), self._change)
        exec(compile(tree, str(self._path), "exec"), module.__dict__)  # noqa: S102  # the module itself, as it would be


class _First:
    """A plugin that notes the first test that fails."""

    name: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid


def imported(name: str, path: Path, change: Change, files: Sequence[Path]) -> str | None:
    """In a fork that has imported nothing of ours: import a mutant, and run tests; the one that fails."""
    sys.meta_path.insert(0, _Import(name, path, change))
    signal.setitimer(signal.ITIMER_REAL, WHOLE_S)
    first = _First()
    code = pytest.main([*OPTIONS, "-x", *map(str, files)], plugins=[first])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        raise RuntimeError(f"pytest ended with code {code}")
    return None if code is pytest.ExitCode.OK else first.name or "it cannot be imported"
