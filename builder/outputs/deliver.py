"""What was built → everywhere it shall go: registries, archives, directories, and the files that say its digest.

Most images are only pushed: what writes files is imported when a file is asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from builder import events
from builder.errors import BuildError
from builder.layer.origins import BuildLayers
from builder.layer.rootfs import Tree
from builder.options import OutputOptions
from builder.outputs import digest_files, web
from builder.outputs.conversions import Conversions
from builder.outputs.exports import Export
from builder.outputs.image import Image, ImageSet, compose, gather
from builder.outputs.push import Destination, push_images
from builder.outputs.whole_files import write_text
from cache.oci.config import ImageConfig
from cache.oci.descriptor import Platform
from cache.oci.digest import Digest
from cache.oci.layer import Layer
from cache.oci.reference import Reference
from cache.oci.registries import Registries


@dataclass(frozen=True, slots=True)
class Product:
    """A stage that was built for one platform; ``base`` are the layers that it did not make itself.

    ``files`` puts its files together, which few exports need.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    base: frozenset[Digest]
    files: Callable[[], Awaitable[Tree]]


Products = Mapping[Platform, Product]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivers the products of one build, by the names of their targets; "" is the first target."""

    output: OutputOptions
    layers: BuildLayers
    registries: Registries
    conversions: Conversions
    listen: events.Listener
    clamp_mtime_s: int | None

    async def deliver(self, products: Mapping[str, Products]) -> None:
        """Makes every export. All images are composed before the first goes anywhere. Raises BuildError."""
        images = [
            await self._images(export, products[export.target]) if export.is_image else None
            for export in self.output.exports
        ]
        pushed: list[tuple[Reference, Digest]] = []
        for export, made in zip(self.output.exports, images, strict=True):
            match export.kind:
                case "image":
                    pushed += await self._push(export, made) if made is not None else []
                case "docker" | "oci":
                    await self._write_archive(export, made)
                case "local" | "tar":
                    await self._write_files(export, products[export.target])
        first = next((made for made in images if made is not None), None)
        if first is None:
            first = await self._images(Export(kind="image"), products[""])
        await self._write_digests(first.root.digest, pushed)
        if not pushed:
            self.listen(events.Note(f"built {first.root.digest}"))

    async def _images(self, export: Export, products: Products) -> ImageSet:
        try:
            composed = {platform: await self._image(export, product) for platform, product in products.items()}
            return gather(composed, export.format)
        except ValueError as error:
            raise BuildError(f"the output cannot be made so: {error}") from error

    async def _image(self, export: Export, product: Product) -> Image:
        wanted = export.format
        layers = await self.conversions.convert(
            product.layers, product.base, wanted.layers, recompress=wanted.recompress
        )
        return compose(product.config, layers, wanted)

    async def _push(self, export: Export, images: ImageSet) -> list[tuple[Reference, Digest]]:
        for name in export.names if export.push else ():
            destination = Destination(name, self.registries.client(name.host, name.repository))
            for event in await push_images(images, destination, self.layers, self.output.push):
                self.listen(event)
        return [(name, images.root.digest) for name in export.names if export.push]

    async def _write_archive(self, export: Export, images: ImageSet | None) -> None:
        assert images is not None  # made of every export that is an image
        from builder.outputs.image_files import write_docker_archive, write_oci_layout

        if export.kind == "docker" and len(images.images) > 1:
            raise BuildError("a docker-save archive holds the image of one platform: use type=oci for several")
        if export.url:
            await self._send_archive(export, images)
            return
        layers = {layer.descriptor.digest: layer for image in images.images for layer in image.layers}
        paths = await asyncio.gather(*map(self.layers.fetch, layers.values()))
        blobs = dict(zip(layers, paths, strict=True))
        if export.kind == "docker":
            (image,) = images.images
            await asyncio.to_thread(write_docker_archive, image, export.names, blobs, export.path)
        else:
            await asyncio.to_thread(write_oci_layout, images, export.names, blobs, export.path, packed=export.packed)
        what = "a docker-save archive" if export.kind == "docker" else "an OCI layout"
        self.listen(events.Written(what, _shown(export)))

    async def _send_archive(self, export: Export, images: ImageSet) -> None:
        """Writes the archive beside the layers, and sends it from there."""
        path = self.layers.store.incoming()
        try:
            await self._write_archive(replace(export, path=path, url=""), images)
            sending = web.Sending("POST", export.url, "application/x-tar", "the archive", lambda: path.open("rb"))
            await web.send(sending, export.tries)
        finally:
            path.unlink(missing_ok=True)
        self.listen(events.Written("that archive", web.shown(export.url)))

    async def _write_files(self, export: Export, products: Products) -> None:
        split = len(products) > 1 if export.split is None else export.split
        if len(products) > 1 and not split:
            raise BuildError("the files of several platforms need a directory for each: leave platform-split on")
        trees = {
            str(platform).replace("/", "_") if split else "": await product.files()
            for platform, product in products.items()
        }
        for reason in await asyncio.to_thread(self._written, export, trees):
            self.listen(events.Warned(f"not in {_shown(export)}: {reason}"))
        self.listen(events.Written("the files" if export.kind == "local" else "a tar of the files", _shown(export)))

    def _written(self, export: Export, trees: Mapping[str, Tree]) -> list[str]:
        from builder.outputs.files import write_directory, write_tar
        from builder.outputs.whole_files import writing

        if export.kind == "local":
            assert export.path is not None  # a directory always has one
            return write_directory(trees, export.path, self.clamp_mtime_s, owners=self.output.owners)
        with writing(export.path) as out:
            write_tar(trees, out, self.clamp_mtime_s)
        return []

    async def _write_digests(self, digest: Digest, pushed: list[tuple[Reference, Digest]]) -> None:
        names = "".join(f"{name.name}@{at}\n" for name, at in pushed)
        tagged = "".join(f"{name.name}{f':{name.tag}' if name.tag else ''}@{at}\n" for name, at in pushed)
        wanted = (
            (self.output.digest_file, str(digest)),
            (self.output.image_name_with_digest_file, names),
            (self.output.image_name_tag_with_digest_file, tagged),
        )
        if pushed and self.output.images_file is not None:
            lines = (json.dumps({"name": str(name), "digest": str(at)}) for name, at in pushed)
            await asyncio.to_thread(write_text, self.output.images_file, "".join(f"{line}\n" for line in lines))
        for place, text in wanted:
            if place:
                await digest_files.write(place, text)
                self.listen(events.Written("the digest", digest_files.shown(place)))


def _shown(export: Export) -> str:
    return str(export.path) if export.path is not None else "standard output"
