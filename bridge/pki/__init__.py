"""Issues, renews and describes the certificates of both clouds: a root and a constrained issuer for each.

Per cloud, in ``FOLDER/<cloud>/``::

    ca.pem                            the root: what others trust (the only file that crosses to the other team); two
                                      while one takes the other's place, which lies in next/ until it issues
    root.key                          the root's key: take it offline; only a new issuer needs it
    ca.key, issuer.pem                the issuer: signs leaf certificates, and no others
    clients.pem, clients.key          the listener for the cloud's own services
    leafnodes.pem, leafnodes.key      the hub's listener for the link (serverAuth)
    link.pem, link.key                the leaf's end of the link (clientAuth)
    cluster.pem, cluster.key          both ends of the routes between the servers of a cluster, where there is one

Servers read nothing but these paths, so certificates from elsewhere go in the same places. No CRL is
checked by nats-server: what limits a stolen key is a short life, and that each side trusts one root alone.
"""

from bridge.pki.authority import DEVELOPMENT_HOSTS, begin_root, finish_root, issue, renew, switch_root
from bridge.pki.presented import Presented, read_presented
from bridge.pki.report import Certificate, check, fingerprint

__all__ = [
    "DEVELOPMENT_HOSTS",
    "Certificate",
    "Presented",
    "begin_root",
    "check",
    "fingerprint",
    "finish_root",
    "issue",
    "read_presented",
    "renew",
    "switch_root",
]
