. "$(dirname "$0")/../../layout.sh"
mkdir 1
echo low > 1/f
make_layout layout 1
for blob in layout/blobs/sha256/*; do
    if tar -tf "$blob" > list 2> /dev/null; then printf changed | dd of="$blob" bs=1 seek=1030 conv=notrunc 2> /dev/null; fi
done
