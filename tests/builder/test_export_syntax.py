"""The text of --output and --annotation, as buildx spells it."""

from pathlib import Path

import pytest

from builder.outputs.export_syntax import parse_annotation, parse_export, parse_layer_format
from builder.outputs.exports import USUAL_IMAGE, Annotation, Export, ImageFormat, LayerFormat, step_format
from cache.oci.descriptor import Platform
from cache.oci.reference import Reference

A, B = Reference.parse("r.example/a:1"), Reference.parse("r.example/b:2")


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("out", Export(kind="local", path=Path("out"))),
        ("-", Export(kind="tar")),
        ("type=local,dest=out,platform-split=false", Export(kind="local", path=Path("out"), split=False)),
        ("type=tar,dest=-", Export(kind="tar")),
        ("type=oci,dest=a.tar", Export(kind="oci", path=Path("a.tar"))),
        ("type=oci,dest=dir,tar=false", Export(kind="oci", path=Path("dir"), packed=False)),
        ("type=docker,dest=-,name=r.example/a:1", Export(kind="docker", names=(A,))),
        ('type=image,"name=r.example/a:1,r.example/b:2",push=true', Export(kind="image", names=(A, B), push=True)),
        ("type=registry,name=r.example/a:1", Export(kind="image", names=(A,), push=True)),
        ("type=image,target=docs", Export(kind="image", target="docs")),
        (
            "type=image,compression=zstd,compression-level=19,force-compression=true",
            Export(kind="image", format=ImageFormat(layers=LayerFormat("zstd", 19), recompress=True)),
        ),
        ("type=image,oci-mediatypes=false", Export(kind="image", format=ImageFormat(docker=True))),
        (
            "type=image,annotation.a.b=c=d,annotation-index.i=1,annotation-manifest-descriptor[linux/arm64].m=2",
            Export(
                kind="image",
                format=ImageFormat(
                    annotations=(
                        Annotation("manifest", "a.b", "c=d"),
                        Annotation("index", "i", "1"),
                        Annotation("manifest-descriptor", "m", "2", Platform.parse("linux/arm64")),
                    )
                ),
            ),
        ),
    ],
)
def test_an_output_says_what_buildx_means_by_it(text, export):
    assert parse_export(text, USUAL_IMAGE) == export


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=rpm,dest=x", "type=rpm: expected local, tar, oci, docker, image or registry"),
        ("type=oci", "type=oci needs dest=PATH"),
        ("type=local,dest=-", "a directory cannot go to standard output"),
        ("type=oci,dest=-,tar=false", "a directory cannot go to standard output"),
        ("type=image,push=true", "what is pushed needs name=IMAGE"),
        ("type=image,push=perhaps", "push=perhaps: expected true or false"),
        ("type=local,dest=x,name=a", "type=local has no name"),
        ("type=local,dest=x,annotation.a=b", "type=local has no annotations"),
        ("type=image,nmae=a", "type=image has no nmae"),
        ("type=image,compression=estargz", "compression 'estargz': expected gzip, zstd or uncompressed"),
        ("type=image,compression=gzip,compression-level=10", "compression level 10: expected 0 to 9 for gzip"),
        ("type=image,compression=zstd,oci-mediatypes=false", "Docker has no media type for zstd layers"),
        ("type=image,annotation-layer.a=b", "annotation on 'layer': expected manifest, manifest-descriptor, index"),
        ("type=image,name=UPPER", "invalid image reference 'UPPER'"),
    ],
)
def test_what_an_output_cannot_be_is_said(text, message):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_export(text, USUAL_IMAGE)
    assert message in str(caught.value)


def test_annotations_of_the_command_line_name_their_places():
    arm = Platform.parse("linux/arm64")
    assert parse_annotation("a=b=c") == (Annotation("manifest", "a", "b=c"),)
    assert parse_annotation("index,manifest[linux/arm64]:a=b") == (
        Annotation("index", "a", "b"),
        Annotation("manifest", "a", "b", arm),
    )
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        parse_annotation("a")


def test_a_level_belongs_to_its_compression():
    common = LayerFormat("zstd", 19)
    assert parse_layer_format("", "", common) == common
    assert parse_layer_format("gzip", "", common) == LayerFormat("gzip")
    assert parse_layer_format("zstd", "-1", common) == LayerFormat("zstd")


def test_steps_write_the_format_of_what_is_pushed():
    zstd, gzip9, plain = (ImageFormat(layers=LayerFormat(*args)) for args in (("zstd",), ("gzip", 9), ("none",)))
    archive = Export(kind="oci", format=gzip9)
    assert step_format((archive, Export(kind="image", push=True, format=zstd))) == zstd.layers
    assert step_format((Export(kind="tar"), archive)) == gzip9.layers
    assert step_format((Export(kind="oci", format=plain),)) == LayerFormat()
