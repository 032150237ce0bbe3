"""By which certificates a store believes that a server is the one it asked for."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from redis import connection as blocking
from redis.asyncio import connection as awaited

from guardrail.errors import SettingError
from guardrail.stores.opening import awaited as awaited_twin
from guardrail.stores.opening import open_store
from guardrail.stores.redis.blocking import BlockingServers
from guardrail.stores.redis.pipelined import PipelinedServers
from tests.cells.awaited import Awaited
from tests.cells.redis_stores import HASH_KEY, SERVERS, redis_store
from tests.stores.deciding import decide, failing

HERE = x509.IPAddress(ip_address("127.0.0.1"))


class Authority:
    """Signs certificates, written into a folder with their keys."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.file = self.write("authority", self.key, self.name, x509.BasicConstraints(True, None))

    def write(self, name, key, subject, extension, *, days=1):
        today, signs = datetime.now(UTC), key is self.key
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        # From version 3.13 on Python is as strict as RFC 5280.
        uses = x509.KeyUsage(not signs, False, False, False, False, signs, False, False, False)
        made = (
            x509.CertificateBuilder(
                self.name, subject, key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(today - timedelta(days=9))
            .not_valid_after(today + timedelta(days=days))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(uses, critical=True)
            .add_extension(signer, critical=False)
            .add_extension(own, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = self.folder / f"{name}.pem"
        file.write_bytes(made.public_bytes(Encoding.PEM) + secret)
        return file

    def certificate(self, name, place=HERE, **times):
        """Return a certificate for a place."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return self.write(name, key, subject, x509.SubjectAlternativeName([place]), **times)


class Front:
    """Speaks TLS in front of a server, with one certificate after the other."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.listeners = []
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def port(self, certificate, server, asks=None):
        """Return a port that leads to a server, by a certificate; it `asks` for one of a file's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if asks is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asks)

        async def meet(reader, writer):
            there, to = await asyncio.open_connection("127.0.0.1", server.port)
            with suppress(OSError):
                await asyncio.gather(pass_on(reader, to), pass_on(there, writer))

        async def listen():
            listener = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
            self.listeners.append(listener)
            return listener.sockets[0].getsockname()[1]

        return self.have(listen())

    def have(self, awaitable):
        """Return what is awaited in the loop of the front."""
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(10)

    def close(self):
        """Listen no more, and cut every way."""

        async def end():
            for listener in self.listeners:
                listener.close()
            ways = asyncio.all_tasks() - {asyncio.current_task()}
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await asyncio.sleep(0)

        self.have(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


async def pass_on(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def front():
    front = Front()
    yield front
    front.close()


@pytest.fixture(params=["sync", "async"])
def reached(request, front):
    """Give what makes a store that reaches a server through a certificate."""
    made = []

    def make(certificate):
        port = front.port(certificate, SERVERS.empty("valkey 9"))
        store = redis_store(f"rediss://127.0.0.1:{port}", deadline=20.0)
        made.append(Awaited(store.awaited()) if request.param == "async" else store)
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_a_certificate_of_an_authority_that_is_trusted_is_believed(reached, authority, monkeypatch):
    store = reached(authority.certificate("here"))
    with failing("CERTIFICATE_VERIFY_FAILED.* unable to get local issuer", unsure=False):
        decide(store)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    assert decide(store).admitted


@pytest.mark.parametrize(
    ("name", "why", "made"),
    [
        ("elsewhere", "not valid for '127.0.0.1'", {"place": x509.DNSName("elsewhere")}),
        ("former", "certificate has expired", {"days": -1}),
    ],
)
def test_one_for_another_host_or_another_time_is_not(
    reached, authority, monkeypatch, name, why, made
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    store = reached(authority.certificate(name, **made))

    with failing(why, unsure=False):
        decide(store)


def test_names_are_looked_at_with_every_version_of_the_library(reached, authority, monkeypatch):
    # Before version 6, redis-py took a certificate for any name unless it was told not to.
    asked = []

    def connection(**settings):
        asked.append(settings["ssl_check_hostname"])
        raise OSError("no further")

    for library in (blocking, awaited):
        monkeypatch.setattr(library, "SSLConnection", connection)
    with failing("no further"):
        decide(reached(authority.certificate("somewhere")))
    assert asked == [True]


@pytest.fixture(params=["sync", "async"])
def opened(request):
    """Give what opens a store by its URI."""
    made = []

    def make(uri):
        store = open_store(uri, [HASH_KEY])
        made.append(Awaited(awaited_twin(store)) if request.param == "async" else store)
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.mark.parametrize("apart", [False, True], ids=["in one file", "in two"])
def test_a_server_that_asks_for_a_certificate_is_shown_it(
    opened, authority, front, monkeypatch, tmp_path, apart
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    own = authority.certificate("client")
    there = SERVERS.empty("valkey 9")
    port = front.port(authority.certificate("here"), there, asks=authority.file)
    where = f"rediss://127.0.0.1:{port}?deadline=20s"
    with failing("certificate required|EOF|closed|reset|CERTIFICATE_REQUIRED", unsure=None):
        decide(opened(where))

    shown = f"&ssl_certfile={own}"
    if apart:
        certificate, sign, key = own.read_text().partition("-----BEGIN PRIVATE KEY-----")
        (tmp_path / "own.pem").write_text(certificate)
        (tmp_path / "own.key").write_text(sign + key)
        shown = f"&ssl_certfile={tmp_path / 'own.pem'}&ssl_keyfile={tmp_path / 'own.key'}"
    assert decide(opened(where + shown)).admitted


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("redis://h?ssl_certfile=here", "speaks no TLS, where a certificate is shown: write `red"),
        ("unix:///s?ssl_certfile=here", "speaks no TLS, where a certificate is shown: write `red"),
        ("rediss://h?ssl_keyfile=here", "`ssl_keyfile` stands alone in `rediss://h.*`: add `ssl_c"),
        (
            "rediss://h?ssl_certfile=/gone",
            "`/gone` cannot be used as a certificate: .*No such",
        ),
        (
            "rediss://h?ssl_certfile=locked",
            "locked` cannot be used as a certificate: .*no pass",
        ),
        ("rediss://h?ssl_certfile=", "`ssl_certfile` is `` in .*: it must be the path of a file"),
    ],
)
def test_a_certificate_that_cannot_be_shown_is_told_at_the_start(uri, said, authority, tmp_path):
    locked = tmp_path / "locked"
    key = BestAvailableEncryption(b"secret")
    secret = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, key)
    certificate = authority.file.read_text().partition("-----BEGIN PRIVATE")[0]
    locked.write_bytes(certificate.encode() + secret)
    named = {"=here": f"={authority.file}", "=locked": f"={locked}"}
    for name, file in named.items():
        uri = uri.replace(name, file)

    with pytest.raises(SettingError, match=said):
        open_store(uri, [HASH_KEY])


def test_sentinels_are_asked_as_the_primary_is(opened, authority, monkeypatch):
    asked = []

    def sentinels(places, *, sentinel_kwargs):
        asked.append(sentinel_kwargs)
        raise OSError("no further")

    for kind in (BlockingServers, PipelinedServers):
        monkeypatch.setattr(kind, "library", kind.library._replace(sentinel=sentinels))
    own = str(authority.certificate("client"))
    with failing("no further"):
        decide(opened(f"rediss+sentinel://h:1/main?ssl_certfile={own}"))
    assert asked
    assert all(one["ssl"] and one["ssl_check_hostname"] for one in asked)
    assert {one["ssl_certfile"] for one in asked} == {own}

    asked.clear()
    with failing("no further"):
        decide(opened("redis+sentinel://h:1/main"))
    assert asked
    assert not any("ssl" in one for one in asked)
