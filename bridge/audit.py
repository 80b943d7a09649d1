"""What receipts come to: whether each chain is whole and each job's receipts agree, and what is missing. No I/O.

Whoever has the pages of both clouds needs nothing but the trust bundles to tell. What is wrong with them is said in
words, one line each, and nothing is left out: a page that does not verify is told, and counts for nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.errors import BadReceipts, NotAuthorised
from bridge.receipt import ENDS, NOTHING_BEFORE, OF_WORKERS, STATUSES, Event, Receipt, Signed, read
from bridge.trust import SKEW_MS, Trust

NO_RESULT = ("conflict", "poisoned")
"""Outcomes after which no result of a job's own comes."""
OTHERS = ("answered", "repeated")
"""Outcomes of a delivery whose job had its result already: whoever did it has left receipts of it."""


class ChainId(NamedTuple):
    """Whose receipts these are."""

    queue: str
    signer: str
    session: str

    def __str__(self) -> str:
        return f"{self.signer} on {self.queue}, session {self.session}"


class RunId(NamedTuple):
    """One run of the bytes of a job."""

    queue: str
    producer: str
    job: str
    generation: int
    digest: bytes

    def __str__(self) -> str:
        again = f" (generation {self.generation})" if self.generation else ""
        return f"{self.queue} {self.producer} {self.job}{again}"


class Said(NamedTuple):
    """A receipt, and whose chain it stands in."""

    chain: ChainId
    receipt: Receipt


@dataclass(slots=True)
class Run:
    """What the two sides say of one run."""

    id: RunId
    said: dict[Event, list[Said]] = field(default_factory=lambda: defaultdict(list))

    def of(self, event: Event) -> list[Receipt]:
        """What is said to have happened, in the order in which it did."""
        return sorted((said.receipt for said in self.said.get(event, ())), key=lambda each: each.time)

    @property
    def kind(self) -> str:
        """The job's kind."""
        return next(said.receipt.kind for each in self.said.values() for said in each)

    @property
    def workers(self) -> str:
        """Who was to do it, or did."""
        theirs = [said.chain.signer for event in OF_WORKERS for said in self.said.get(event, ())]
        ours = [each.peer for each in (*self.of(Event.SUBMITTED), *self.of(Event.RECEIVED))]
        return (theirs + ours)[0]

    @property
    def results(self) -> set[bytes]:
        """The results that are named: of a run that is whole, one."""
        return {each.result for event in (Event.FINISHED, Event.RECEIVED) for each in self.of(event) if each.result}

    @property
    def outcome(self) -> str:
        """How it ended, as the last that knows says; empty where nobody does."""
        ended = [each.outcome for each in self.of(Event.FINISHED) if each.result or each.outcome in NO_RESULT]
        told = [each.outcome for each in self.of(Event.RECEIVED)]
        words = [*(word for word in ended if word not in OTHERS), *told, *ended]
        return words[0] if words else ""


@dataclass(slots=True)
class Account:
    """What was found."""

    pages: int = 0
    receipts: int = 0
    chains: dict[ChainId, list[Signed]] = field(default_factory=dict)
    runs: dict[RunId, Run] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What is missing or wrong."""
    unended: list[str] = field(default_factory=list)
    """Chains without a last receipt: they go on, were killed, or were cut short."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing, and no fault of the receipts."""


def take(lines: Iterable[tuple[str, bytes]], account: Account) -> list[tuple[str, Signed]]:
    """Read pages, each with where it stands; what is none is a problem."""
    found = []
    for where, line in lines:
        try:
            found.append((where, read(line)))
        except BadReceipts as error:
            account.problems.append(f"{where}: {error}")
    return found


def gather(pages: Iterable[tuple[str, Signed]], account: Account) -> None:
    """Sort pages into chains, and their receipts into runs. A page that stands in several files counts once."""
    seen: dict[tuple[ChainId, int], bytes] = {}
    for where, signed in pages:
        page = signed.page
        chain = ChainId(page.queue, page.signer, page.session)
        if (before := seen.get((chain, page.page))) is not None:
            if before != signed.digest:
                account.problems.append(f"{where}: another page {page.page} of {chain}")
            continue
        seen[chain, page.page] = signed.digest
        account.chains.setdefault(chain, []).append(signed)
        account.pages, account.receipts = account.pages + 1, account.receipts + len(page.receipts)
        for each in page.receipts:
            if each.event not in ENDS:
                producer = each.peer if each.event in OF_WORKERS else page.signer
                run = RunId(page.queue, producer, each.job, each.generation, each.digest)
                account.runs.setdefault(run, Run(run)).said[each.event].append(Said(chain, each))


def verify(lines: Iterable[tuple[str, bytes]], bundles: Sequence[Trust], now_ms: int) -> Account:
    """Check signatures, authority, chains and jobs.

    Args:
        lines: The pages of both clouds, each with where it stands, for words.
        bundles: Trust bundles that verified, the current one and those before it: a page counts if one of them has the
            key that signed it, not expired when it was signed, and grants what it says.
        now_ms: The time.
    """
    account = Account()
    good = []
    for where, signed in take(lines, account):
        if (problem := _untrusted(signed, bundles, now_ms)) is None:
            good.append((where, signed))
        else:
            account.problems.append(f"{where}: {problem}")
    gather(good, account)
    for chain, pages in sorted(account.chains.items()):
        _check_chain(chain, sorted(pages, key=lambda each: each.page.page), account)
    _check_runs(account)
    return account


# --- signatures ------------------------------------------------------------------------------------


def _untrusted(signed: Signed, bundles: Sequence[Trust], now_ms: int) -> str | None:
    """Why a page counts for nothing; None where it counts."""
    page = signed.page
    what = f"page {page.page} of {ChainId(page.queue, page.signer, page.session)}"
    if page.time > now_ms + SKEW_MS:
        return f"{what} is signed in the future"
    problem = "signed with a key that no bundle given has; name older ones too, with --bundle"
    for trust in bundles:
        owner, key, lifetime = trust.owner(signed.kid)
        if page.bridge != trust.bridge:
            problem = f"of another bridge, {page.bridge}"
        elif owner is None or key is None or lifetime is None:
            continue
        elif owner.name != page.signer:
            problem = f"signed with a key of {owner.name}"
        elif page.time > min(lifetime.not_after, trust.expires_ms):
            # Not before it was issued is no matter: it says whose the key is, and when it was used its holder says.
            problem = "signed after its key, or the bundle, had expired; name the one that followed, with --bundle"
        elif not signed.verifies(key):
            return f"{what}: the signature does not verify"
        elif (stranger := _not_granted(signed, trust)) is not None:
            problem = f"says of {stranger.kind} with {stranger.peer} what the trust bundle lets it have no part in"
        else:
            return None
    return f"{what}: {problem}"


def _not_granted(signed: Signed, trust: Trust) -> Receipt | None:
    """The first receipt about what its signer has no part in."""
    page = signed.page
    for each in page.receipts:
        if each.event in ENDS:
            continue
        pair = (each.peer, page.signer) if each.event in OF_WORKERS else (page.signer, each.peer)
        try:
            trust.authorise("job", page.queue, each.kind, *pair)
        except NotAuthorised:
            return each
    return None


# --- chains ----------------------------------------------------------------------------------------


def _check_chain(chain: ChainId, pages: Sequence[Signed], account: Account) -> None:
    """Name what is missing of a chain, and what does not follow."""
    number, following, previous = 0, 0, NOTHING_BEFORE
    for signed in pages:
        page = signed.page
        if page.page > following:
            lost = f"page {following}" if page.page == following + 1 else f"pages {following} to {page.page - 1}"
            if page.first > number:
                lost += f" with receipts {number} to {page.first - 1}"
            account.problems.append(f"{chain}: {lost} missing")
        elif page.previous != previous:
            account.problems.append(f"{chain}: page {page.page} does not follow the page before it")
        elif page.first > number:
            account.problems.append(
                f"{chain}: receipts {number} to {page.first - 1} were never stored: their signer had no room for them"
            )
        if page.first < number:
            account.problems.append(f"{chain}: page {page.page} counts receipts that the page before it has")
        _check_ends(chain, signed, signed is pages[-1], account)
        number, following, previous = page.last + 1, page.page + 1, signed.digest
    if pages[-1].page.receipts[-1].event is not Event.CLOSED:
        account.unended.append(f"{chain}: no end after receipt {number - 1}: it runs, was killed, or is cut short")


def _check_ends(chain: ChainId, signed: Signed, last: bool, account: Account) -> None:
    """A chain is opened by its first receipt and closed by its last, and by none between."""
    page = signed.page
    for number, each in enumerate(page.receipts, page.first):
        if (each.event is Event.OPENED) != (number == 0):
            how = "is opened again by" if number else "is not opened by"
            account.problems.append(f"{chain}: {how} receipt {number}")
        if each.event is Event.CLOSED and not (last and number == page.last):
            account.problems.append(f"{chain}: more follows receipt {number}, which closes it")


# --- jobs ------------------------------------------------------------------------------------------


def _check_runs(account: Account) -> None:
    submitted = {run.id._replace(generation=0) for run in account.runs.values() if run.of(Event.SUBMITTED)}
    ids = {id._replace(digest=b"") for id in account.runs if account.runs[id].of(Event.SUBMITTED)}
    done = {
        each.result
        for run in account.runs.values()
        for each in run.of(Event.FINISHED)
        if each.result and each.outcome in STATUSES
    }
    for run in account.runs.values():
        sent = bool(run.of(Event.SUBMITTED))
        replayed = run.id.generation > 0 and run.id._replace(generation=0) in submitted
        if not sent and not replayed:
            other = "; other bytes were submitted" if run.id._replace(digest=b"") in ids else ""
            account.problems.append(f"{run.id}: not submitted{other}")
        _check_work(run, done, account)
        _check_answer(run, sent, account)


def _check_work(run: Run, done: set[bytes], account: Account) -> None:
    """That somebody accepted it and said what it came to."""
    accepted, finished = run.of(Event.ACCEPTED), run.of(Event.FINISHED)
    begun = Counter(each.attempt for each in accepted)  # one that was put off is begun again
    ended = Counter(each.attempt for each in finished)
    for each in finished:
        if each.outcome in STATUSES and not each.result:
            account.problems.append(f"{run.id}: {each.outcome}, and no result is named")
        if each.outcome == "succeeded" and each.attempt not in begun:
            account.problems.append(f"{run.id}: attempt {each.attempt} succeeded and was not accepted")
        if each.outcome in OTHERS and each.result not in done:
            account.problems.append(f"{run.id}: {each.outcome}, and nobody says that it finished it so")
        if each.outcome == "poisoned":
            account.problems.append(f"{run.id}: poisoned: a result stands that nobody may have signed")
    if not any(each.result or each.outcome in NO_RESULT for each in finished):
        account.problems.append(f"{run.id}: {'accepted, and not finished' if accepted else 'not accepted'}")
    for attempt, open_ in sorted((begun - ended).items()):
        again = f" {open_} times" if open_ > 1 else ""
        account.notes.append(f"{run.id}: attempt {attempt} was begun{again}, and nothing says what it came to")


def _check_answer(run: Run, sent: bool, account: Account) -> None:
    """That the result has come home, and is the one that was sent."""
    received, ended = run.of(Event.RECEIVED), [each for each in run.of(Event.FINISHED) if each.result]
    if sent and ended and not received:
        account.problems.append(f"{run.id}: finished, and not received")
    if len(run.results) > 1:
        named = ", ".join(sorted(digest.hex()[:16] for digest in run.results))
        account.problems.append(f"{run.id}: receipts name {len(run.results)} results, {named}")
    words = {each.outcome for each in (*ended, *received) if each.outcome in STATUSES}
    if len(words) > 1:
        account.problems.append(f"{run.id}: receipts call it {' and '.join(sorted(words))}")
