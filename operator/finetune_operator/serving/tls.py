"""The progress endpoint's certificate and its own certificate authority, in one Secret that all replicas share."""

import base64
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from finetune_operator.cluster.client import SECRETS, KubeClient, Object
from finetune_operator.cluster.errors import Conflict, KubeError, NotFound

CA_LIFETIME = timedelta(days=3650)
SERVING_LIFETIME = timedelta(days=365)
# A certificate with less time left is replaced. The authority is replaced while it still outlives what it signs.
SERVING_RENEWAL = timedelta(days=60)
CA_RENEWAL = SERVING_LIFETIME + SERVING_RENEWAL
# The clocks of replicas and pods may be behind the signer's.
_BACKDATED = timedelta(hours=1)

_KEYS = {"ca_certificate": "ca.crt", "ca_key": "ca.key", "certificate": "tls.crt", "key": "tls.key"}


@dataclass(frozen=True)
class Bundle:
    """PEM: the authority and the serving certificate, each with its key."""

    ca_certificate: bytes
    ca_key: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Return no keys, which must not appear in a log."""
        return "Bundle(...)"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _new_authority(now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The date distinguishes an old and a new authority, which clients may trust at the same time.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"finetune-operator {now:%Y-%m-%d}")])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _new_serving(ca_certificate: bytes, ca_key: bytes, host: str, now: datetime) -> tuple[bytes, bytes]:
    authority = x509.load_pem_x509_certificate(ca_certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    authority_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        # The host is the alternative name below; a common name is limited to 64 characters.
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator")]),
            authority.subject,
            key.public_key(),
            now,
            SERVING_LIFETIME,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(_load_key(ca_key), hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _authority_is_good(bundle: Bundle, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(bundle.ca_certificate)
        matches = certificate.public_key() == _load_key(bundle.ca_key).public_key()
    except (ValueError, TypeError):
        return False
    return matches and certificate.not_valid_after_utc - now > CA_RENEWAL


def _serving_is_good(bundle: Bundle, host: str, now: datetime) -> bool:
    try:
        authority = x509.load_pem_x509_certificate(bundle.ca_certificate)
        certificate = x509.load_pem_x509_certificate(bundle.certificate)
        matches = certificate.public_key() == _load_key(bundle.key).public_key()
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001 - whatever is wrong with the stored one, it is replaced
        return False
    known = host in names.get_values_for_type(x509.DNSName)
    return matches and known and certificate.not_valid_after_utc - now > SERVING_RENEWAL


def renew(bundle: Bundle | None, host: str, now: datetime) -> Bundle:
    """Return the bundle itself if all of it is valid for `host`; otherwise one in which the invalid parts are new."""
    if bundle is None or not _authority_is_good(bundle, now):
        authority, authority_key = _new_authority(now)
    elif _serving_is_good(bundle, host, now):
        return bundle
    else:
        authority, authority_key = bundle.ca_certificate, bundle.ca_key
    certificate, key = _new_serving(authority, authority_key, host, now)
    return Bundle(authority, authority_key, certificate, key)


def from_secret(secret: Object) -> Bundle | None:
    """Return the bundle in a Secret; None if a part is missing or is not base64."""
    data = secret.get("data") or {}
    try:
        return Bundle(**{member: base64.b64decode(data[key], validate=True) for member, key in _KEYS.items()})
    except (KeyError, ValueError):
        return None


def into_secret(secret: Object, bundle: Bundle) -> Object:
    """Return the Secret with the bundle in it; its resourceVersion makes the write conditional."""
    data = {key: base64.b64encode(getattr(bundle, member)).decode() for member, key in _KEYS.items()}
    return {**secret, "data": {**(secret.get("data") or {}), **data}}


async def _read(client: KubeClient, namespace: str, name: str) -> Object:
    try:
        return await client.get(SECRETS, namespace, name)
    except NotFound:
        raise KubeError(
            f"Secret {namespace}/{name} does not exist; create it empty (the chart does), and the operator fills it"
        ) from None


async def shared(client: KubeClient, namespace: str, name: str, host: str) -> Bundle | None:
    """Return the bundle that the leader stored; None if there is none, or if it is due for renewal.

    Raises:
        KubeError: the Secret cannot be read.
    """
    found = from_secret(await _read(client, namespace, name))
    return found if found and renew(found, host, datetime.now(UTC)) == found else None


async def ensure(client: KubeClient, namespace: str, name: str, host: str) -> Bundle:
    """Return the shared bundle; create or renew it first where that is due. For the leader.

    The write is conditional on the resourceVersion that was read. If it arrives when another replica already leads, it
    overwrites nothing that was not read, and stores a valid bundle, which all replicas use.

    Raises:
        KubeError: the Secret cannot be read or written.
    """
    while True:
        secret = await _read(client, namespace, name)
        found = from_secret(secret)
        bundle = renew(found, host, datetime.now(UTC))
        if bundle == found:
            return bundle
        try:
            await client.replace(SECRETS, namespace, name, into_secret(secret, bundle))
        except Conflict:
            continue  # another replica was faster: use what it stored
        return bundle


def load(context: ssl.SSLContext, bundle: Bundle) -> None:
    """Serve the bundle's certificate from the next handshake on."""
    # ssl reads only files, and the root file system is read-only. This file is in memory and is gone once it is closed.
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, bundle.certificate + bundle.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def server_context(bundle: Bundle) -> ssl.SSLContext:
    """Return a TLS 1.2+ server context."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load(context, bundle)
    return context
