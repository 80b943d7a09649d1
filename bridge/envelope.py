"""Seal and open: bytes to bytes, authenticated before anything private is used. No I/O.

An envelope, as ``docs/spec.md`` has it in full (integers big-endian)::

    RB1\\0 | core_len u16 | core | n u8 | n x (kid 32 | wrap 1168) | ct_len u64 | ct_sha256 32 | signature block | ct
    signature block: kid 32 | tree size u64 | index u8 | path 32 x (as RFC 9162 derives) | Ed25519 64

Seal, then sign: one signature covers core, wraps and the ciphertext's digest, so a receiver refuses a forgery without
touching a private key. The signature is over the root of a Merkle tree, so that it may cover up to 256 messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from bridge import crypto, prelude
from bridge import frame as frames
from bridge.core import Core
from bridge.crypto import MAX_TREE, Derivation, KemKey, KemPublicKey, SigningKey
from bridge.errors import BadSignature, WrongRecipient
from bridge.frame import MAX_RECIPIENTS
from bridge.identity import Identity
from bridge.job import Content, Status
from bridge.keyring import Keyring
from bridge.packing import Packing
from bridge.payload import Manifest, PartOpener
from bridge.trust import Trust
from bridge.values import value

WRAP_MAX_AGE_MS: Final = 300_000
WRAP_MAX_USES: Final = 1 << 20
CACHE_ENTRIES: Final = 4096
"""Bound of each cache: a sender's wraps, an opener's secrets and its verified roots."""

_BATCH_LABEL: Final = b"bunny-bridge/v1/batch\0"
_WRAP_LABEL: Final = b"bunny-bridge/v1/wrap\0"
_BODY_LABEL: Final = b"bunny-bridge/v1/body\0"
_NOTHING: Final = Content("application/octet-stream", b"")
_NO_WRAPS: Final = frames.wrapping(())

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@value(frozen=True, slots=True)
class Sealed:
    """A message ready to be sent."""

    core: Core
    data: bytes = field(repr=False)
    digest: bytes
    """SHA-256 of everything before the signature block: what a result names its job by."""


@value(frozen=True, slots=True)
class Authenticated:
    """A message whose author, authority and integrity are known, and whose content is still sealed."""

    core: Core
    digest: bytes
    wraps: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    head_digest: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@value(frozen=True, slots=True)
class Opened:
    """A message's content."""

    core: Core
    digest: bytes
    content: Content
    status: Status | None
    """Results only."""
    payload: PartOpener | None = None
    """Opens what travels in parts; where the body is empty, that is the content itself."""


@dataclass(slots=True)
class Wrap:
    """A secret and what holds it for each recipient. Made by a `Sealer`."""

    wrap_id: bytes
    keys: Derivation = field(repr=False)
    kids: tuple[bytes, ...]
    """The recipients'."""
    wrapping: bytes = field(repr=False)
    """As it is sent."""
    key: SigningKey
    """Of its sender: the parts are bound to it, so it signs whatever is sealed under the secret."""
    born_ms: int
    uses: int = 0

    @property
    def secret(self) -> bytes:
        """What the keys of one message's parts are derived of as well."""
        return self.keys.secret


@value(frozen=True, slots=True)
class Draft:
    """What is to be sealed: ``core`` without ``sender_kid`` and ``wrap_id``, which the sealer adds."""

    core: Core
    recipients: tuple[KemPublicKey, ...] = ()
    """1 to 8 keys to seal to; none for a start."""
    content: Content | None = None
    status: Status | None = None
    wrap: Wrap | None = None
    """Of a message whose payload was sealed before it, under the secret of this: `Sealer.wrap` made it."""
    packing: Packing | None = None
    """How its body is packed."""
    payload: Manifest | None = None
    """What it has in parts."""

    def naming(self, payload: Manifest, wrap: Wrap) -> Draft:
        """The same, naming a payload that was sealed under the wrap's secret."""
        core = replace(self.core, transfer=payload.transfer, index=payload.index, length=payload.length)
        return replace(self, core=core, wrap=wrap, payload=payload)


# --- sealing ---------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Unsigned:
    """A message that is sealed and not yet signed."""

    core: Core
    """As it is sent."""
    head: bytes = field(repr=False)
    """Every byte before the signature block."""
    digest: bytes
    """SHA-256 of them."""
    ciphertext: bytes = field(repr=False)
    key: SigningKey
    """What its core says that it is signed with."""


class Sealer:
    """Seals and signs for one identity; not for use by several threads at once.

    A wrap is used again for the same recipients for 5 minutes or 2^20 messages, so that the KEM's cost is paid per
    wrap and not per message.

    Args:
        keys: The identity, or the keyring that holds it: its last signing key signs.
    """

    def __init__(self, keys: Identity | Keyring) -> None:
        self._ring = Keyring.of(keys)
        self._ring.identity.sign[-1]  # an identity that cannot sign is no use here
        self._wraps: OrderedDict[tuple[bytes, ...], Wrap] = OrderedDict()

    def seal(self, draft: Draft, now_ms: int) -> Sealed:
        """Seal one message, signed alone.

        Raises:
            PayloadTooLarge: The content is larger than what travels inline.
            BadFrame: A field of the core is not what the specification allows.
        """
        return self.seal_batch([draft], now_ms)[0]

    def seal_batch(self, drafts: Sequence[Draft], now_ms: int) -> list[Sealed]:
        """Seal up to 256 messages under one signature; each can be verified without the others.

        Raises:
            PayloadTooLarge, BadFrame: As `seal`; then none is sealed.
            ValueError: None, or more than 256 messages.
        """
        return self.sign([self.close(draft, now_ms) for draft in drafts])

    def sign(self, messages: Sequence[Unsigned]) -> list[Sealed]:
        """Put up to 256 messages of `close` under one signature; one for each key, where it was replaced in between.

        Raises:
            ValueError: None, or more than 256 messages.
        """
        if not 0 < len(messages) <= MAX_TREE:
            raise ValueError(f"a batch has 1 to {MAX_TREE} messages")
        key = messages[0].key
        if any(each.key is not key for each in messages):
            return [sealed for each in messages for sealed in self.sign([each])]
        kid, size = key.kid, len(messages)
        root, paths = crypto.merkle_tree([crypto.leaf_hash(each.head) for each in messages])
        signature = key.sign(_batch_message(kid, size, root))
        return [
            Sealed(
                each.core,
                frames.signed(each.head, kid, size, index, path, signature, each.ciphertext),
                each.digest,
            )
            for index, (each, path) in enumerate(zip(messages, paths, strict=True))
        ]

    def close(self, draft: Draft, now_ms: int) -> Unsigned:
        """Seal one message, for `sign`.

        Raises:
            PayloadTooLarge, BadFrame: As `seal`.
        """
        if not draft.recipients:
            signer = self._ring.identity.sign[-1]
            core = draft.core.signed_by(signer.kid, b"")
            head = frames.head(core, _NO_WRAPS) + frames.closing(b"")
            return Unsigned(core, head, crypto.sha256(head), b"", signer)
        if draft.wrap is None:
            wrap = self._used(draft.recipients, now_ms)
        else:
            wrap = self._current(draft.wrap, draft.recipients, now_ms)
        core = draft.core.signed_by(wrap.key.kid, wrap.wrap_id)
        content = draft.content or _NOTHING
        body = prelude.write(core, content, draft.status, draft.packing, draft.payload)
        before = frames.head(core, wrap.wrapping)
        hashing = crypto.hashing(before)
        key = wrap.keys.key(_BODY_LABEL + hashing.digest())
        ciphertext = crypto.seal_body(key, _context(core), body)
        closing = frames.closing(ciphertext)
        hashing.update(closing)
        return Unsigned(core, before + closing, hashing.digest(), ciphertext, wrap.key)

    def wrap(self, recipients: tuple[KemPublicKey, ...], now_ms: int) -> Wrap:
        """A secret for one message whose payload is sealed first, which may take longer than a wrap lasts."""
        return self._wrapped(Derivation(crypto.random_bytes(32)), recipients, now_ms)

    def _wrapped(self, secret: Derivation, recipients: tuple[KemPublicKey, ...], now_ms: int) -> Wrap:
        kids = {key.kid for key in recipients}
        if not recipients or len(recipients) > MAX_RECIPIENTS or len(kids) != len(recipients):
            raise ValueError(f"a message has 1 to {MAX_RECIPIENTS} different recipient keys")
        signer, wrap_id = self._ring.identity.sign[-1], crypto.random_bytes(16)
        wraps = [(key.kid, key.wrap(secret.secret, _wrap_info(signer.kid, key.kid, wrap_id))) for key in recipients]
        return Wrap(wrap_id, secret, tuple(kid for kid, _ in wraps), frames.wrapping(wraps), signer, now_ms)

    def _current(self, wrap: Wrap, recipients: tuple[KemPublicKey, ...], now_ms: int) -> Wrap:
        """A wrap of the same secret under the keys of now: those that it was made under may be dropped by then.

        What looks whether a key is still needed sees what is stored, and no message that is to name a payload later.
        """
        made = (wrap.key.kid, *wrap.kids)
        if made == (self._ring.identity.sign[-1].kid, *[key.kid for key in recipients]):
            return wrap
        return self._wrapped(wrap.keys, recipients, now_ms)

    def _used(self, recipients: tuple[KemPublicKey, ...], now_ms: int) -> Wrap:
        kids = (self._ring.identity.sign[-1].kid, *[key.kid for key in recipients])
        wrap = self._wraps.get(kids)
        if wrap is None or wrap.uses >= WRAP_MAX_USES or not 0 <= now_ms - wrap.born_ms < WRAP_MAX_AGE_MS:
            wrap = self.wrap(recipients, now_ms)
            _remember(self._wraps, kids, wrap)
        wrap.uses += 1
        return wrap


# --- opening ---------------------------------------------------------------------------------------


class Opener:
    """Authenticates and opens for one identity under one trust bundle. Not for use by several threads at once.

    Args:
        keys: The identity, or the keyring that holds it.
        trust: The bundle.
    """

    def __init__(self, keys: Identity | Keyring, trust: Trust) -> None:
        self.ring = Keyring.of(keys)
        self._name = self.ring.identity.name
        # Keyed by the wrap itself too: a wrap_id alone could be answered with another wrap's secret.
        self._secrets: OrderedDict[tuple[bytes, bytes, bytes, bytes], Derivation] = OrderedDict()
        self._roots: OrderedDict[tuple[bytes, int, bytes, bytes], bool] = OrderedDict()
        self._trust = trust

    @property
    def trust(self) -> Trust:
        """The bundle that decides; setting another forgets every verified root."""
        return self._trust

    @trust.setter
    def trust(self, trust: Trust) -> None:
        self._trust = trust
        self._roots.clear()

    def check_mine(self, now_ms: int) -> None:
        """Check that others take what this identity signs.

        Raises:
            BundleExpired: The trust bundle is no longer valid.
            IdentityRevoked: It has not, or no longer, the key that this identity signs with.
        """
        sign = self.ring.identity.sign  # who only looks at messages has no key
        self._trust.check_mine(self._name, sign[-1].kid if sign else b"", now_ms)

    def authenticate(self, data: bytes, now_ms: int) -> Authenticated:
        """Check framing, author, signature, ciphertext digest and authority. No private key is used.

        A job's times are checked apart, with `bridge.core.check_time`, since what follows from them differs.

        Raises:
            BundleExpired: The trust bundle is no longer valid; says nothing about the message.
            BadFrame, UnknownVersion, UnknownKey, BadSignature, NotAuthorised
        """
        self._trust.check(now_ms)
        frame = frames.parse(data)
        core = frame.core
        peer, key = self._trust.signer(frame.kid, now_ms)
        if core.sender_kid != frame.kid or core.sender != peer.name:
            raise BadSignature("the core names another author than the key that signed it")
        root = crypto.root_of(crypto.leaf_hash(frame.head), frame.index, frame.size, frame.path)
        seen = (frame.kid, frame.size, root, frame.signature)
        # Only the Ed25519 call is skipped for a root seen before; trust is looked up for each message.
        if seen not in self._roots:
            if not key.verify(frame.signature, _batch_message(frame.kid, frame.size, root)):
                raise BadSignature("the signature does not verify")
            _remember(self._roots, seen, True)
        if crypto.sha256(frame.ciphertext) != frame.ciphertext_digest:
            raise BadSignature("the ciphertext is not the one that was signed")
        self._trust.authorise(core.type, core.queue, core.kind, core.sender, core.recipient, core.producer or None)
        return Authenticated(core, frame.digest, frame.wraps, frame.before_digest, bytes(frame.ciphertext))

    def open(self, message: Authenticated) -> Opened:
        """Unwrap the secret, open the body, check the prelude.

        Raises:
            WrongRecipient: It is addressed to another, or sealed to none of this identity's keys.
            BadSeal, BadPrelude, BadPacking
        """
        core = message.core
        if core.recipient != self._name:
            raise WrongRecipient(f"addressed to another principal than {self._name}")
        mine, wrap = self._mine(message.wraps)
        cached = (mine.kid, core.sender_kid, core.wrap_id, wrap)
        secret = self._secrets.get(cached)
        if secret is None:
            secret = Derivation(mine.unwrap(wrap, _wrap_info(core.sender_kid, mine.kid, core.wrap_id)))
            _remember(self._secrets, cached, secret)
        key = secret.key(_BODY_LABEL + message.head_digest)
        inside = prelude.read(core, crypto.open_body(key, _context(core), message.ciphertext))
        payload = PartOpener(secret.secret, inside.payload) if inside.payload is not None else None
        return Opened(core, message.digest, inside.content, inside.status, payload)

    def _mine(self, wraps: Sequence[tuple[bytes, bytes]]) -> tuple[KemKey, bytes]:
        keys = self.ring.identity.kem  # one, or two while one takes the other's place
        for kid, wrap in wraps:
            for key in keys:
                if key.kid == kid:
                    return key, wrap
        raise WrongRecipient(f"sealed to no key that {self._name} has")


def _batch_message(kid: bytes, size: int, root: bytes) -> bytes:
    return b"".join((_BATCH_LABEL, kid, size.to_bytes(8), root))


def _wrap_info(sender_kid: bytes, recipient_kid: bytes, wrap_id: bytes) -> bytes:
    return b"".join((_WRAP_LABEL, sender_kid, recipient_kid, wrap_id))


def _context(core: Core) -> bytes:
    # A distinct context per type: a result's ciphertext never opens as a job's.
    return f"bunny-bridge/v1/{core.type}".encode()


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    if len(cache) > CACHE_ENTRIES:
        cache.popitem(last=False)
