"""The only place that builds and parses the names of subjects, streams and consumers. No I/O.

The table of all of them is in ``docs/spec.md``. A *name* (of an identity, a cloud, a queue or a kind) is
one NATS subject token that is also a file name and a Kubernetes label: lower-case letters, digits, ``-`` and
``_``, at most 63 characters, first and last a letter or digit.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
SESSION: Final = re.compile(r"[0-9a-f]{24}")
DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_GENERATION: Final = re.compile(r"\.".join(f"({each.pattern})" for each in (NAME, NAME, SESSION, DECIMAL, DECIMAL)))

PRIORITIES: Final = ("high", "normal", "low")
"""Priorities a job may have; each is a consumer of the queue's pool."""


class JobKey(NamedTuple):
    """What names one generation of one job: the variable tokens of all its subjects."""

    queue: str
    producer: str
    session: str
    n: int
    generation: int = 0

    @property
    def job_id(self) -> str:
        """``<session>.<n>``, as the signed core has it."""
        return f"{self.session}.{self.n}"


def is_name(text: str) -> bool:
    """Whether NATS, a file system and Kubernetes can all carry ``text`` as a name."""
    return NAME.fullmatch(text) is not None


# --- streams and consumers -------------------------------------------------------------------------


def jobs_stream(queue: str) -> str:
    """The work queue of jobs, in the producers' cloud."""
    return f"JOBS_{queue}"


def results_stream(queue: str) -> str:
    """The fence in the workers' cloud, and its copy in the producers' cloud."""
    return f"RESULTS_{queue}"


def starts_stream(queue: str) -> str:
    """Starts of redelivered jobs, in the workers' cloud."""
    return f"STARTS_{queue}"


def dead_stream(queue: str) -> str:
    """Authenticated jobs that could not be done, in the workers' cloud."""
    return f"DEAD_{queue}"


def refused_stream(queue: str) -> str:
    """What failed authentication, in the workers' cloud."""
    return f"REFUSED_{queue}"


def delayed_stream(queue: str) -> str:
    """The work queue of jobs with a time, in the producers' cloud."""
    return f"DELAYED_{queue}"


def control_stream(queue: str) -> str:
    """What producers ask of jobs under way, in the producers' cloud."""
    return f"CONTROL_{queue}"


def replay_stream(queue: str) -> str:
    """The work queue of replay orders, in the workers' cloud."""
    return f"REPLAY_{queue}"


def slots_stream(queue: str) -> str:
    """Who holds the limits of a queue, in the workers' cloud."""
    return f"SLOTS_{queue}"


def parts_stream(queue: str) -> str:
    """Parts of payloads, where their authors are: those of jobs in the producers' cloud, of results in the workers'."""
    return f"PARTS_{queue}"


def jobs_consumer(pool: str, priority: str) -> str:
    """The durable pull consumer of one priority."""
    return f"{pool}-{priority}"


HOME_CONSUMER: Final = "home"
"""The durable consumer through which a queue's results flow home."""


def inbox_consumer(producer: str) -> str:
    """The durable pull consumer of a producer's inbox, on the results that have come home."""
    return f"inbox-{producer}"


def home_subject(queue: str) -> str:
    """Where the results of a queue are delivered to be copied home (ADR-60 of NATS)."""
    return f"home.results.{queue}"


# --- subjects --------------------------------------------------------------------------------------


def job(key: JobKey, priority: str) -> str:
    """``jobs.<queue>.<priority>.<producer>.<session>.<n>``"""
    return f"jobs.{key.queue}.{priority}.{key.producer}.{key.session}.{key.n}"


def delayed(key: JobKey) -> str:
    """``delayed.<queue>.<producer>.<session>.<n>``"""
    return f"delayed.{key.queue}.{key.producer}.{key.session}.{key.n}"


def control(key: JobKey) -> str:
    """``control.<queue>.<producer>.<session>.<n>``"""
    return f"control.{key.queue}.{key.producer}.{key.session}.{key.n}"


def event(key: JobKey) -> str:
    """``events.<queue>.<producer>.<session>.<n>``, stored nowhere"""
    return f"events.{key.queue}.{key.producer}.{key.session}.{key.n}"


def replay(key: JobKey) -> str:
    """``replay.<queue>.<producer>.<session>.<n>.<generation>``"""
    return _generation("replay", key)


def part(key: JobKey, transfer: str, number: int) -> str:
    """``parts.<queue>.<producer>.<session>.<n>.<transfer>.<number>``"""
    return f"parts.{key.queue}.{key.producer}.{key.session}.{key.n}.{transfer}.{number}"


def of_job(key: JobKey, priority: str, later: bool) -> str:
    """Where a job is stored: among those of its priority, or among those with a time."""
    return delayed(key) if later else job(key, priority)


def result(key: JobKey) -> str:
    """``results.<queue>.<producer>.<session>.<n>.<generation>``"""
    return _generation("results", key)


def done(key: JobKey) -> str:
    """Where the copy of a result is republished in the producers' cloud."""
    return _generation("done", key)


def start(key: JobKey) -> str:
    """``starts.<queue>.<producer>.<session>.<n>.<generation>``"""
    return _generation("starts", key)


def dead(key: JobKey) -> str:
    """``dead.<queue>.<producer>.<session>.<n>.<generation>``"""
    return _generation("dead", key)


def refused(queue: str, random_hex: str) -> str:
    """``refused.<queue>.<24 random hex digits>``: nothing a forger wrote chooses where it is kept."""
    return f"refused.{queue}.{random_hex}"


def queue_slots(queue: str) -> str:
    """``slots.<queue>.all``: what the slots of a whole queue begin with."""
    return f"slots.{queue}.all"


def key_slots(queue: str, producer: str, concurrency_key: bytes) -> str:
    """``slots.<queue>.key.<producer>.<64 hex>``: what the slots of one key begin with."""
    return f"slots.{queue}.key.{producer}.{concurrency_key.hex()}"


def rate(queue: str) -> str:
    """``slots.<queue>.rate``: when the queue's next job may start."""
    return f"slots.{queue}.rate"


def server_clock(queue: str, random_hex: str) -> str:
    """``slots.<queue>.clock.<24 random hex digits>``: stored to learn what time it is for the server."""
    return f"slots.{queue}.clock.{random_hex}"


def done_of_session(queue: str, producer: str, session: str) -> str:
    """What a producer subscribes to for the results of one process."""
    return f"done.{queue}.{producer}.{session}.>"


def done_of_keyed(queue: str, producer: str) -> str:
    """What a producer subscribes to for the results of all its keyed jobs: their number is 0."""
    return f"done.{queue}.{producer}.*.0.*"


def done_of_producer(queue: str, producer: str) -> str:
    """Everything a producer may subscribe to for its results."""
    return f"done.{queue}.{producer}.>"


def stats(cloud: str, agent: str) -> str:
    """``stats.<cloud>.<agent>``: what an agent tells of its cloud."""
    return f"stats.{cloud}.{agent}"


def health(identity: str, process: str) -> str:
    """``health.<identity>.<random>``: what a process sends itself, in its identity's own account."""
    return f"health.{identity}.{process}"


def any_stats(cloud: str) -> str:
    """What any agent tells of a cloud."""
    return f"stats.{cloud}.*"


def inbox_prefix(identity: str) -> str:
    """The private inbox prefix of an identity, without a trailing dot."""
    return f"_INBOX_{identity}"


def parse_job(subject: str) -> tuple[JobKey, str] | None:
    """The key and priority that a ``jobs.…`` subject names, or None if it is not one."""
    match subject.split("."):
        case ["jobs", queue, priority, producer, session, n] if (
            priority in PRIORITIES and is_name(queue) and is_name(producer) and SESSION.fullmatch(session)
        ):
            number = parse_decimal(n)
            return (JobKey(queue, producer, session, number), priority) if number is not None else None
    return None


def parse_result(subject: str) -> JobKey | None:
    """The key that a ``results.…`` or ``done.…`` subject names, or None if it is neither."""
    return _parse_generation(subject, "results", "done")


def parse_dead(subject: str) -> JobKey | None:
    """The key that a ``dead.…`` subject names, or None if it is not one."""
    return _parse_generation(subject, "dead")


def _parse_generation(subject: str, *prefixes: str) -> JobKey | None:
    prefix, _, rest = subject.partition(".")
    found = _GENERATION.fullmatch(rest) if prefix in prefixes else None
    if found is None:
        return None
    queue, producer, session, n, generation = found.groups()
    return JobKey(queue, producer, session, int(n), int(generation))


def parse_decimal(text: str) -> int | None:
    """A decimal without sign or leading zeros, at most 16 digits; None otherwise."""
    return int(text) if DECIMAL.fullmatch(text) else None


def _generation(prefix: str, key: JobKey) -> str:
    return f"{prefix}.{key.queue}.{key.producer}.{key.session}.{key.n}.{key.generation}"


# --- subjects with wildcards, for streams, consumers and permissions ---------------------------------


def any_job(queue: str, priority: str = "*", producer: str = "*") -> str:
    """The jobs of a queue, of one priority and of one producer where given."""
    return f"jobs.{queue}.{priority}.{producer}.*.*"


def any_keyed_job(queue: str, producer: str) -> str:
    """The keyed jobs of a producer: of one priority, and their number is 0."""
    return f"jobs.{queue}.normal.{producer}.*.0"


def any_keyed_result(queue: str, producer: str) -> str:
    """The results of a producer's keyed jobs."""
    return f"results.{queue}.{producer}.*.0.*"


def any_result(queue: str, producer: str = "*") -> str:
    """The results of a queue, of one producer where given."""
    return f"results.{queue}.{producer}.*.*.*"


def any_start(queue: str) -> str:
    """The starts of a queue's redelivered jobs."""
    return f"starts.{queue}.*.*.*.*"


def any_dead(queue: str, producer: str = "*") -> str:
    """The dead letters of a queue, of one producer's jobs where given."""
    return f"dead.{queue}.{producer}.*.*.*"


def dead_of_job(key: JobKey) -> str:
    """The dead letters of all generations of a job."""
    return f"dead.{key.queue}.{key.producer}.{key.session}.{key.n}.*"


def any_refused(queue: str) -> str:
    """What a queue's workers refused."""
    return f"refused.{queue}.*"


def any_delayed(queue: str, producer: str = "*") -> str:
    """The jobs with a time of a queue, of one producer where given."""
    return f"delayed.{queue}.{producer}.*.*"


def any_control(queue: str, producer: str = "*") -> str:
    """What is asked of a queue's jobs, by one producer where given."""
    return f"control.{queue}.{producer}.*.*"


def any_event(queue: str, producer: str = "*") -> str:
    """The events of a queue's jobs, of one producer's where given."""
    return f"events.{queue}.{producer}.*.*"


def any_replay(queue: str) -> str:
    """The replay orders of a queue."""
    return f"replay.{queue}.*.*.*.*"


def any_slot(queue: str) -> str:
    """All that is stored about the limits of a queue."""
    return f"slots.{queue}.>"


def any_part(queue: str, producer: str = "*") -> str:
    """The parts of a queue's payloads, of one producer's jobs where given."""
    return f"parts.{queue}.{producer}.*.*.*.*"


def get_parts(queue: str, producer: str | None = None, cloud: str | None = None) -> str:
    """What asks for any of them by name, one at a time.

    It ends in ``>``, since nats-server 2.15.1 tells the other end of a link of no service of its own whose permitted
    subject has two ``*`` in a row.
    """
    return direct_get(parts_stream(queue), ".".join(("parts", queue, *([producer] if producer else []), ">")), cloud)


def done_template(queue: str) -> str:
    """`done` as the destination of a republish whose source is `any_result`."""
    return f"done.{queue}." + ".".join(f"{{{{wildcard({i})}}}}" for i in range(1, 5))


# --- JetStream API ---------------------------------------------------------------------------------


def api(cloud: str | None) -> str:
    """The JetStream API prefix of a cloud's domain; None is the local one."""
    return "$JS.API" if cloud is None else f"$JS.{cloud}.API"


def direct_get(stream: str, subject: str, cloud: str | None = None) -> str:
    """The request subject that answers with the last message of ``subject``."""
    return f"{api(cloud)}.DIRECT.GET.{stream}.{subject}"


def next_message(stream: str, consumer: str, cloud: str | None = None) -> str:
    """The request subject that pulls from a consumer."""
    return f"{api(cloud)}.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def api_call(call: str, *tokens: str, cloud: str | None = None) -> str:
    """Any other request subject, such as ``$JS.API.STREAM.INFO.<stream>``."""
    return ".".join((api(cloud), call, *tokens))


def acks(stream: str, consumer: str, cloud: str) -> tuple[str, str]:
    """Where deliveries of a consumer are settled: as servers name it now, and with ``js_ack_fc_v2``.

    Args:
        stream: The consumer's stream.
        consumer: The consumer.
        cloud: Where the stream is; the newer form begins with its domain and a hash of its account.
    """
    return f"$JS.ACK.{stream}.{consumer}.>", f"$JS.ACK.{cloud}.*.{stream}.{consumer}.>"


def flow_controls(stream: str, consumer: str, cloud: str) -> tuple[str, str]:
    """Where the receiver of a pushed stream confirms how far it came, in the same two forms."""
    return f"$JS.FC.{stream}.{consumer}.*", f"$JS.FC.{cloud}.*.{stream}.{consumer}.*"
