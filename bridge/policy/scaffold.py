"""What ``bunny init`` writes: a policy that works as it is, with a word about each key."""

from __future__ import annotations

from typing import Final

SCAFFOLD: Final = """\
# The policy of the bridge. Both teams review this file and the public keys in keys/ beside it; everything else
# (accounts, permissions, streams, who may send what to whom) is rendered from them.
#
# Names are lower-case letters, digits, - and _. Durations need a unit (ms, s, m, h, d), sizes too (B, KiB, MiB, GiB).

version: 1
bridge: acme                        # names the trust domain

# One hub and one leaf. The leaf dials out to the hub; nothing listens for the other cloud in the leaf.
# The addresses are those of production: `bunny up` runs both clouds on this machine, on free ports.
clouds:
  aws:
    role: hub
    servers: 1                      # or 3: a cluster, with `routes: [...]`, which keeps every stream three times
    clients: "tls://relay-nats.relay.svc:4222"            # where the services of this cloud connect
    leafnodes: "tls://relay-leaf.bridge.internal:7422"    # where the leaf dials in
    durability: power-loss          # what a stored message outlives; `process` is faster: it syncs every ten seconds
  azure:
    role: leaf
    clients: "tls://bunny-nats.bunny.svc:4222"
    durability: power-loss

# Everyone who connects. Without a role: a service, which produces and works what the queues below say.
identities:
  relay-api: {cloud: aws}
  bunny: {cloud: azure}
  ops-aws: {cloud: aws, role: inspector}                  # reads queues and streams; one in each cloud
  ops-azure: {cloud: azure, role: inspector}
  sys-aws: {cloud: aws, role: system}                     # reads what the servers tell of themselves; optional
  sys-azure: {cloud: azure, role: system}
  # agent-aws: {cloud: aws, role: agent}                  # for `bunny agent`: metrics, and the backlog in both clouds
  # agent-azure: {cloud: azure, role: agent}
  # boss-azure: {cloud: azure, role: operator}          # for `bunny dead`: what died in its cloud runs again, or goes
  provisioner-aws: {cloud: aws, role: provisioner}        # makes streams and consumers, reads no payload
  provisioner-azure: {cloud: azure, role: provisioner}
  azure-link: {cloud: azure, role: link}                  # the leaf's own credential at the hub

# The root keys that sign the trust bundle: how many of them must, and for how long it is good.
trust:
  threshold: 1
  expires: 30d

# The longest cut between the clouds that must lose nothing. Retentions are computed from it.
max_outage: 12h

# A queue carries jobs from its producers, all in one cloud, to a pool of workers in the other.
queues:
  thumbnails:
    producers: [relay-api]
    workers: bunny
    kinds: [resize, probe]          # what jobs may be asked for

    # The rest are the defaults.
    ack_wait: 30s                   # a worker silent for this long has lost its job to another
    max_attempts: 5                 # starts of a job before it is a dead letter
    backoff: {initial: 1s, factor: 2, max: 5m, jitter: 0.2}    # between attempts; jitter is a share, 0 to 1
    deadline: 1h                    # for a job that names none
    result_ttl: 24h                 # how long a result stands; more than deadline + max_outage
    max_payload: 256KiB             # of one job's arguments, and of one result
    max_pending: 1000000            # jobs stored and not done; one more is refused, never dropped
    max_bytes: 4GiB                 # of all stored jobs, and of all stored results
    payload_bytes: 0B               # of stored payloads; 4 x max_payload where that is above 256KiB
    compression: off                # or `zstd`; its size then tells of what is in it: see docs/threats.md
    padding: off                    # or `padme`: sizes tell less; not with compression
    inbox: []                       # producers whose results also wait until a process of theirs has acked them
    receipts: off                   # or `on`: signed receipts about each job; receipts_bytes, by default max_bytes
    errors: type                    # of an exception in a handler, what producers are told: type, message, traceback
    canary: never                   # how often, as 30s, agents of the producers' cloud prove that jobs are answered

    # Limits over all workers together; without them only each worker's own `--concurrency` counts.
    # concurrency: 20               # jobs that run at once
    # concurrency_per_key: 1        # of those that are submitted with the same concurrency_key
    # rate: {jobs: 100, per: 1s}    # starts, evenly; with `burst: 10` up to ten at once after a quiet time

# Recurring jobs, submitted by `bunny agent`. Their arguments stand here, and so are no secret.
# schedules:
#   nightly: {agent: agent-aws, queue: thumbnails, kind: probe, args: {deep: true}, cron: "30 2 * * *", timezone: UTC}
"""
