"""Every exception of Bunny Bridge, split by who must act.

::

    BridgeError
    ├── UsageError            you: what was asked for cannot be done as asked
    │   ├── PolicyError         a line of bridge.yaml is wrong
    │   ├── ConfigurationError  an identity folder, a key file or an address is wrong or missing
    │   ├── PayloadTooLarge     arguments or a result above the queue's limit
    │   ├── InvalidArguments    arguments or a result that do not fit their type
    │   ├── KeyConflict         a key that was used for other arguments
    │   └── SpoolFull           no room on this machine's disk for a payload
    ├── TransportError        the operator: a broker, a link or a permission; trying again may help
    │   ├── NotConnected        no connection to the local NATS server
    │   │   └── IdentityRefused   the server goes on not to accept this identity: revoked, or not deployed
    │   ├── Denied              the server's permissions refuse a subject
    │   ├── PublishTimeout      no PubAck in time: the message may or may not be stored
    │   ├── QueueFull           the stream's limit is reached; nothing was stored
    │   │   └── OutboxFull        the producer's own outbox keeps no more; nothing was sent
    │   ├── PartMissing         a part of a payload is not where its author stored it
    │   └── SubjectTaken        the subject holds a message already: the fence
    ├── TrustError            the bridge's owners: the trust bundle cannot be relied on
    │   ├── BadBundle, BundleExpired, BundleRolledBack, BelowThreshold, RepeatedSigner, WeakKey
    │   ├── BadReport           of `bunny prove`: not signed by whom it speaks of, or not about this policy
    │   ├── BadReceipts         something is missing of the receipts about jobs, or contradicts something
    │   └── IdentityRevoked     it has not, or no longer, the key that this identity signs with
    ├── Refusal               the message's sender: a message that must not be acted on
    │   ├── BadFrame, UnknownVersion, UnknownKey, BadSignature, NotAuthorised, WrongSubject,
    │   └── WrongRecipient, Expired, FromTheFuture, BadSeal, BadPrelude, BadPacking, BadPart, BadSegment, IdReused
    └── JobError              the job's author: how a job ended
        ├── JobFailed           the handler failed for good; `type` and `message` are the worker's words
        ├── JobCancelled        a worker's signed word that it ended because the producer asked for it
        ├── DeadlineExceeded    a worker's signed word that the job was too late to run
        ├── StreamRestarted     a later attempt writes its records anew: those read so far are void
        ├── OutcomeUnknown      no result in time: the job may run, may have run, may yet answer
        └── FencePoisoned       a result stands for the job that does not verify

A message is one line that says what happened, where, and what to do next. It never holds a payload, a
key, or any text that the other side chose freely.
"""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """Base of every exception that Bunny Bridge raises on purpose."""

    exit_code: ClassVar[int] = 1
    """What a process that ends with it exits with."""


def told(error: BridgeError) -> str:
    """What a process that ends with it prints: a file that someone else wrote must neither drive the terminal nor begin
    a line of its own in our name."""
    lines = str(error).splitlines() or [type(error).__name__]
    shown = ["".join(char if char.isprintable() else "?" for char in line) for line in lines]
    return "bunny: " + "\n       ".join(shown)


# --- you -------------------------------------------------------------------------------------------


class UsageError(BridgeError):
    """What was asked for cannot be done as asked; change the request."""


class PolicyError(UsageError):
    """A line of ``bridge.yaml`` is wrong.

    Args:
        file: The file's path, as the user named it.
        line: Line number, from 1; 0 where the file as a whole is meant.
        problem: What is wrong.
        remedy: The nearest right thing, or the next step.
    """

    def __init__(self, file: str, line: int, problem: str, remedy: str = "") -> None:
        self.file, self.line, self.problem, self.remedy = file, line, problem, remedy
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {problem}" + (f"; {remedy}" if remedy else ""))


class ConfigurationError(UsageError):
    """An identity folder, a key file, a rendered file or an address is wrong or missing."""


class PayloadTooLarge(UsageError):
    """Arguments or a result are larger than the queue takes; nothing was sent."""


class InvalidArguments(UsageError):
    """A value does not fit the type it was declared with; it never will, so it is not retried."""


class KeyConflict(UsageError):
    """The key of a keyed job was used before, for another kind of job or for other arguments."""


class SpoolFull(UsageError):
    """This machine's disk has no room for a payload; it is on its author's side still."""


# --- the operator ----------------------------------------------------------------------------------


class TransportError(BridgeError):
    """A broker, the link or a permission stood in the way; trying again may help."""

    exit_code = 3


class NotConnected(TransportError):
    """There is no connection to the local NATS server."""


class IdentityRefused(NotConnected):
    """The local NATS server does not accept this identity, and has not for so long that this does not pass."""

    exit_code = 6


class Denied(TransportError):
    """The server's permissions refuse the subject to this identity."""


class PublishTimeout(TransportError):
    """No PubAck in time: the message may or may not be stored. Sending the same bytes again is safe."""


class QueueFull(TransportError):
    """The stream is at its limit (JetStream error 10077 or 10047); nothing was stored."""


class OutboxFull(QueueFull):
    """The producer's outbox on disk has no room for a job; nothing was sent."""


class PartMissing(TransportError):
    """A part of a payload is not where its author stored it: it is past its time, or its stream was emptied."""


class SubjectTaken(TransportError):
    """The subject holds a message already (10077, *maximum messages per subject exceeded*)."""


class SubjectChanged(TransportError):
    """The last message of the subject is another than was expected (10071); nothing was stored."""


# --- the bridge's owners ---------------------------------------------------------------------------


class TrustError(BridgeError):
    """The trust bundle cannot be relied on; nothing is accepted until it can."""

    exit_code = 4


class BadBundle(TrustError):
    """The bundle or the roots file is not what ``docs/spec.md`` describes."""


class BundleExpired(TrustError):
    """The bundle's expiry has passed: sign and deliver a new one."""


class BundleRolledBack(TrustError):
    """The bundle's version is below one that was accepted before, or below the pinned least version."""


class BelowThreshold(TrustError):
    """Fewer different root keys signed the bundle than the roots file asks for."""


class RepeatedSigner(TrustError):
    """One root key signed the bundle twice."""


class BadReport(TrustError):
    """A report of ``bunny prove`` that says nothing: not signed by whom it speaks of, or not about this policy."""


class BadReceipts(TrustError):
    """Receipts about jobs are not whole: something of them is missing, or is not what its signer wrote."""

    exit_code = 3


class WeakKey(TrustError):
    """A public key for which anyone can forge signatures (small order) or that is not canonical."""


class IdentityRevoked(TrustError):
    """The bundle has not, or no longer, the key that this identity signs with: nobody takes what it says."""

    exit_code = 6


# --- the message's sender --------------------------------------------------------------------------


class Refusal(BridgeError):
    """A message that must not be acted on. The class name is the reason that tools and metrics show."""

    exit_code = 4

    @property
    def name(self) -> str:
        """The refusal's name, stable across versions."""
        return type(self).__name__


class BadFrame(Refusal):
    """The bytes are not an envelope: wrong magic, length, field or order."""


class UnknownVersion(Refusal):
    """An envelope or core version that this release does not speak."""


class UnknownKey(Refusal):
    """Signed with, or sealed to, a key that is not in the trust bundle, not yet valid, or no longer valid."""


class BadSignature(Refusal):
    """The signature or its inclusion proof does not verify."""


class NotAuthorised(Refusal):
    """The trust bundle does not let this sender send this to this recipient."""


class WrongSubject(Refusal):
    """The subject that the message arrived on is not the one its signed core names."""


class WrongRecipient(Refusal):
    """The message is addressed to another principal, or sealed to none of this identity's keys."""


class Expired(Refusal):
    """The message's signed expiry has passed."""


class FromTheFuture(Refusal):
    """The message's signed time lies more than the allowed skew ahead: one of the clocks is wrong."""


class BadSeal(Refusal):
    """The wrap or the ciphertext does not open."""


class BadPrelude(Refusal):
    """The sealed prelude is malformed, or its length or digest is not the body's."""


class BadPacking(Refusal):
    """What is compressed or padded is not, byte for byte, of the length that its author signed."""


class BadPart(Refusal):
    """A part of a payload, or its index, is not the one that the message's author signed."""


class BadSegment(Refusal):
    """A segment of streamed records is not the one that follows, or the stream does not end as its result says."""


class IdReused(Refusal):
    """The job has the id of another one, whose bytes were begun or answered before."""


# --- the job's author ------------------------------------------------------------------------------


class JobError(BridgeError):
    """How a job ended, for the one who submitted it."""

    exit_code = 5


class JobFailed(JobError):
    """The handler failed for good.

    Args:
        type: The name of the exception at the worker.
        message: Its text, where the queue's policy has it told (``errors``), or what the handler chose to say.
        attempts: How many attempts were made, 0 where the job never started.
    """

    def __init__(self, type: str, message: str, attempts: int) -> None:
        self.type, self.message, self.attempts = type, message, attempts
        super().__init__(f"{type}: {message} (attempt {attempts})" if message else f"{type} (attempt {attempts})")


class JobCancelled(JobError):
    """A worker's signed word that the job was not done, or not to its end, because its producer asked for it.

    Args:
        reason: As it was given to `Handle.cancel`; empty if none was.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the job was cancelled: {reason}" if reason else "the job was cancelled")


class DeadlineExceeded(JobError):
    """A worker's signed word that the job's deadline passed before it could be done."""


class StreamRestarted(JobError):
    """A later attempt writes the records of the job anew: what was read of them before is void. Read them again."""


class OutcomeUnknown(JobError):
    """No result in time. The job may run, may have run, and its result is still delivered if it comes."""


class FencePoisoned(JobError):
    """A result stands for the job that does not verify: a forgery, or a worker that is no longer trusted."""
