import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator.cluster.client import SECRETS
from finetune_operator.cluster.errors import KubeError
from finetune_operator.serving import tls
from tests.unit.operator.fakes import FakeKube

HOST = "finetune-operator.a-namespace-with-quite-a-long-name-as-names-go.svc"
NOW = datetime.now(UTC)


def _kube() -> FakeKube:
    kube = FakeKube()
    kube.put(SECRETS, {"metadata": {"namespace": "sys", "name": "tls"}})
    return kube


async def _ensure(kube: FakeKube) -> tls.Bundle:
    return await tls.ensure(kube, "sys", "tls", HOST)


async def _served(context: ssl.SSLContext, ca: bytes, host: str) -> bytes:
    """Return the certificate that a client which trusts only `ca` gets to see."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        trust = ssl.create_default_context(cadata=ca.decode())
        trust.verify_flags |= ssl.VERIFY_X509_STRICT
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=host)
        seen: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return seen


async def test_a_strict_client_that_trusts_the_authority_connects_to_the_service_name() -> None:
    bundle = tls.renew(None, HOST, NOW)
    assert await _served(tls.server_context(bundle), bundle.ca_certificate, HOST)


async def test_the_certificate_is_for_no_other_name() -> None:
    bundle = tls.renew(None, HOST, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _served(tls.server_context(bundle), bundle.ca_certificate, "other.sys.svc")


async def test_a_renewed_certificate_is_served_without_a_restart() -> None:
    old = tls.renew(None, HOST, NOW - tls.SERVING_LIFETIME)
    context = tls.server_context(old)
    new = tls.renew(old, HOST, NOW)
    tls.load(context, new)
    assert await _served(context, new.ca_certificate, HOST) == ssl.PEM_cert_to_DER_cert(new.certificate.decode())


def test_a_good_bundle_is_kept() -> None:
    bundle = tls.renew(None, HOST, NOW)
    assert tls.renew(bundle, HOST, NOW + tls.SERVING_LIFETIME - tls.SERVING_RENEWAL - timedelta(days=1)) == bundle


def test_before_the_certificate_expires_it_is_recreated_by_the_same_authority() -> None:
    bundle = tls.renew(None, HOST, NOW)
    renewed = tls.renew(bundle, HOST, NOW + tls.SERVING_LIFETIME - tls.SERVING_RENEWAL)
    assert (renewed.ca_certificate, renewed.certificate != bundle.certificate) == (bundle.ca_certificate, True)


def test_an_authority_always_outlives_what_it_signs() -> None:
    bundle = tls.renew(None, HOST, NOW)
    renewed = tls.renew(bundle, HOST, NOW + tls.CA_LIFETIME - tls.SERVING_LIFETIME)
    assert renewed.ca_certificate != bundle.ca_certificate


def test_another_service_name_gets_another_certificate() -> None:
    bundle = tls.renew(None, HOST, NOW)
    assert tls.renew(bundle, "renamed.sys.svc", NOW).certificate != bundle.certificate


def test_a_key_of_another_certificate_is_replaced() -> None:
    mixed = tls.renew(None, HOST, NOW)
    other = tls.renew(None, HOST, NOW)
    broken = tls.Bundle(mixed.ca_certificate, mixed.ca_key, mixed.certificate, other.key)
    assert tls.renew(broken, HOST, NOW).key not in (mixed.key, other.key)


def test_a_bundle_does_not_show_its_keys() -> None:
    assert "PRIVATE" not in repr(tls.renew(None, HOST, NOW))


async def test_an_empty_secret_is_filled_and_found_again() -> None:
    kube = _kube()
    assert await _ensure(kube) == await _ensure(kube)


async def test_a_secret_full_of_rubbish_is_replaced() -> None:
    kube = _kube()
    rubbish = base64.b64encode(b"rubbish").decode()
    data = dict.fromkeys(("ca.crt", "ca.key", "tls.crt", "tls.key"), rubbish)
    kube.put(SECRETS, {"metadata": {"namespace": "sys", "name": "tls"}, "data": data})
    assert b"BEGIN CERTIFICATE" in (await _ensure(kube)).certificate


async def test_the_slower_of_two_replicas_takes_what_the_faster_stored() -> None:
    kube = _kube()
    first, second = await asyncio.gather(_ensure(kube), _ensure(kube))
    assert first == second


async def test_a_missing_secret_is_named() -> None:
    with pytest.raises(KubeError, match="Secret sys/tls does not exist"):
        await _ensure(FakeKube())
