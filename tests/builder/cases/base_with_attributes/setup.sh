. "$(dirname "$0")/../../layout.sh"
mkdir 1
echo low > 1/f
TAR_OPTIONS='--format=pax --pax-option=delete=atime,delete=ctime,SCHILY.xattr.user.note:=hello'
export TAR_OPTIONS
make_layout layout 1
tar --owner=0 --group=0 -C 1 -cf layer.tar f
