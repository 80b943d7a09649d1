"""Who is on the bridge: the clouds and identities of `bridge.yaml`, each checked against the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from bridge.policy.document import shown
from bridge.policy.hints import nearest
from bridge.policy.section import Section
from bridge.policy.values import Cloud, Role
from bridge.subjects import is_name

_CLOUD = ("role", "servers", "clients", "leafnodes", "routes", "durability")
_CLUSTER = 3
_IDENTITY = ("cloud", "role")


@dataclass(frozen=True, slots=True)
class Declared:
    """What the file says of an identity, right or wrong, so that one mistake is told once."""

    line: int
    cloud: str
    role: Role | None
    """None if the role that is written is unknown."""


def read_clouds(top: Section) -> dict[str, Cloud]:
    """Read ``clouds``: exactly one hub and one leaf."""
    clouds: dict[str, Cloud] = {}
    sides: dict[str, str] = {}
    for name, section in top.named("clouds", "cloud", _CLOUD, "declare a hub and a leaf"):
        role = section.choice("role", ("hub", "leaf"))
        if role and role in sides:
            first = f"{shown(sides[role])} is the {role} already"
            if role == "leaf":
                section.note(section.line_of("role"), f"a second leaf is not built yet: {first}", "remove it")
            else:
                section.note(section.line_of("role"), f"a second hub: {first}", "make one the leaf")
        sides.setdefault(role, name)
        servers = _servers(section)
        clients = section.urls("clients", 4222, servers, "add clients: tls://host:4222, where its services connect")
        leafnodes = None
        if role == "hub":
            remedy = "add leafnodes: tls://host:7422, where the leaf dials in"
            leafnodes = ",".join(section.urls("leafnodes", 7422, servers, remedy))
        elif role == "leaf" and section.has("leafnodes"):
            section.note(section.line_of("leafnodes"), "a leaf takes no links: nothing listens there", "remove it")
        durability = section.choice("durability", ("power-loss", "process"), "power-loss")
        clouds[name] = Cloud(
            name,
            cast(Literal["hub", "leaf"], role),
            ",".join(clients),
            leafnodes,
            cast(Literal["power-loss", "process"], durability),
            servers,
            _routes(section, servers),
        )
    for role in ("hub", "leaf"):
        if clouds and "" not in sides and role not in sides:
            top.note(top.line_of("clouds"), f"no cloud is the {role}", f"give one role: {role}")
    return clouds


def _servers(section: Section) -> int:
    servers = section.whole("servers", 1, 1, 99)
    if servers not in (1, _CLUSTER):
        # Two stop when one fails, and more than three only cost: every stream has three replicas.
        problem = f"servers: {servers} is neither one nor a cluster of three"
        section.note(section.line_of("servers"), problem, "say 1 or 3")
    return servers


def _routes(section: Section, servers: int) -> tuple[str, ...]:
    remedy = "add routes: [tls://host-0:6222, tls://host-1:6222, tls://host-2:6222], where its servers find each other"
    if servers == 1:
        if section.has("routes"):
            section.note(
                section.line_of("routes"), "routes of a single server lead nowhere", "say servers: 3, or remove it"
            )
        return ()
    if servers != _CLUSTER:
        return ()  # that has been said
    before = section.mistakes
    routes = section.urls("routes", 6222, servers, remedy)
    if section.mistakes == before and len(routes) < servers:
        problem = f"routes has {len(routes)} of {servers} addresses"
        section.note(section.line_of("routes"), problem, "give each server one, by a name of its own")
    return routes


def read_identities(top: Section, clouds: Mapping[str, Cloud]) -> dict[str, Declared]:
    """Read ``identities``: each in a declared cloud, and in every cloud those that it cannot do without."""
    identities: dict[str, Declared] = {}
    mistakes = top.mistakes
    certain = bool(clouds) and all(map(is_name, clouds))  # else the name that is wrong may be the one meant
    for name, section in top.named("identities", "identity", _IDENTITY, "declare who connects, and where"):
        cloud = section.text("cloud", f"it is in no cloud: add cloud: {' or '.join(map(shown, clouds)) or 'aws'}")
        if cloud and certain and cloud not in clouds:
            problem = f"{section.where} is in cloud {shown(cloud)}, which is not declared"
            section.note(section.line_of("cloud"), problem, nearest(cloud, clouds))
        identities[name] = Declared(section.line, cloud, _role(section))
    sides = sorted(cloud.role for cloud in clouds.values())
    if identities and top.mistakes == mistakes and certain and sides == ["hub", "leaf"]:
        for one in clouds.values():
            _check_roles(top, one, identities)
    return identities


def _role(section: Section) -> Role | None:
    word = section.word("role")
    if word in ("producer", "worker"):
        problem = f"role {word!r} is not written here: the queues say who produces and who works"
        section.note(section.line_of("role"), problem, "remove it")
        return Role.SERVICE
    text = section.choice("role", Role, Role.SERVICE)
    return Role(text) if text else None


def _check_roles(top: Section, cloud: Cloud, identities: Mapping[str, Declared]) -> None:
    here = [who for who in identities.values() if who.cloud == cloud.name]
    links = [who.line for who in here if who.role is Role.LINK]
    line, name = top.line_of("identities"), shown(cloud.name)
    if not any(who.role is Role.PROVISIONER for who in here):
        problem = f"no provisioner in cloud {name}: nobody could make its streams"
        top.note(line, problem, f"add an identity {{cloud: {name}, role: provisioner}}")
    if cloud.role == "hub" and links:
        top.note(links[0], f"a link in cloud {name}, which is the hub: it is the leaf that dials", "put it in the leaf")
    if cloud.role == "leaf" and not links:
        problem = f"no link in cloud {name}: its leaf could not dial the hub"
        top.note(line, problem, f"add an identity {{cloud: {name}, role: link}}")
    if cloud.role == "leaf" and len(links) > 1:
        top.note(links[1], f"a second link in cloud {name}: line {links[0]} has it already", "remove one")
