"""Certificates made while the tests run: authorities, servers, clients."""

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def name(common_name: str, organization: str = "Warren Tests") -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


class Authority:
    """Signs certificates; each becomes two files in the directory, `NAME.pem` and `NAME.key`."""

    def __init__(self, directory: Path, common_name: str = "authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name(common_name)
        certificate = (
            self._builder(self._name, self._key, 365)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{common_name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, key, days):
        """A certificate that began `days` ago and ends in as many; one that is negative ended that long ago."""
        now = datetime.now(timezone.utc)
        end = now + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - timedelta(days=30))
            .not_valid_after(end)
        )

    def issue(self, file: str, common_name: str, names=(), *, usage=None, days: int = 365, with_rsa=False):
        """Returns the paths of certificate and key."""
        key = rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name(common_name), key, days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        certificate_file, key_file = self._directory / f"{file}.pem", self._directory / f"{file}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_file.touch(0o600)
        key_file.write_bytes(encoded)
        return certificate_file, key_file

    def server(self, file: str, *hosts: str, **options):
        """A certificate for these host names and, without any, for this host."""
        names = [x509.DNSName(host) for host in hosts or ("localhost",)]
        names.append(x509.IPAddress(ip_address("127.0.0.1")))
        return self.issue(file, (hosts or ("localhost",))[0], names, usage=ExtendedKeyUsageOID.SERVER_AUTH, **options)

    def client(self, file: str, common_name: str, *names, **options):
        return self.issue(file, common_name, names, usage=ExtendedKeyUsageOID.CLIENT_AUTH, **options)
