"""Every output, read back by programs that are not ours."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.integration.building import Builder, push_base, write_files
from tests.peers import Registry

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS files
COPY --chown=1000:1000 --chmod=4750 tool /opt/tool
RUN mkdir -p /var/lib/app && echo state > /var/lib/app/state && ln /var/lib/app/state /var/lib/app/same \
 && ln -s ../lib/app /var/link && rm /etc/link
FROM files
LABEL kind=test
"""
SKOPEO = ("skopeo", "--insecure-policy")


@pytest.fixture
def given(tmp_path: Path, registry: Registry, busybox_layout: Path) -> list[str]:
    """A context and its base image, as arguments."""
    push_base(busybox_layout, registry)
    context = write_files(tmp_path / "context", {"Dockerfile": DOCKERFILE, "tool": "#!/bin/sh\n"})
    return [str(context), f"--build-arg=BASE={registry.host}/base/busybox:1", "--reproducible"]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "home")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def inspect(image: str, *more: str) -> Any:
    return json.loads(run(*SKOPEO, "inspect", "--tls-verify=false", *more, image))


def test_one_build_makes_every_archive_and_other_programs_read_them_all(tmp_path, given, builder):
    out = tmp_path / "out"
    builder.must(
        *given,
        f"--output=type=docker,dest={out}/docker.tar,name=app:1",
        f"--output=type=oci,dest={out}/oci.tar,name=app:1",
        f"--output=type=oci,dest={out}/layout,tar=false,name=app:1",
        f"--output=type=oci,dest={out}/zstd,tar=false,name=app:1,compression=zstd,compression-level=9",
        f"--output=type=oci,dest={out}/plain,tar=false,name=app:1,compression=uncompressed,force-compression=true",
    )
    places = [
        f"docker-archive:{out}/docker.tar",
        f"oci-archive:{out}/oci.tar",
        f"oci:{out}/layout:1",
        f"oci:{out}/zstd:1",
        f"oci:{out}/plain:1",
    ]
    configs = [inspect(place, "--config") for place in places]
    assert configs == configs[:1] * len(places)
    assert configs[0]["config"]["Labels"] == {"kind": "test"}
    for number, place in enumerate(places):
        run(*SKOPEO, "copy", place, f"dir:{tmp_path}/copy{number}")
    kinds = {place: {kind.rpartition(".")[2] for kind in layer_types(place)} for place in places[2:]}
    assert kinds[places[2]] == {"tar+gzip"}
    assert kinds[places[3]] == {"tar+gzip", "tar+zstd"}  # the base's own layer is kept
    assert kinds[places[4]] == {"tar"}
    for name in ("layout", "plain"):  # umoci 0.4 knows no zstd
        run("umoci", "unpack", "--image", f"{out}/{name}:1", f"{tmp_path}/bundle-{name}")
        check_files(tmp_path / f"bundle-{name}/rootfs")


def test_podman_and_docker_load_what_is_written(tmp_path, given, builder, docker):
    archive = tmp_path / "image.tar"
    builder.must(*given, "--no-push", "-d", "localhost/app:1", f"--tar-path={archive}")
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as own:  # podman refuses long paths here
        storage = (f"--root={own}/storage", f"--runroot={own}/run", "--storage-driver=vfs")
        assert "localhost/app:1" in run("podman", *storage, "load", "-q", "-i", str(archive))
    assert "app:1" in docker.ask("load", "-q", "-i", str(archive))
    assert docker.ask("image", "inspect", "--format={{index .Config.Labels `kind`}}", "localhost/app:1") == "test"


def layer_types(image: str) -> list[str]:
    return [layer["mediaType"] for layer in inspect(image, "--raw")["layers"]]


def check_files(root: Path) -> None:
    tool = (root / "opt/tool").stat()
    assert (tool.st_uid, tool.st_gid, tool.st_mode & 0o7777) == (1000, 1000, 0o4750)
    assert (root / "var/lib/app/state").samefile(root / "var/lib/app/same")
    assert os.readlink(root / "var/link") == "../lib/app"
    assert not os.path.lexists(root / "etc/link")
    assert (root / "bin/busybox").is_file()


def test_files_come_without_an_image_as_a_directory_and_as_a_tar(tmp_path, given, builder):
    out = tmp_path / "out"
    ended = builder.must(*given, f"--output={out}", f"--output=type=tar,dest={tmp_path}/files.tar")
    assert f"wrote the files to {out}" in ended.output
    check_files(out)
    (tmp_path / "unpacked").mkdir()
    run("tar", "-xpf", str(tmp_path / "files.tar"), "-C", str(tmp_path / "unpacked"))
    check_files(tmp_path / "unpacked")
    assert run("tar", "-tf", str(tmp_path / "files.tar")).startswith("bin/\n")


def test_what_is_in_the_directory_never_leads_out_of_it(tmp_path, given, builder):
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "opt").symlink_to(outside)
    (out / "other").write_text("stays\n")
    builder.must(*given, f"--output={out}")
    assert list(outside.iterdir()) == []
    assert (out / "other").read_text() == "stays\n"
    check_files(out)


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_standard_output_carries_the_archive_alone(tmp_path, given, builder, kind):
    done = subprocess.run(
        builder.command(*given, f"--output=type={kind},dest=-"),
        env=builder.environ(),
        capture_output=True,
        timeout=100,
        check=True,
    )
    path = tmp_path / "out.tar"
    path.write_bytes(done.stdout)
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert {"tar": "opt/tool", "oci": "index.json", "docker": "manifest.json"}[kind] in names


def test_images_are_pushed_with_docker_s_media_types_or_with_annotations(given, builder, registry):
    builder.must(*given, f"--output=type=image,name={registry.host}/docker:1,push=true,oci-mediatypes=false")
    raw = inspect(f"docker://{registry.host}/docker:1", "--raw")
    kinds = {raw["mediaType"], raw["config"]["mediaType"], *(layer["mediaType"] for layer in raw["layers"])}
    assert all(kind.startswith("application/vnd.docker.") for kind in kinds)
    note = f"--output=type=registry,name={registry.host}/noted:1,annotation.org.example.note=x"
    builder.must(*given, note, "--annotation=org.example.all=y")
    raw = inspect(f"docker://{registry.host}/noted:1", "--raw")
    assert raw["annotations"] == {"org.example.all": "y", "org.example.note": "x"}


def test_layers_for_several_destinations_are_compressed_once_and_cached_as_they_are(given, builder, registry, tmp_path):
    cached = [*given, "--cache", f"--cache-repo={registry.host}/cache", "--compression=zstd"]
    names = [f"{registry.host}/{name}:1" for name in ("one", "two")]
    builder.must(*cached, *(f"--destination={name}" for name in names))
    digests = {
        run(*SKOPEO, "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}") for name in names
    }
    assert len(digests) == 1
    again = Builder(tmp_path / "other").must(*cached, f"--destination={registry.host}/three:1")
    assert set(again.outcomes) == {"CACHED"}
    assert Builder(tmp_path / "other").left() == []
    gzip = Builder(tmp_path / "gzip").must(*cached[:-1], f"--destination={registry.host}/four:1")
    assert "CACHED" not in gzip.outcomes[:2]
    assert all(kind.endswith("gzip") for kind in layer_types(f"docker://{registry.host}/four:1"))


@pytest.fixture
def puts() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server that takes what is sent to it: its address, and path, type and body of each; it fails once first."""
    taken: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        failed = False

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not Handler.failed:
                Handler.failed = True
                self.send_error(503)
                return
            taken.append((self.path, self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()

        do_POST = do_PUT

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_digests_go_to_files_and_by_put_to_urls_whose_query_stays_secret(given, builder, registry, tmp_path, puts):
    url, taken = puts
    ended = builder.must(
        *given,
        f"--destination={registry.host}/app:1",
        f"--digest-file={url}/digest?signature=s3cret",
        f"--image-name-with-digest-file={tmp_path}/names",
        f"--image-name-tag-with-digest-file={tmp_path}/tags",
    )
    ((path, kind, digest),) = taken
    digest = digest.decode()
    assert (path, kind) == ("/digest?signature=s3cret", "text/plain")
    assert "s3cret" not in ended.output
    assert (tmp_path / "names").read_text() == f"{registry.host}/app@{digest}\n"
    assert (tmp_path / "tags").read_text() == f"{registry.host}/app:1@{digest}\n"


def test_an_archive_goes_by_post_to_a_url_and_the_images_into_a_file_of_the_pipeline(given, registry, tmp_path, puts):
    url, taken = puts
    builder = Builder(tmp_path / "home", {"BUILDER_OUTPUT": str(tmp_path / "output")})
    sent = (f"--upload-tar={url}/image?signature=s3cret", f"--digest-file={tmp_path}/digest")
    ended = builder.must(*given, f"--destination={registry.host}/app:1", *sent)
    ((path, kind, archive),) = taken
    assert (path, kind) == ("/image?signature=s3cret", "application/x-tar")
    assert "s3cret" not in ended.output
    (tmp_path / "image.tar").write_bytes(archive)
    assert inspect(f"docker-archive:{tmp_path}/image.tar", "--config")["config"]["Labels"] == {"kind": "test"}
    (line,) = (tmp_path / "output/images").read_text().splitlines()
    assert json.loads(line) == {"name": f"{registry.host}/app:1", "digest": (tmp_path / "digest").read_text()}
