"""The proxy's certificate: read at start, and anew when its files change, without a connection noticing."""

from __future__ import annotations

import asyncio
import ssl

import structlog

from proxy.config import Tls
from proxy.errors import ConfigError

CHECK_S = 5.0

log = structlog.get_logger()


class Certificate:
    """The server's side of TLS 1.2 and later. Raises ConfigError when the files cannot be used at start."""

    def __init__(self, files: Tls) -> None:
        self._files = files
        self._seen = self._state()
        self._current = self._load()
        # Each new handshake takes the context that is current then; what is already open keeps its own.
        self.context = self._current
        self.context.sni_callback = self._choose

    def refresh(self, files: Tls | None = None) -> None:
        """Reads the files if they, or their names, have changed.

        What cannot be used is logged, and the former certificate stays.
        """
        self._files = files or self._files
        try:
            state = self._state()
            if state == self._seen:
                return
            self._seen = state
            self._current = self._load()
        except ConfigError as error:
            log.warning("certificate_not_usable", error="; ".join(error.problems))
        else:
            log.info("certificate_loaded", certificate=str(self._files.certificate))

    async def watch(self) -> None:
        """Looks after the files for ever."""
        while True:
            await asyncio.sleep(CHECK_S)
            await asyncio.to_thread(self.refresh)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when the files do, also when they are links that are pointed elsewhere."""
        try:
            found = [path.stat() for path in (self._files.certificate, self._files.key)]
        except OSError as error:
            raise ConfigError([f"tls: {error.filename} cannot be read: {error.strerror}"]) from error
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        certificate, key = self._files.certificate, self._files.key
        try:
            context.load_cert_chain(certificate, key, password="")  # a key with a password must not ask for it
        except ssl.SSLError as error:
            reason = error.reason or "not PEM"
            raise ConfigError([f"tls: {certificate} is no certificate chain for the key in {key}: {reason}"]) from error
        except OSError as error:
            raise ConfigError([f"tls: {certificate} or {key} cannot be read: {error.strerror}"]) from error
        return context
