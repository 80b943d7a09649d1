"""Every trouble that is known by name: which check finds it, how bad it is, what it means and what to do. No I/O.

``docs/doctor.md`` shows each as it was made in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Check(StrEnum):
    """The steps of an examination, in order."""

    DNS = "DNS"
    ROUTE = "route"
    TCP = "TCP"
    TLS = "TLS"
    IDENTITY = "identity"
    PERMISSIONS = "permissions"
    LINK = "link"
    STREAMS = "streams"
    CLOCK = "clock"
    DISK = "disk"
    POLICY = "policy"


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """It works now, and will not for long, or not under load."""
    PROBLEM = "problem"
    """It does not work."""
    NOT_RUN = "not run"
    """Something earlier failed, or nothing at hand can see it."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A known trouble."""

    check: Check
    verdict: Verdict
    means: str
    do: str


_P, _W, _I = Verdict.PROBLEM, Verdict.WARNING, Verdict.INFO

CATALOGUE: Final[Mapping[str, Trap]] = {
    # --- DNS
    "missing-stub-zone": Trap(
        Check.DNS,
        _P,
        "the resolver knows no such name: its cloud does not forward the other cloud's private zone, and each try "
        "tells the private name to whoever it asked",
        "forward the zone to the peer cloud's private resolver (a stub zone in CoreDNS), or correct the name",
    ),
    "broken-stub-zone": Trap(
        Check.DNS,
        _P,
        "the resolver is there but gets no answer where it forwards the zone",
        "look at the resolver that the zone is forwarded to, and at the private network between (is the VPN up?)",
    ),
    "resolver-silent": Trap(
        Check.DNS,
        _P,
        "no resolver answers, so no name can be looked up; nats-server waits about 10 s before its first error",
        "check nameserver in resolv.conf, and that UDP port 53 to it is open from here",
    ),
    "search-path": Trap(
        Check.DNS,
        _W,
        "the name has fewer dots than ndots, so each domain of the search path is tried before it: every connect costs "
        "more queries and tells the private name to resolvers that have no need of it",
        "write the name with a trailing dot in bridge.yaml and render again, or set ndots: 2 in the pod's dnsConfig",
    ),
    "search-capture": Trap(
        Check.DNS,
        _P,
        "a domain of the search path answers for the name before the name itself is asked: connections go elsewhere",
        "write the name with a trailing dot in bridge.yaml and render again; have that answer removed",
    ),
    "trailing-dot": Trap(
        Check.DNS,
        _P,
        "the trailing dot makes the name complete, and complete it does not exist: it is short for a name of the "
        "search path",
        "write it out in full, or leave the dot away",
    ),
    # --- route, TCP
    "no-route": Trap(
        Check.ROUTE,
        _P,
        "this machine has no way to that address: nothing was sent",
        "check the peering, VPN or route table of this network, and that the address is the right one",
    ),
    "refused": Trap(
        Check.TCP,
        _P,
        "the machine is there and nothing listens on the port: the server is down, or listens elsewhere",
        "start the server (`bunny up` on one machine), or correct the address in bridge.yaml and render again",
    ),
    "filtered": Trap(
        Check.TCP,
        _P,
        "packets to the port vanish: a firewall, security group or network policy drops them, or the server hangs",
        "open the port from here (for the link only from the leaf), or look at the server",
    ),
    # --- TLS
    "port-held": Trap(
        Check.TLS,
        _P,
        "what listens there is no NATS server of ours: another process holds the port",
        "stop that process, or give the server another port",
    ),
    "info-in-clear": Trap(
        Check.TLS,
        _P,
        "the server tells its id, name and version before TLS, so handshake_first is off: services here refuse it, and "
        "one in the middle could strip TLS from others",
        "use the shipped nats/*.conf, whose listeners all have handshake_first: true, and restart the server",
    ),
    "tls-silent": Trap(
        Check.TLS,
        _P,
        "the port is open and nothing answers the TLS handshake: the server hangs, or what forwards to it has lost it",
        "look at the server's log and at the load balancer or proxy in front of it",
    ),
    "tls-refused": Trap(
        Check.TLS,
        _P,
        "the server ended the handshake: it does not speak TLS 1.3, or something between does not let it",
        "use the shipped nats/*.conf; no proxy between may end TLS",
    ),
    "other-ca": Trap(
        Check.TLS,
        _P,
        "the certificate is of an authority that is not trusted here: another bridge's, a renewed root that was not "
        "handed over, or an impostor",
        "compare the fingerprint of ca.pem with the server's owners, and deliver the right one",
    ),
    "wrong-name": Trap(
        Check.TLS,
        _P,
        "the certificate is good, but for other names than the one that is dialled",
        "issue one for this name (`bunny pki --renew --cloud CLOUD --host NAME`), or dial a name it has",
    ),
    "wrong-usage": Trap(
        Check.TLS,
        _P,
        "the certificate may not be used for this: listeners need serverAuth, the leaf's end of the link clientAuth",
        "issue it anew with the right extended key usage (`bunny pki --renew --cloud CLOUD`)",
    ),
    "certificate-expired": Trap(
        Check.TLS,
        _P,
        "the certificate's time is over; connections that stand go on, and none comes back once it breaks",
        "renew it (`bunny pki --renew --cloud CLOUD`) and send the server SIGHUP",
    ),
    "certificate-expiring": Trap(
        Check.TLS,
        _W,
        "more than two thirds of the certificate's life have passed: whatever renews it has not run, or the server was "
        "not told",
        "renew it (`bunny pki --renew --cloud CLOUD`) and send the server SIGHUP",
    ),
    "certificate-early": Trap(
        Check.TLS,
        _P,
        "the certificate is not valid yet: this machine's clock is behind, or that of the authority is ahead",
        "set the clocks (NTP)",
    ),
    "link-certificate-refused": Trap(
        Check.TLS,
        _P,
        "the hub ended the connection when it saw the leaf's certificate: of an authority it does not trust, expired, "
        "or without clientAuth",
        "hand the leaf's ca.pem to the hub's team (LEAF_LINK_CA), or renew link.pem (`bunny pki --renew --cloud LEAF`)",
    ),
    "certificate-file": Trap(
        Check.TLS,
        _P,
        "a certificate in the pki folder cannot be used as it is",
        "renew it (`bunny pki --renew --cloud CLOUD`), or put the right file there",
    ),
    "no-hybrid-group": Trap(
        Check.TLS,
        _I,
        "this Python's TLS has no X25519MLKEM768: who records this local connection may read it with a "
        "quantum computer one day. Payloads are sealed with X-Wing all the same, and the link is the servers' own",
        "run the service on a Python that is built with OpenSSL 3.5 or later",
    ),
    # --- identity
    "identity-mode": Trap(
        Check.IDENTITY,
        _P,
        "others on this machine can read the private keys; services refuse to start with them",
        "chmod 600 it (in Kubernetes defaultMode: 0440 with an fsGroup), and replace the keys if it was so for long",
    ),
    "identity-folder": Trap(
        Check.IDENTITY,
        _P,
        "the identity folder is not complete, or its files do not belong together; a service would not start",
        "deliver the folder's files anew: keys, rendered connection, ca.pem, trust.json and roots.json",
    ),
    "bundle-expired": Trap(
        Check.IDENTITY,
        _P,
        "the trust bundle's time is over: nothing that is sent is accepted any more",
        "sign a new one (`bunny trust sign`) and deliver it to every identity folder",
    ),
    "bundle-expiring": Trap(
        Check.IDENTITY,
        _W,
        "more than two thirds of the trust bundle's life have passed; when it ends everything stops",
        "sign a new one (`bunny trust sign`) and deliver it to every identity folder",
    ),
    "bundle-refused": Trap(
        Check.IDENTITY,
        _P,
        "the trust bundle cannot be relied on, so no service starts with it",
        "deliver the newest trust.json, signed by enough of the keys in roots.json",
    ),
    "key-not-in-bundle": Trap(
        Check.IDENTITY,
        _P,
        "the bundle does not have the key that this identity signs with: all it sends is refused as UnknownKey",
        "hand keys/NAME.json to review, sign a new bundle with it and deliver that; or take the right identity folder",
    ),
    "unknown-to-server": Trap(
        Check.IDENTITY,
        _P,
        "the server does not know this NKey: its running accounts are not those that were rendered for it",
        "render, deliver accounts.conf and send the server SIGHUP twice, reading its log after each: one can be "
        "refused whole",
    ),
    "wrong-domain": Trap(
        Check.IDENTITY,
        _P,
        "the server is of another cloud than the connection says: its JetStream domain is the other cloud's name",
        "correct the address of this cloud in bridge.yaml, or the server's cluster.conf, and render again",
    ),
    "old-server": Trap(
        Check.IDENTITY,
        _W,
        "results are copied home through a consumer that was made beforehand, which needs nats-server 2.15.1",
        "upgrade the server",
    ),
    # --- permissions
    "missing-permission": Trap(
        Check.PERMISSIONS,
        _P,
        "the server refuses subjects that the policy grants: its running accounts are older than the policy, or others",
        "render, deliver accounts.conf and send the server SIGHUP twice, reading its log after each: one can be "
        "refused whole",
    ),
    # --- link
    "link-down": Trap(
        Check.LINK,
        _P,
        "the clouds are parted: jobs and results are kept where they are and flow again when the link is back",
        "follow the checks of the link's address above; then look at the leaf's log, which names each failed try",
    ),
    "leaf-stopped": Trap(
        Check.LINK,
        _P,
        "the hub takes the link and the leaf does not dial: it has stopped reconnecting (nats-server#7615 is one way)",
        "restart the leaf's server; its streams stay",
    ),
    "link-refused": Trap(
        Check.LINK,
        _P,
        "the hub does not accept the link's NKey: its accounts.conf is not the one rendered with this leaf's key, or "
        "the leaf's seed is another",
        "compare keys/LINK.json with the leaf's leaf-seed.conf; render, deliver to the hub and send it SIGHUP",
    ),
    "link-unanswered": Trap(
        Check.LINK,
        _P,
        "the other cloud does not answer for this queue: the link is down, or it lacks the stream, consumer or exports",
        "look at the link from the leaf's side, then run `bunny provision` in the queue's home cloud; after a "
        "change of the policy, restart the leaf if it was told before the hub",
    ),
    "copy-silent": Trap(
        Check.LINK,
        _P,
        "results do not come home: nothing was heard from the stream they are copied from",
        "look at the link; if it is up, run `bunny provision --dry-run` in both clouds",
    ),
    "slow-ping": Trap(
        Check.LINK,
        _W,
        "with nats-server's own default a dead link still counts as up for minutes",
        'set ping_interval: "10s" and ping_max: 2 on both sides, as the shipped nats/*.conf do',
    ),
    # --- streams
    "missing-stream": Trap(
        Check.STREAMS,
        _P,
        "what the policy plans is not on the server, so what is sent there is not stored",
        "run `bunny provision` for that cloud",
    ),
    "drifted-stream": Trap(
        Check.STREAMS,
        _P,
        "somebody changed it by hand, or the policy has changed since it was made: promises of the bridge rest on it",
        "see `bunny provision --dry-run`, then run it without; what it refuses has to be settled by hand",
    ),
    # --- clock
    "clock-off": Trap(
        Check.CLOCK,
        _P,
        "clocks may differ by 5 minutes; beyond that messages are refused as Expired or FromTheFuture",
        "set this machine's clock (NTP), or the server's",
    ),
    "clock-drifting": Trap(
        Check.CLOCK,
        _W,
        "no clock that is kept by NTP is that far off; at 5 minutes messages are refused",
        "see that NTP runs, here and on the server",
    ),
    # --- disk
    "disk-full": Trap(
        Check.DISK,
        _P,
        "the server is about to stop storing: it turns JetStream off when a write fails",
        "enlarge the volume, or let workers catch up",
    ),
    "disk-filling": Trap(
        Check.DISK,
        _W,
        "streams may still grow to the limits in the policy, and the disk may not hold them",
        "enlarge the volume, or lower max_bytes in bridge.yaml",
    ),
    "stream-full": Trap(
        Check.DISK,
        _P,
        "the stream is at its limit and takes no more: producers get QueueFull, or results wait in the workers' cloud",
        "let workers catch up (is there one?), or raise max_pending or max_bytes in bridge.yaml and provision",
    ),
    "stream-filling": Trap(
        Check.DISK,
        _W,
        "the stream is close to its limit, and refuses more once it is there",
        "let workers catch up, or raise max_pending or max_bytes in bridge.yaml and provision",
    ),
    # --- policy
    "policy-not-loaded": Trap(
        Check.POLICY,
        _P,
        "the server runs another policy than the one rendered for it: it was not told, or its reload was rejected, "
        "which one bad or unreloadable line does to the whole",
        "send it SIGHUP twice, the hub before the leaf, and read its log for `Failed to reload`; what cannot be "
        "reloaded needs a restart",
    ),
    "render-stale": Trap(
        Check.POLICY,
        _P,
        "what is rendered is not what bridge.yaml says",
        "run `bunny render --out DIR`, and deliver what it writes",
    ),
    "sides-differ": Trap(
        Check.POLICY,
        _P,
        "the two clouds run different policies, so one may refuse what the other sends",
        "agree on one bridge.yaml; render it, deliver it and reload on both sides, the hub first",
    ),
    "bundle-differs": Trap(
        Check.POLICY,
        _P,
        "the trust bundle is of another policy: receivers go by the bundle, whatever the servers allow",
        "sign a new bundle from this policy and deliver it, or render the connection from the bundle's policy",
    ),
}
