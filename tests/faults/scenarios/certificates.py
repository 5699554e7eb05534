"""A store that proves who it is, and one that fails to."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenario import Stage, under_load, whole
from tests.faults.scenarios.topology import at_url
from tests.faults.scene import RECOVERED, Scene, Setup
from tests.helper import Store, free_port, wait_until
from tests.store.servers import a_store, is_up, trouble
from tests.store.test_topology import certificates, openssl


@whole("TLS: server restarted with certificates that are right, and wrong", rounds=2, short=1, stores=["redis"])
def tls(stage: Stage) -> None:
    """An expired certificate, another host's, and one of an unknown CA are refused by name, and mail waits for the
    right one."""
    folder = stage.folder / "tls"
    certificates(folder)
    _sign(folder, "other", "-days", "2", names="IP:127.0.0.9")
    _sign(folder, "expired", "-days", "-1", names="IP:127.0.0.1")
    port = free_port()

    def options(certificate: str) -> tuple[str, ...]:
        return (
            *(*Setup().options, "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(folder / f"{certificate}.crt"), "--tls-key-file", str(folder / "server.key")),
            *("--tls-ca-cert-file", str(folder / "ca.crt")),
        )

    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder / 'ca.crt'}"
    with (
        a_store(stage.kind, stage.folder / "store", *options("server")) as store,
        at_url(stage, store, url) as scene,
    ):

        def act(scene: Scene) -> None:
            for certificate in ("expired", "other"):
                _present(store, folder / f"{certificate}.crt")
                store.kill()
                store.start()
                wait_until(lambda: "certificate" in trouble(scene.b.home).lower(), f"{certificate} is named", RECOVERED)
                _present(store, folder / "server.crt")
                store.kill()
                store.start()
                wait_until(lambda: is_up(scene.b.home), "the store is up", RECOVERED)

        under_load(stage, scene, act)


def _present(store: Store, certificate: Path) -> None:
    """From its next start on the server shows this one."""
    place = store.command.index("--tls-cert-file") + 1
    store.command[place] = str(certificate)


def _sign(folder: Path, name: str, *options: str, names: str) -> None:
    (folder / f"{name}.names").write_text(f"subjectAltName={names}\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.names", *options)
    openssl(folder, "x509", "-req", "-in", "server.csr", *sign, "-out", f"{name}.crt")
