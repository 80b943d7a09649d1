"""A small trust domain made afresh for a test: two producers, a pool, a stranger, and the bundle that binds them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from bridge.bundle import build_payload, build_roots, sign_payload
from bridge.core import Core
from bridge.crypto import KemPublicKey, SigningKey, VerifyKey
from bridge.envelope import Draft, Opener, Sealed, Sealer
from bridge.identity import Identity
from bridge.job import Content, Status
from bridge.policy import Backoff, Cloud, IdentityEntry, Policy, Queue, Role, TrustPolicy
from bridge.trust import Trust

SESSION = "0123456789abcdef01234567"

POLICY = Policy(
    bridge="acme",
    clouds={
        "aws": Cloud("aws", "hub", "tls://hub.test:4222", "tls://leaf.test:7422"),
        "azure": Cloud("azure", "leaf", "tls://azure.test:4222"),
    },
    identities={
        "relay": IdentityEntry("relay", "aws"),
        "other": IdentityEntry("other", "aws"),
        "bunny": IdentityEntry("bunny", "azure"),
        "stranger": IdentityEntry("stranger", "azure"),
        "azure-link": IdentityEntry("azure-link", "azure", Role.LINK),
    },
    queues={
        "thumbs": Queue(
            "thumbs", ("relay", "other"), "bunny", ("resize", "probe"), home="aws", work="azure", backoff=Backoff()
        )
    },
    trust=TrustPolicy(threshold=1, expires_ms=3_600_000),
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class World:
    """Identities by name, and their trust bundle."""

    identities: dict[str, Identity] = field(
        default_factory=lambda: {
            name: Identity.generate(name, link=entry.role is Role.LINK) for name, entry in POLICY.identities.items()
        }
    )
    roots: list[SigningKey] = field(default_factory=lambda: [SigningKey.generate()])
    now: int = field(default_factory=now_ms)

    def payload(self, version: int = 1, issued: int | None = None) -> bytes:
        keys = {name: identity.public() for name, identity in self.identities.items()}
        return build_payload(POLICY, keys, version, self.now if issued is None else issued)

    def roots_json(self, threshold: int = 1) -> bytes:
        return build_roots("acme", threshold, [VerifyKey(key.public) for key in self.roots])

    def trust(self, version: int = 1) -> Trust:
        return Trust.verify(sign_payload(self.payload(version), self.roots), self.roots_json(), self.now)

    def sealer(self, name: str) -> Sealer:
        return Sealer(self.identities[name])

    def opener(self, name: str) -> Opener:
        return Opener(self.identities[name], self.trust())

    def job(self, body: bytes = b'{"width":320}', sender: str = "relay", recipient: str = "bunny", n: int = 1) -> Draft:
        core = self._core("job", f"{SESSION}.{n}", sender, recipient, priority="normal")
        return Draft(core, (self._kem(recipient),), Content("application/json", body))

    def result(
        self, job: Sealed, body: bytes = b'{"ok":true}', sender: str = "bunny", recipient: str | None = None
    ) -> Draft:
        recipient = recipient or job.core.sender
        core = self._core("result", job.core.job, sender, recipient, job_digest=job.digest, attempt=1, worker="pod-1")
        return Draft(core, (self._kem(recipient),), Content("application/json", body), Status.SUCCEEDED)

    def start(self, job: Sealed, attempt: int = 2) -> Draft:
        about = job.core
        return Draft(
            self._core(
                "start", about.job, "bunny", about.sender, job_digest=job.digest, attempt=attempt, worker="pod-1"
            )
        )

    def _core(self, type_: str, job: str, sender: str, recipient: str, **more: Any) -> Core:  # noqa: ANN401  fields of Core
        return Core(
            type=type_,
            queue="thumbs",
            kind="resize",
            job=job,
            generation=0,
            sender=sender,
            sender_kid=b"",
            recipient=recipient,
            issued=self.now,
            expires=self.now + 60_000,
            **more,
        )

    def _kem(self, name: str) -> KemPublicKey:
        return KemPublicKey(self.identities[name].kem[-1].public)
