"""Which signals a process gives, from its parameters and its environment; each adapter is imported when asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from bridge.errors import ConfigurationError
from bridge.signals.listener import Page, listening
from bridge.signals.meter import NO_METER, Meter
from bridge.signals.probes import Probes, answer
from bridge.signals.traces import NO_TRACER, Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from bridge.signals.prometheus import PrometheusMeter

METRICS_ENVIRONMENT: Final = "BUNNY_METRICS"
"""``host:port`` where the metrics of a process are served; not set: nowhere."""
TRACES_ENVIRONMENT: Final = "BUNNY_TRACES"
"""``1``: send spans to the OpenTelemetry SDK that the program has configured."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signals:
    """Where a producer's or worker's measurements and spans go."""

    meter: Meter = NO_METER
    tracer: Tracer = NO_TRACER


OFF: Final = Signals()


@contextlib.asynccontextmanager
async def signalling(
    metrics: str | None, traces: TracerProvider | None, probes: Probes | None = None
) -> AsyncIterator[Signals]:
    """The signals of one producer or worker; metrics are served until the block ends.

    Args:
        metrics: ``host:port``; None reads ``BUNNY_METRICS``. Several that name one address share it.
        traces: A provider of OpenTelemetry; None reads ``BUNNY_TRACES``, which takes the global one.
        probes: What ``/livez`` and ``/readyz`` say at the same address; where several share it, of all of them.

    Raises:
        ConfigurationError: The extra is not installed, or the address cannot be listened on.
    """
    address = metrics or os.environ.get(METRICS_ENVIRONMENT)
    tracer = NO_TRACER
    if traces is not None or os.environ.get(TRACES_ENVIRONMENT, "") not in ("", "0"):
        tracer = _tracer(traces)
    if not address:
        yield Signals(NO_METER, tracer)
        return
    shared = _serving.get(address)
    if shared is None:
        shared = _serving[address] = _Shared(new_meter())
    async with shared.served(address, probes or Probes()):
        yield Signals(shared.meter, tracer)


def new_meter() -> PrometheusMeter:
    """A meter for Prometheus.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    _require("prometheus_client", "metrics")
    from bridge.signals.prometheus import PrometheusMeter

    return PrometheusMeter()


def metrics_page(meter: PrometheusMeter) -> Page:
    """What Prometheus reads."""
    from bridge.signals.prometheus import CONTENT_TYPE

    return Page(meter.text(), CONTENT_TYPE)


def _tracer(provider: TracerProvider | None) -> Tracer:
    _require("opentelemetry.trace", "tracing")
    from bridge.signals.otel import OtelTracer

    return OtelTracer(provider)


def _require(module: str, extra: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{extra}: {module} is not installed; install bunny-bridge[{extra}], or turn {extra} off"
        ) from None


class _Shared:
    """One address of this process, and how many use it: a program may have a producer and a worker."""

    def __init__(self, meter: PrometheusMeter) -> None:
        self.meter = meter
        self._users: list[Probes] = []
        self._stack = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def served(self, address: str, probes: Probes) -> AsyncIterator[None]:
        self._users.append(probes)
        try:
            if len(self._users) == 1:
                await self._stack.enter_async_context(listening(address, self._page))
                _log.info("metrics_served", reason=address)
            yield
        finally:
            self._users.remove(probes)
            if not self._users:
                _serving.pop(address, None)
                await self._stack.aclose()

    def _page(self, path: str) -> Page | None:
        return metrics_page(self.meter) if path == "/metrics" else answer(path, self._users)


_serving: Final[dict[str, _Shared]] = {}
"""By address: it is the process's, whoever in it listens."""
