"""The private Identity, its public half, and the folder a service holds them in.

An identity folder has ``identity.json`` (private, 0600), ``connection.yaml`` (rendered), ``ca.pem``,
``trust.json`` and ``roots.json``. Private halves are made where they are used and never leave; what is
reviewed is `PublicIdentity`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bridge import crypto, strict_json
from bridge.crypto import KemKey, KemPublicKey, SigningKey, VerifyKey
from bridge.errors import ConfigurationError, WeakKey
from bridge.files import check_private, read_file, write_file
from bridge.job import CANARY, Errors
from bridge.packing import Packing
from bridge.strict_json import b64, unb64
from bridge.subjects import is_name
from bridge.versions import FORMAT, newer

IDENTITY_FILE: Final = "identity.json"
CONNECTION_FILE: Final = "connection.yaml"
CA_FILE: Final = "ca.pem"
TRUST_FILE: Final = "trust.json"
ROOTS_FILE: Final = "roots.json"
LEAF_SEED_FILE: Final = "leaf-seed.conf"
NATS_SEED_FILE: Final = "nats.nk"

ENVIRONMENT: Final = "BUNNY_IDENTITY"
"""The environment variable that names the identity folder of a service."""


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """The public half of an identity: ``keys/NAME.json``, reviewed beside ``bridge.yaml``."""

    name: str
    nkey: str
    sign: tuple[VerifyKey, ...]
    kem: tuple[tuple[int, KemPublicKey], ...]
    """Epoch and key."""
    nkey_also: str | None = None
    """Another NKey that servers accept, while one takes the other's place."""

    @property
    def nkeys(self) -> tuple[str, ...]:
        """Those that servers accept."""
        return (self.nkey,) if self.nkey_also is None else (self.nkey, self.nkey_also)

    def to_json(self) -> str:
        """The file's text, ending in a newline."""
        value: strict_json.Object = {
            "version": 1,
            "name": self.name,
            "nkey": self.nkey,
            "sign": [{"kid": k.kid.hex(), "public": b64(k.public)} for k in self.sign],
            "kem": [{"kid": k.kid.hex(), "public": b64(k.public), "epoch": e} for e, k in self.kem],
        }
        if self.nkey_also is not None:
            value["nkey_also"] = self.nkey_also
        return _pretty(value)

    @classmethod
    def load(cls, path: Path) -> PublicIdentity:
        """Read and check ``keys/NAME.json``.

        Raises:
            ConfigurationError: It is missing, malformed, named otherwise than its file, or holds a weak key.
        """
        value = _read_json(path)
        try:
            also = {"nkey_also"} & set(value)
            _fields(value, {"version", "name", "nkey", "sign", "kem"} | also)
            public = cls(
                name=value["name"],
                nkey=value["nkey"],
                sign=tuple(VerifyKey(unb64(k["public"])) for k in value["sign"]),
                kem=tuple((k["epoch"], KemPublicKey(unb64(k["public"]))) for k in value["kem"]),
                nkey_also=value.get("nkey_also"),
            )
            for key in value["sign"]:
                strict_json.expect_keys(key, {"kid", "public"})
            for key in value["kem"]:
                strict_json.expect_keys(key, {"kid", "public", "epoch"})
            if any(type(epoch) is not int or not 0 <= epoch < 2**53 for epoch, _ in public.kem):
                raise ValueError
            stated = [k["kid"] for k in value["sign"]] + [k["kid"] for k in value["kem"]]
            actual = [k.kid.hex() for k in public.sign] + [k.kid.hex() for _, k in public.kem]
            if stated != actual or type(public.name) is not str or not all(map(crypto.is_nkey, public.nkeys)):
                raise ValueError
        except WeakKey as error:
            raise ConfigurationError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(f"{path}: not a public identity; make it with `bunny keys new`") from None
        if public.name != path.stem:
            raise ConfigurationError(f"{path}: holds the keys of another name; rename the file, or make new keys")
        return public


@dataclass(frozen=True, slots=True)
class Identity:
    """A service's private keys. Its ``repr`` shows the name alone."""

    name: str
    nkey_seed: str = field(repr=False)
    sign: tuple[SigningKey, ...] = field(repr=False)
    kem: tuple[KemKey, ...] = field(repr=False)
    dedup_secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str, *, link: bool = False) -> Identity:
        """New keys. A leaf link only connects: it has no key to sign with and none to be sealed to."""
        return cls(
            name,
            crypto.new_nkey(),
            () if link else (SigningKey.generate(),),
            () if link else (KemKey.generate(),),
            crypto.random_bytes(32),
        )

    @property
    def nkey(self) -> str:
        """The public NKey, ``U…``."""
        return crypto.nkey_public(self.nkey_seed)

    def public(self) -> PublicIdentity:
        """What others may know."""
        return PublicIdentity(
            self.name,
            self.nkey,
            tuple(VerifyKey(k.public) for k in self.sign),
            tuple((k.epoch, KemPublicKey(k.public)) for k in self.kem),
        )

    def save(self, folder: Path, *, over: bool = False) -> Path:
        """Write ``identity.json`` (0600), making the folder 0700, and the NKey's seed as other programs read it.

        Those are the leaf's server for a link, and the ``nats`` CLI for everybody else.

        Args:
            folder: The identity folder.
            over: Take the place of what is there, as a rotation does that has kept what is still needed.

        Raises:
            ConfigurationError: The folder holds an identity already: keys are never overwritten.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / IDENTITY_FILE
        if path.exists() and not over:
            raise ConfigurationError(f"{path}: exists already; private keys are never overwritten")
        value = {
            "version": 1,
            "name": self.name,
            "nkey_seed": self.nkey_seed,
            "sign": [{"kid": k.kid.hex(), "seed": b64(k.seed)} for k in self.sign],
            "kem": [{"kid": k.kid.hex(), "seed": b64(k.seed), "epoch": k.epoch} for k in self.kem],
            "dedup_secret": b64(self.dedup_secret),
        }
        if self.sign:
            write_file(folder / NATS_SEED_FILE, f"{self.nkey_seed}\n", private=True)
        else:
            write_file(folder / LEAF_SEED_FILE, f'LEAF_NKEY_SEED: "{self.nkey_seed}"\n', private=True)
        write_file(path, _pretty(value), private=True)
        return path

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read ``identity.json`` of an identity folder.

        Raises:
            ConfigurationError: It is missing, readable by others, or not an identity.
        """
        path = folder / IDENTITY_FILE
        check_private(path)
        value = _read_json(path)
        try:
            _fields(value, {"version", "name", "nkey_seed", "sign", "kem", "dedup_secret"})
            identity = cls(
                value["name"],
                value["nkey_seed"],
                tuple(SigningKey(unb64(k["seed"])) for k in value["sign"]),
                tuple(KemKey(unb64(k["seed"]), k["epoch"]) for k in value["kem"]),
                unb64(value["dedup_secret"]),
            )
            stated = [k["kid"] for k in value["sign"]] + [k["kid"] for k in value["kem"]]
            actual = [k.kid.hex() for k in identity.sign] + [k.kid.hex() for k in identity.kem]
            if stated != actual or not is_name(identity.name):
                raise ValueError
            crypto.nkey_public(identity.nkey_seed)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(f"{path}: not an identity; make one with `bunny keys new`") from None
        return identity


def load_keys(folder: Path, names: Iterable[str]) -> dict[str, PublicIdentity]:
    """The public halves of the named identities, from ``keys/``.

    Raises:
        ConfigurationError: One is missing or malformed, or two share a key.
    """
    names = sorted(names)
    if missing := [name for name in names if not (folder / f"{name}.json").is_file()]:
        if len(missing) > 1:
            raise ConfigurationError(
                f"{folder}: {', '.join(f'{name}.json' for name in missing)} are missing; make each with "
                "`bunny keys new NAME` where NAME will run"
            )
        (name,) = missing
        raise ConfigurationError(
            f"{folder / name}.json: missing; make it with `bunny keys new {name}` where {name} will run"
        )
    keys: dict[str, PublicIdentity] = {}
    owners: dict[bytes | str, str] = {}
    for name in names:
        path = folder / f"{name}.json"
        public = keys[name] = PublicIdentity.load(path)
        used: list[bytes | str] = [
            *public.nkeys,
            *(k.kid for k in public.sign),
            *(k.kid for _, k in public.kem),
        ]
        for key in used:
            if owners.setdefault(key, name) != name:
                raise ConfigurationError(f"{path}: shares a key with {owners[key]}; every identity has its own")
    return keys


# --- connection.yaml --------------------------------------------------------------------------------


def _name(text: str) -> str:
    # They become tokens of subjects: one with a dot or a wildcard in it would name what is another's.
    if not is_name(text):
        raise ValueError
    return text


Name = Annotated[str, AfterValidator(_name)]


class QueueSettings(BaseModel):
    """What a service must know of one queue it produces for or works on. Durations in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    home: Name
    """The producers' cloud."""
    work: Name
    """The workers' cloud."""
    producers: list[Name]
    workers: Name
    kinds: list[Name]
    ack_wait_ms: int = Field(gt=0)
    max_attempts: int = Field(gt=0)
    backoff_initial_ms: int = Field(gt=0)
    backoff_factor: float = Field(ge=1)
    backoff_max_ms: int = Field(gt=0)
    backoff_jitter: float = Field(ge=0, le=1)
    deadline_ms: int = Field(gt=0)
    result_ttl_ms: int = Field(gt=0)
    max_payload: int = Field(gt=0)
    inbox: list[Name] = []
    """The producers that have an inbox."""
    canary_ms: int = Field(default=0, ge=0)
    """How often agents of the producers' cloud send a canary; 0 is never."""
    concurrency: int | None = Field(default=None, gt=0)
    concurrency_per_key: int | None = Field(default=None, gt=0)
    rate_jobs: int | None = Field(default=None, gt=0)
    """Starts in ``rate_per_ms``; None is no limit."""
    rate_per_ms: int = Field(default=1000, gt=0)
    rate_burst: int = Field(default=1, gt=0)
    errors: Errors = "type"
    """What producers are told of an exception that a handler raised."""
    packing: Packing | None = Field(default=None, strict=False)  # a word in the file
    """How content is compressed or padded; readers take any."""
    receipts: bool = False
    """Whether receipts about its jobs are kept."""

    @property
    def limited(self) -> bool:
        """Whether its workers must agree on what may start."""
        return any((self.concurrency, self.concurrency_per_key, self.rate_jobs))


class ScheduleSettings(BaseModel):
    """What an agent must know of a schedule that it submits. Times in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    queue: Name
    kind: Name
    args: str
    """JSON."""
    cron: str
    """Empty where there is an interval."""
    timezone: str
    every_ms: int = Field(ge=0)
    missed: Literal["skip", "last", "all"]
    deadline_ms: int = Field(gt=0)
    since_ms: int = Field(ge=0)


class Connection(BaseModel):
    """``connection.yaml``: where an identity connects, and the settings of its queues.

    Nothing in it is secret, and nothing in it is authority: that is the trust bundle's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    bridge: Name
    identity: Name
    cloud: Name
    role: Name
    server: str
    """``tls://host:port``, or several with commas."""
    queues: dict[Name, QueueSettings] = {}
    schedules: dict[Name, ScheduleSettings] = {}
    """Those that this identity submits; written only where there are any, so that an earlier release reads the rest."""

    def submits(self, queue: str) -> frozenset[str]:
        """The kinds of jobs that this identity submits to a queue; empty if none."""
        settings = self.queues.get(queue)
        if settings is None:
            return frozenset()
        if self.identity in settings.producers:
            return frozenset(settings.kinds)
        found = {each.kind for each in self.schedules.values() if each.queue == queue}
        if self.role == "agent" and settings.canary_ms and settings.home == self.cloud:
            found.add(CANARY)
        return frozenset(found)

    @classmethod
    def load(cls, folder: Path) -> Connection:
        """Read ``connection.yaml`` of an identity folder.

        Raises:
            ConfigurationError: It is missing or malformed.
        """
        path = folder / CONNECTION_FILE
        data = read_file(path)
        try:
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=yaml.SafeLoader)):
                raise yaml.YAMLError  # a page of merged aliases takes all memory before it is any value
            value = yaml.safe_load(data)
            _readable(path, value.get("version") if isinstance(value, dict) else None)
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_context=False, include_url=False)[0]
            where = re.sub(r"[^ -~]", "?", ".".join(str(part) for part in first["loc"]))[:80] or "the whole"
            raise ConfigurationError(f"{path}: {where}: {first['type']}; write it with `bunny render`") from None
        except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError):  # of a date, of a !!tag
            raise ConfigurationError(f"{path}: not YAML; write it with `bunny render`") from None


def _read_json(path: Path) -> strict_json.Object:
    try:
        value = strict_json.parse_object(read_file(path))
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    _readable(path, value.get("version"))
    return value


def _readable(path: Path, version: object) -> None:
    if (problem := newer(str(path), version)) is not None:
        raise ConfigurationError(problem)


def _fields(value: dict[str, Any], names: set[str]) -> None:
    if set(value) != names or type(value["version"]) is not int or value["version"] != FORMAT:
        raise ValueError


def _pretty(value: strict_json.Object) -> str:
    return json.dumps(value, indent=2) + "\n"
