"""Certificates for a cluster with TLS: made by scripts/make-certs.sh."""
import os
import ssl
import subprocess

FILES = {"cert_file": "certs/node.pem", "key_file": "certs/node.key", "ca_file": "certs/ca.pem"}
CLIENTS = {"client_ca_file": "certs/ca.pem"}


def openssl(*words):
    done = subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_certs(ctx, directory, *options):
    done = subprocess.run([os.path.join(ctx.source_dir, "scripts", "make-certs.sh"), *options, directory],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def trusting(directory, certificate=None):
    """A client's context that trusts the CA in directory and may show a certificate of another."""
    context = ssl.create_default_context(cafile=os.path.join(directory, "ca.pem"))
    if certificate is not None:
        context.load_cert_chain(certificate + ".pem", certificate + ".key")
    return context


def certs_of(c):
    return os.path.join(c.data_dir, "certs")


def prepare(ctx, replicas=0, tls=None, **settings):
    """A cluster that is set up for TLS, not started."""
    c = ctx.cluster(replicas=replicas, settings={"tls": dict(FILES, **(tls or {})), **settings})
    make_certs(ctx, certs_of(c))
    c.tls = trusting(certs_of(c))
    return c


def serve(ctx, replicas=0, tls=None, **settings):
    return prepare(ctx, replicas, tls, **settings).start()
