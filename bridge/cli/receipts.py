"""``bunny receipts``: the signed receipts about a queue's jobs, taken from both clouds, looked at and verified."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge import bundle, receipt
from bridge.audit import Account, Run, gather, take, verify
from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, PolicyFile, example, group, run
from bridge.cli.out import Out, moment, when
from bridge.cli.queue import Inspectors, check, tell_missing
from bridge.cli.queuestate import Clouds, ask, inspectors
from bridge.cli.where import BRIDGE_FOLDER, find_policy
from bridge.clock import now_ms
from bridge.errors import BadReceipts, ConfigurationError, TransportError, UsageError
from bridge.files import read_file
from bridge.identity import ROOTS_FILE, TRUST_FILE, Connection
from bridge.jetstream import JetStreamTransport
from bridge.policy.hints import nearest
from bridge.policy.quantities import spell_size
from bridge.receipt import Event
from bridge.subjects import is_name, parse_decimal
from bridge.trust import Trust

AT_ONCE: Final = 32
"""Pages asked for at once: of 1 MiB together, or one."""
TIMEOUT_S: Final = 30.0
LIMIT: Final = 100
"""Runs that are listed where nothing is said."""
MAX_LEN: Final = 1024**3
"""Bytes of receipts that are looked at together: all of it is held, some 3 million receipts."""
LEAST: Final = 256
"""Bytes that any line counts as: no page has fewer, and what is said of a line that is none takes room as well."""


def register(app: typer.Typer) -> None:
    """Add the group."""
    receipts = group("Look at signed receipts, and verify them offline.")
    receipts.command("export", epilog=example("bunny receipts export thumbnails --out receipts.jsonl"))(export)
    receipts.command("show", epilog=example("bunny receipts show thumbnails", "bunny receipts show receipts.jsonl"))(
        show
    )
    receipts.command(
        "verify",
        epilog=example(
            "bunny receipts verify receipts.jsonl --bundle trust.json",
            "bunny receipts verify aws.jsonl azure.jsonl --bundle trust.json --bundle old/trust.json --json",
        ),
    )(verify_)
    app.add_typer(receipts, name="receipts")


def export(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    file: Annotated[Path, typer.Option("--out", help="The file to write: a page of receipts on each line.")],
    cloud: Annotated[str | None, typer.Option(help="Of one cloud.", show_default="every cloud")] = None,
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Copy the receipts of a queue, as they are stored, into a file that can be verified offline.

    They are kept for 90 days, and no longer taken where their room is full. An inspector sees its own cloud alone: of
    two teams each exports its own, and files are verified together.
    """
    out = Out(as_json)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as aside:
        whole = Path(aside, "receipts")
        with whole.open("wb") as writing:
            taken = _Taken(queue, lambda _, page: writing.write(page))
            clouds = taken.run(identity, folder, cloud)
        if not clouds.failed:  # half of it is not to take the place of what was exported before
            whole.replace(file)
    counts = dict(sorted(taken.counts.items()))
    for name, count in counts.items():
        out.say(f"{name}: {count:,} pages")
    out.say(f"{file} is left as it was" if clouds.failed else f"wrote {file}", "bold")
    tell_missing(out, clouds)
    out.result({"queue": queue, "file": str(file), "pages": counts, "unknown": clouds.missing})
    check(clouds)


def show(
    what: Annotated[list[str], typer.Argument(metavar="QUEUE|FILE...", help="A queue, or exported files.")],
    job: Annotated[str | None, typer.Option(help="One job's id, SESSION.N.", show_default="every job")] = None,
    limit: Annotated[int, typer.Option(help="How many runs at most, the newest.", min=1)] = LIMIT,
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what receipts say of each job: who sent what to whom, when, and what came of it. Nothing is verified."""
    out, account, clouds, lines = Out(as_json), Account(), None, _Lines()
    if len(what) == 1 and is_name(what[0]) and not Path(what[0]).is_file():
        clouds = _Taken(what[0], lines.add).run(identity, folder, None)
    else:
        lines.read(map(Path, what))
    gather(take(lines.found, account), account)
    runs = [each for each in account.runs.values() if job in (None, each.id.job)]
    runs.sort(key=_begun, reverse=True)
    _table(out, runs[:limit])
    for each in account.problems:
        out.say(each, "bold red")
    if len(runs) > limit:
        out.say(f"{len(runs) - limit:,} more, older: --limit {len(runs)}", "yellow")
    out.say("not verified: see `bunny receipts verify`")
    if clouds is not None:
        tell_missing(out, clouds)
    unknown = clouds.missing if clouds is not None else {}
    out.result({"runs": [_as_json(each) for each in runs[:limit]], "unreadable": account.problems, "unknown": unknown})
    if clouds is not None:
        check(clouds)
    if account.problems:
        raise NotAsAsked(BadReceipts(f"lines that are no pages of receipts: {len(account.problems)}"))


def verify_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What was exported, of both clouds.")],
    bundles: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="A trust bundle; older ones too, for what was signed with keys of then.",
            show_default="trust.json beside the policy",
        ),
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option("--roots", help="The roots of all bundles.", show_default="roots.json beside each"),
    ] = None,
    running: Annotated[bool, typer.Option("--running", help="Take no end of a session for one that goes on.")] = False,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Verify receipts offline: signatures, chains, and that the receipts of each job agree. Says what is missing.

    A producer or worker that still runs has not ended its session yet: with --running that is nothing missing. Jobs
    under way are, until they are done.
    """
    out = Out(as_json)
    trusted = [_bundle(each, roots) for each in bundles or [_default(policy)]]
    lines = _Lines()
    lines.read(files)
    account = verify(lines.found, trusted, now_ms())
    problems = [*account.problems, *([] if running else account.unended)]
    for line in problems:
        out.say(line, "bold red")
    for line in [*account.notes, *(account.unended if running else [])]:
        out.say(line, "yellow")
    whole = ", whole" if account.pages and not problems else ""
    counts = {
        "pages": account.pages,
        "receipts": account.receipts,
        "sessions": len(account.chains),
        "runs": len(account.runs),
    }
    out.say(", ".join(f"{count:,} {what}" for what, count in counts.items()) + whole, "green" if whole else "bold")
    out.result(
        {
            **counts,
            "whole": account.pages > 0 and not problems,
            "problems": account.problems,
            "not_ended": account.unended,
            "notes": account.notes,
            "bundles": [each.version for each in trusted],
        }
    )
    if problems:
        much = "1 thing is" if len(problems) == 1 else f"{len(problems):,} things are"
        raise NotAsAsked(BadReceipts(f"not whole: {much} missing or wrong"))
    if not account.pages:
        raise NotAsAsked(BadReceipts("no receipts: nothing is proven"))


class _Taken:
    """The pages of a queue, read.

    Args:
        queue: The queue.
        sink: Given each page, on a line of its own, and where it stands.
    """

    def __init__(self, queue: str, sink: Callable[[str, bytes], object]) -> None:
        self._queue, self._sink = queue, sink
        self.counts: dict[str, int] = {}
        """How many there are, by cloud."""

    def run(self, identity: Sequence[Path] | None, bridge: Path | None, cloud: str | None) -> Clouds:
        """Read them, of one cloud or of each that has an inspector here.

        Raises:
            ConfigurationError: There is no such queue or cloud, or the queue leaves no receipts.
        """
        of_cloud = {Connection.load(folder).cloud: folder for folder in inspectors(identity, bridge)}
        if cloud is not None and cloud not in of_cloud:
            raise ConfigurationError(f"no inspector of cloud {cloud!r} here; {nearest(cloud, of_cloud)}")
        clouds = run(ask([folder for name, folder in of_cloud.items() if cloud in (None, name)], self._look))
        settings = clouds.settings.get(self._queue)
        if settings is None:
            raise ConfigurationError(f"no queue {self._queue!r}; {nearest(self._queue, clouds.settings)}")
        if not settings.receipts:
            raise ConfigurationError(f"queue {self._queue!r} leaves no receipts; say receipts: on in bridge.yaml")
        if cloud is not None:  # the others were not asked for
            clouds.settings = {}
        return clouds

    async def _look(self, _: Clouds, transport: JetStreamTransport, connection: Connection) -> None:
        settings = connection.queues.get(self._queue)
        if settings is None or not settings.receipts:
            return
        cloud, after = connection.cloud, 0
        stream, pattern = receipt.receipts_stream(self._queue), receipt.any_page(self._queue)
        self.counts[cloud] = 0
        while messages := await transport.read(stream, pattern, first=after + 1, most=AT_ONCE, timeout=TIMEOUT_S):
            for message in messages:
                sequence = parse_decimal(message.headers.get("Nats-Sequence", ""))
                if sequence is None or sequence <= after:  # a broker that repeats itself is not asked for ever
                    raise TransportError(f"{stream}: a direct get answered with what was not asked for")
                after = sequence
                self.counts[cloud] += 1
                self._sink(f"{cloud}:{self.counts[cloud]}", _one_line(message.data))


def _one_line(page: bytes) -> bytes:
    """A page on a line of its own, whatever somebody stored in its place."""
    return b" ".join(page.split(b"\n")).rstrip() + b"\n"


class _Lines:
    """Pages that are looked at together, up to `MAX_LEN`, and where each stands."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bytes]] = []
        self._left = MAX_LEN

    def add(self, where: str, line: bytes) -> None:
        """Take one more.

        Raises:
            UsageError: There are too many.
        """
        self._left -= max(len(line), LEAST)
        if self._left < 0:
            most = f"{spell_size(MAX_LEN)} of receipts, or {MAX_LEN // LEAST:,} lines"
            raise UsageError(f"{where}: more than {most}; look at fewer at once")
        if line := line.rstrip(b"\n"):
            self.found.append((where, line))

    def read(self, files: Iterable[Path]) -> None:
        """Take those of files, one on each line.

        Raises:
            ConfigurationError: One cannot be read.
            UsageError: There are too many.
        """
        for file in files:
            try:
                with file.open("rb") as reading:
                    lines = iter(lambda: reading.readline(self._left + 1), b"")
                    for n, line in enumerate(lines, 1):
                        self.add(f"{file}:{n}", line)
            except OSError as error:
                raise ConfigurationError(f"{file}: cannot be read ({error.strerror})") from None


def _default(policy: Path | None) -> Path:
    """The bundle beside the policy, or that of the bridge that runs there."""
    beside = find_policy(policy).parent
    found = beside / TRUST_FILE
    return found if found.is_file() else beside / BRIDGE_FOLDER / TRUST_FILE


def _bundle(file: Path, roots: Path | None) -> Trust:
    """A bundle that its roots signed, whether or not it has expired: it says what held when it was good."""
    file = file / TRUST_FILE if file.is_dir() else file
    signed, public = read_file(file), read_file(roots or file.parent / ROOTS_FILE)
    issued = bundle.read_payload(signed).get("issued")
    if type(issued) is not int:
        issued = now_ms()  # and what is wrong with it is said
    return Trust.verify(signed, public, issued)


def _begun(each: Run) -> int:
    return min(said.receipt.time for of in each.said.values() for said in of)


def _table(out: Out, runs: Sequence[Run]) -> None:
    rows = []
    for each in runs:
        told = [when(found[0].time) if (found := each.of(event)) else "-" for event in _COLUMNS]
        again = f" ({each.id.generation})" if each.id.generation else ""
        job = f"{each.id.queue} {each.kind} {each.id.job}{again}"
        attempts = max((said.attempt for said in each.of(Event.FINISHED)), default=0)
        ended = f"{each.outcome or '-'}" + (f", {attempts} attempts" if attempts > 1 else "")
        rows.append((job, f"{each.id.producer} > {each.workers}", *told, ended))
    out.table(("job", "from > to", *(event.value for event in _COLUMNS), "outcome"), rows)


_COLUMNS: Final = (Event.SUBMITTED, Event.ACCEPTED, Event.FINISHED, Event.RECEIVED)


def _as_json(each: Run) -> dict[str, Any]:
    return {
        **each.id._asdict(),
        "digest": each.id.digest.hex(),
        "kind": each.kind,
        "workers": each.workers,
        "outcome": each.outcome or None,
        "results": sorted(digest.hex() for digest in each.results),
        "receipts": [
            {
                "event": said.receipt.event,
                "by": said.chain.signer,
                "session": said.chain.session,
                "time": moment(said.receipt.time).isoformat(timespec="milliseconds"),
                "attempt": said.receipt.attempt or None,
                "outcome": said.receipt.outcome or None,
            }
            for event in _COLUMNS
            for said in islice(each.said.get(event, ()), 100)
        ],
    }
