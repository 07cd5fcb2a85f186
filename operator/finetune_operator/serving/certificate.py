"""The serving certificate of one replica: all replicas share one Secret, and only the leader writes it."""

import logging
import ssl
from collections.abc import Callable

from finetune_operator.cluster.client import KubeClient
from finetune_operator.cluster.errors import KubeError
from finetune_operator.serving import tls

_log = logging.getLogger(__name__)


class Certificate:
    """The certificate of this replica. `writer` is the client for a leader; `leads` returns whether this is one."""

    def __init__(
        self, reader: KubeClient, writer: KubeClient, leads: Callable[[], bool], namespace: str, name: str, host: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._leads = leads
        self._where = (namespace, name)
        self._host = host
        self._bundle: tls.Bundle | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def ca_pem(self) -> str:
        """The certificate authority that clients have to trust; empty before the first `refresh`."""
        return self._bundle.ca_certificate.decode() if self._bundle else ""

    @property
    def context(self) -> ssl.SSLContext:
        """The TLS context; a new certificate is used from the next handshake on."""
        assert self._context is not None  # `refresh` comes first
        return self._context

    async def refresh(self) -> None:
        """Load the certificate from the Secret; if this replica leads, create or renew it first where that is due.

        Raises:
            KubeError: the Secret cannot be read or written, or holds no certificate yet and this replica does not lead.
        """
        if self._leads():
            bundle: tls.Bundle | None = await tls.ensure(self._writer, *self._where, self._host)
        else:
            bundle = await tls.shared(self._reader, *self._where, self._host)
        if bundle is None and self._bundle is None:
            raise KubeError("the leader has not stored a certificate yet")
        # A certificate that is due for renewal is served until the leader has renewed it.
        if bundle is None or bundle == self._bundle:
            return
        if self._context is None:
            self._context = tls.server_context(bundle)
        else:
            tls.load(self._context, bundle)
            _log.info("serving a new certificate")
        self._bundle = bundle
