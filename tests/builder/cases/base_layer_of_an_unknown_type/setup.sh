. "$(dirname "$0")/../../layout.sh"
mkdir 1
make_layout layout 1
layers=$(printf %s "$layers" | sed 's,v1.tar,v9.squashfs,')
with_config layout ""
