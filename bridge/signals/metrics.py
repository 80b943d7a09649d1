"""Every metric of Bunny Bridge: its stable name, labels and meaning, as in ``docs/metrics.md``. No I/O.

Durations are seconds and sizes bytes. Labels take few values, all of them from the policy or from the code: a job's id,
a session or a text that somebody else chose is never one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)
"""Bounds of every histogram: from one look-up on a local server to the default deadline of a job."""


@dataclass(frozen=True, slots=True, eq=False)  # looked up by identity, at every measurement
class Metric:
    """One family of time series."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()


def _counter(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"bunny_{name}_total", "counter", about, labels)


def _gauge(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"bunny_{name}", "gauge", about, labels)


def _histogram(name: str, about: str, *labels: str) -> Metric:
    return Metric(f"bunny_{name}_seconds", "histogram", about, labels)


_JOB: Final = ("queue", "kind")

# --- producers -------------------------------------------------------------------------------------

SUBMITTED: Final = _counter("producer_jobs_submitted", "Jobs that the local server has stored", *_JOB)
NOT_SUBMITTED: Final = _counter("producer_jobs_refused", "Jobs not known to be stored, by error", *_JOB, "error")
SUBMITTED_BYTES: Final = _counter("producer_sealed_bytes", "Bytes of stored jobs, sealed", *_JOB)
SUBMIT: Final = _histogram("producer_submit", "From sealed to stored: the PubAck of the local server", *_JOB)
RESULTS: Final = _counter("producer_results", "Handles settled, by status of the result", *_JOB, "status")
ROUND_TRIP: Final = _histogram("producer_round_trip", "From sent by this process to its verified result", *_JOB)
RESULTS_REFUSED: Final = _counter("producer_results_refused", "Results that did not verify", "queue", "refusal")
HANDLES: Final = _gauge("producer_handles_open", "Handles that wait for a result")
INBOX_RESULTS: Final = _counter("producer_inbox_results", "Results given out by an inbox, by status", *_JOB, "status")
INBOX_HELD: Final = _gauge("producer_inbox_held", "Results that an inbox of this process holds, not acked", "queue")
KEPT: Final = _gauge("producer_jobs_kept", "Jobs kept to be sent again until they are answered")
KEPT_BYTES: Final = _gauge("producer_kept_bytes", "Bytes of these, sealed")
NOT_KEPT: Final = _counter("producer_jobs_not_kept", "Jobs that the outbox had no room for", *_JOB)
MISSING: Final = _counter("producer_jobs_missing", "Jobs found neither stored nor answered", *_JOB)
RESENT: Final = _counter("producer_jobs_resent", "Times that such a job was sent again", *_JOB)
ROLLED_BACK: Final = _counter("producer_streams_rolled_back", "PubAcks by a stream that had lost earlier ones", "queue")

# --- workers ---------------------------------------------------------------------------------------

SLOTS: Final = _gauge("worker_slots", "Jobs that may run at once")
IN_FLIGHT: Final = _gauge("worker_jobs_in_flight", "Jobs that run")
HELD: Final = _gauge("worker_deliveries_held", "Deliveries held: they run, or wait for a slot", "queue")
PULLS: Final = _counter("worker_pulls_answered", "Pull requests that the server served or ended in its time", "queue")
PULL_SILENCE: Final = _gauge("worker_pull_silence_seconds", "Since a server last answered a pull, the longest", "queue")
PULL_TROUBLE: Final = _counter("worker_pulls_interrupted", "Times that pulls had to be issued anew", "queue")
DELIVERIES: Final = _counter("worker_deliveries", "Messages delivered", "queue")
REDELIVERIES: Final = _counter("worker_redeliveries", "Of these, not for the first time", "queue")
REFUSED: Final = _counter("worker_refused", "Messages that failed authentication", "queue", "refusal")
QUEUE_TIME: Final = _histogram("worker_queue", "From issued by the producer to started, by both clocks", *_JOB)
RUN_TIME: Final = _histogram("worker_run", "What one attempt of a handler took", *_JOB)
OUTCOMES: Final = _counter("worker_outcomes", "Deliveries settled, by outcome", *_JOB, "outcome")
RETRIES: Final = _counter("worker_retries", "Attempts that failed and will be followed by another", *_JOB)
DEAD_LETTERS: Final = _counter("worker_dead_letters", "Jobs put aside as dead letters", *_JOB)
FENCE_HITS: Final = _counter("worker_fence_hits", "Deliveries whose job had its result already", "queue")
LOST_LEASES: Final = _counter("worker_lost_leases", "Deliveries held that another worker may have got", "queue")
RESULT_BYTES: Final = _counter("worker_result_bytes", "Bytes of stored results, sealed", *_JOB)
RECORDS: Final = _counter("worker_records", "Records stored while their job ran", *_JOB)
SEGMENTS: Final = _counter("worker_segments", "Segments that these were stored in", *_JOB)
SEGMENT_BYTES: Final = _counter("worker_segment_bytes", "Bytes of these, sealed", *_JOB)
RESTARTS: Final = _counter("worker_records_restarted", "Attempts that began a stream of records anew", *_JOB)
LEDGER_HITS: Final = _counter("worker_ledger_hits", "Deliveries whose job the ledger knows to be answered", "queue")
LEDGER_BYTES: Final = _gauge("worker_ledger_bytes", "Bytes that the ledger holds")
LEDGER_LIMIT: Final = _gauge("worker_ledger_bytes_limit", "Bytes that the ledger may hold")
LEDGER_REFUSES: Final = _gauge("worker_ledger_refuses", "Whether no work is taken for want of the ledger: 1, or 0")

# --- receipts --------------------------------------------------------------------------------------

RECEIPTS: Final = _counter("receipts_stored", "Receipts that the local server has stored", "queue")
RECEIPTS_LOST: Final = _counter("receipts_lost", "Receipts that there was no room or no time to store", "queue")

# --- agents ----------------------------------------------------------------------------------------
# `cloud` is where it was seen. `via` is `own` for what this agent saw, and `peer` for what the other cloud's told it.

_SEEN: Final = ("queue", "cloud", "via")

DEPTH: Final = _gauge("queue_jobs", "Jobs stored and not done, those in flight included", *_SEEN)
DEPTH_LIMIT: Final = _gauge("queue_jobs_limit", "What `max_pending` of the policy allows", *_SEEN)
DELAYED: Final = _gauge("queue_jobs_delayed", "Jobs stored for a later time, and not among `queue_jobs`", *_SEEN)
AT_WORK: Final = _gauge("queue_jobs_in_flight", "Jobs delivered to workers and not settled", *_SEEN)
REDELIVERED: Final = _gauge("queue_jobs_redelivered", "Of those in flight, delivered more than once", *_SEEN)
OLDEST: Final = _gauge("queue_oldest_seconds", "Age of the oldest job stored; 0 where there is none", *_SEEN)
WAITING_PULLS: Final = _gauge("queue_pulls_waiting", "Pull requests that wait for a job: who could work", *_SEEN)
QUEUE_BYTES: Final = _gauge("queue_bytes", "Bytes of the jobs stored", *_SEEN)
QUEUE_BYTES_LIMIT: Final = _gauge("queue_bytes_limit", "What `max_bytes` of the policy allows", *_SEEN)
STORED: Final = _counter("queue_jobs_stored", "Jobs ever stored", *_SEEN)
DONE: Final = _counter("queue_jobs_done", "Jobs ever settled for good", *_SEEN)
LAG: Final = _gauge("results_lag", "Results written in the other cloud and not yet copied home", *_SEEN)
SILENCE: Final = _gauge("results_silence_seconds", "Since the other cloud last sent results or a heartbeat", *_SEEN)
RESULTS_KEPT: Final = _gauge("results_kept", "Results that a cloud holds", *_SEEN)
DEAD: Final = _gauge("queue_dead_letters", "Dead letters kept", *_SEEN)
PUT_ASIDE: Final = _gauge("queue_refused_messages", "Messages kept that failed authentication", *_SEEN)

_INBOX: Final = ("queue", "cloud", "producer")
INBOX_UNREAD: Final = _gauge("inbox_unread", "Results in an inbox that are not acked", *_INBOX)
INBOX_OLDEST: Final = _gauge(
    "inbox_oldest_seconds", "Age of the oldest of them, at most; 0 where there is none", *_INBOX
)
INBOX_OLDEST_LIMIT: Final = _gauge(
    "inbox_oldest_limit_seconds", "What `result_ttl` of the policy allows: older ones are gone, unread", *_INBOX
)
PAYLOAD_BYTES: Final = _gauge("payload_bytes", "Bytes of the parts of payloads stored in a cloud", "queue", "cloud")
PAYLOAD_BYTES_LIMIT: Final = _gauge(
    "payload_bytes_limit", "What `payload_bytes` of the policy allows", "queue", "cloud"
)
WENT_BACK: Final = _counter(
    "stream_rollbacks", "Times that a stream had lost its latest messages", "queue", "stream", "cloud"
)
VANISHED: Final = _counter("queue_jobs_vanished", "Jobs that left their stream unsettled, at least", "queue", "cloud")
LOST_AT_HOME: Final = _gauge("results_lost", "Results of the other cloud that the copy here has lost", "queue", "cloud")
CANARY_AGE: Final = _gauge("canary_age_seconds", "Since a job last went the whole way and back", "queue", "cloud")
CANARY_TRIP: Final = _gauge("canary_round_trip_seconds", "What that took, submitting included", "queue", "cloud")
CANARY_FAILURES: Final = _counter("canary_failures", "Canaries not answered, by error", "queue", "cloud", "error")

LINK_UP: Final = _gauge("link_up", "Whether anything comes through the link: 1, or 0", "cloud", "peer")
LINK_ROUND_TRIP: Final = _gauge("link_round_trip_seconds", "To the other cloud's agent and back", "cloud", "peer")
PEER_UP: Final = _gauge("peer_up", "Whether the other cloud's agent is heard and believed: 1, or 0", "cloud", "peer")
PEER_AGE: Final = _gauge("peer_age_seconds", "Since it was last heard", "cloud", "peer")
PEER_CLOCK: Final = _gauge("peer_clock_seconds", "How far its clock is ahead of this one", "cloud", "peer")
PEER_REFUSED: Final = _counter("peer_reports_refused", "Reports not believed, by reason", "cloud", "peer", "reason")
POLICY: Final = _gauge("policy_info", "1, with the first 16 digits of its digest", "cloud", "via", "digest")
POLICY_MATCH: Final = _gauge("policy_match", "Whether both clouds run the same policy: 1, or 0", "cloud", "peer")
TRUST_VERSION: Final = _gauge("trust_version", "Version of the trust bundle", "cloud", "via")
TRUST_EXPIRY: Final = _gauge("trust_expiry_timestamp_seconds", "When the trust bundle expires", "cloud", "via")
CERTIFICATE_EXPIRY: Final = _gauge("certificate_expiry_timestamp_seconds", "When it expires", "cloud", "certificate")
AGENT_CONNECTED: Final = _gauge("agent_connected", "Whether this agent reaches its NATS server: 1, or 0", "cloud")
AGENT_FAILURES: Final = _counter("agent_look_failures", "Looks at a stream or consumer that got no answer", "cloud")

_TICKS: Final = ("schedule", "cloud")

LAST_TICK: Final = _gauge("schedule_last_tick_timestamp_seconds", "The newest tick that is submitted", *_TICKS)
NEXT_TICK: Final = _gauge("schedule_next_tick_timestamp_seconds", "The first tick that is not submitted yet", *_TICKS)
TICKS: Final = _counter("schedule_ticks", "Ticks that this agent is done with, by outcome", *_TICKS, "outcome")
TICK_FAILURES: Final = _counter("schedule_failures", "Submits that failed and are tried again", *_TICKS, "error")

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them."""
