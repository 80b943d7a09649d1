"""Every command, in the order in which ``bunny --help`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from bridge.cli import (
    agent,
    bench,
    dead,
    doctor,
    explain,
    inbox,
    init,
    job,
    keys,
    pki,
    prove,
    provision,
    queue,
    render,
    schedule,
    submit,
    top,
    trust,
    unseal,
    up,
    work,
)
from bridge.cli.demo import command as demo
from bridge.cli.drill import command as drill
from bridge.cli.rotate import command as rotate

COMMANDS: Final[tuple[Callable[[typer.Typer], None], ...]] = (
    init.register,
    up.register,
    demo.register,
    drill.register,
    keys.register,
    trust.register,
    pki.register,
    rotate.register,
    render.register,
    explain.register,
    provision.register,
    work.register,
    submit.register,
    bench.register,
    job.register,
    inbox.register,
    queue.register,
    schedule.register,
    dead.register,
    top.register,
    agent.register,
    doctor.register,
    prove.register,
    unseal.register,
)
