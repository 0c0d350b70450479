"""Certificates for receivers of tests: one authority, which a client may trust, and what it signs, good or bad."""

import datetime
import ipaddress
import ssl
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = datetime.timedelta(days=1)


class Authority:
    """Writes what it makes below a folder, because Python's ssl reads certificates from files only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of tests")])

    @cached_property
    def file(self) -> Path:
        """Its certificate, as SSL_CERT_FILE names it."""
        key = self._key.public_key()
        certificate = (
            self._builder(self._name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / "authority.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def client(self) -> ssl.SSLContext:
        """Of a client that trusts this authority only."""
        return ssl.create_default_context(cafile=str(self.file))

    def server(self, *, name: str = "127.0.0.1", expired: bool = False, own: bool = False) -> ssl.SSLContext:
        """Of a receiver whose certificate is for `name`, may have expired, or is signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a receiver of tests")])
        try:
            san: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            san = x509.DNSName(name)
        signer, issuer = (key, subject) if own else (self._key, self._name)
        certificate = (
            self._builder(subject, key.public_key(), issuer=issuer, until=-_DAY if expired else 30 * _DAY)
            .add_extension(x509.SubjectAlternativeName([san]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        path = self._folder / f"{certificate.serial_number}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, issuer: x509.Name | None = None, until: datetime.timedelta = 30 * _DAY
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * _DAY)
            .not_valid_after(now + until)
        )
