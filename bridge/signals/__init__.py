"""What a process tells of itself: measurements for Prometheus, spans for OpenTelemetry; nothing unless asked.

``metrics`` is the table of every metric. ``meter`` and ``traces`` are what the code calls, and do nothing by
themselves; ``prometheus`` and ``otel`` are what listens, imported by ``bind`` when asked for. ``listener`` serves
pages.
"""

from bridge.signals.bind import OFF, Signals, signalling
from bridge.signals.traces import NO_SPAN, Operation, Span, about

__all__ = ["NO_SPAN", "OFF", "Operation", "Signals", "Span", "about", "signalling"]
