"""Parts of payloads in and out of a transport: many at once, bounded by bytes, and gone on with after a break.

``window`` says how many may be under way, ``outgoing`` stores, ``withdrawals`` has what was stored pass, ``incoming``
reads and verifies, ``spool`` keeps what was verified, still sealed, ``aside`` makes files of it, and ``value`` is what
handlers and producers hold.
"""

from bridge.transfer.aside import Aside
from bridge.transfer.incoming import Incoming
from bridge.transfer.outgoing import send
from bridge.transfer.spool import Spool, sweep
from bridge.transfer.value import IN_MEMORY, Payload
from bridge.transfer.withdrawals import Withdrawals

__all__ = ["IN_MEMORY", "Aside", "Incoming", "Payload", "Spool", "Withdrawals", "send", "sweep"]
