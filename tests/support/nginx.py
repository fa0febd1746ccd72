"""A real nginx with the shipped configuration, on loopback, for tests and benchmarks."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerec.processes.addresses import LOOPBACK, free_port, poll_until

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "nginx.conf"
START_SECONDS = 10
STOP_SECONDS = 10


def find_nginx() -> str | None:
    """Return the path of the installed nginx, also of one that only root has on its PATH."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@contextmanager
def nginx(folder: Path, web_port: int) -> Iterator[str]:
    """Run nginx in front of a web tier on `web_port`; yields its URL. `folder` keeps its files.

    Raises `FileNotFoundError` if nginx is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(localised(CONFIGURATION.read_text(), folder, port, web_port))
    program = find_nginx()
    if program is None:
        raise FileNotFoundError("nginx is not installed; on Debian: apt-get install nginx-light")
    command = [program, "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"]
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://{LOOPBACK}:{port}"
        if not poll_until(lambda: listens(port), START_SECONDS):
            raise RuntimeError(f"nginx did not start:\n{(folder / 'output.log').read_text()}")
        yield url
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def localised(text: str, folder: Path, port: int, web_port: int) -> str:
    """Return the configuration with ports of this machine and with every file in `folder`."""
    temporary = "".join(
        f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for old, new in (
        (r"listen 80 ", f"listen {LOOPBACK}:{port} "),
        (r"server 127\.0\.0\.1:8000;", f"server {LOOPBACK}:{web_port};"),
        (r"pid /run/nginx\.pid;", f"pid {folder}/nginx.pid;"),
        (r"/var/log/nginx/", f"{folder}/"),
        # As root, nginx' workers would change to a user that cannot enter the folder.
        (r"worker_processes auto;", "worker_processes auto;" + (" user root;" if os.geteuid() == 0 else "")),
        (r"http \{\n", f"http {{\n{temporary}"),
    ):
        text, count = re.subn(old, new, text)
        assert count, old
    return text


def listens(port: int) -> bool:
    """Return whether something accepts connections on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
