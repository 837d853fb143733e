# For setup.sh of cases: images that no Dockerfile makes, as OCI layouts.

# make_layout LAYOUT DIRECTORY...: an image whose layers are the directories, all of root.
make_layout() {
    layout=$1
    shift
    mkdir -p "$layout/blobs/sha256"
    layers= diff_ids=
    for directory; do
        tar --owner=0 --group=0 --numeric-owner --sort=name --mtime=@1.5 -C "$directory" -cf layer.tar .
        put_blob layer.tar
        diff_ids="$diff_ids${diff_ids:+,}\"sha256:$digest\""
        layers="$layers${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$digest\",\"size\":$size}"
    done
    with_config "$layout" ""
}

# with_config LAYOUT FIELDS: the last image that was made, with these fields in its configuration.
with_config() {
    printf '{"os":"linux","architecture":"amd64","config":{%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' "$2" "$diff_ids" > config
    put_blob config
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' "$digest" "$size" "$layers" > manifest
    put_blob manifest
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}]}' "$digest" "$size" > "$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
}

# put_blob FILE: moves it into the layout; ``digest`` and ``size`` are its.
put_blob() {
    digest=$(sha256sum "$1" | cut -c -64)
    size=$(wc -c < "$1")
    mv "$1" "$layout/blobs/sha256/$digest"
}
