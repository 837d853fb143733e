. "$(dirname "$0")/../../layout.sh"
mkdir 1
make_layout layout 1
with_config layout '"Env": "not a list"'
