. "$(dirname "$0")/../../layout.sh"
mkdir 1
make_layout layout 1
manifest=$(sed 's/"digest":/"platform":{"os":"linux","architecture":"amd64"},"digest":/' layout/index.json)
printf '%s' "$manifest" > index
put_blob index
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%s","size":%s}]}' "$digest" "$size" > layout/index.json
