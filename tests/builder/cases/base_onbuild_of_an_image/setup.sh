. "$(dirname "$0")/../../layout.sh"
mkdir 1
echo low > 1/f
make_layout layout 1
config='"OnBuild": ["ENV FROM_TRIGGER=yes", "COPY f /copied", "LABEL x=$FROM_TRIGGER"], "Env": ["A=b"], "User": "5:6"'
with_config layout "$config"
