. "$(dirname "$0")/../../layout.sh"
mkdir -p 1/dir 1/real 2/file 3/dir
echo low > 1/dir/a; echo low > 1/file; echo low > 1/real/x; ln -s real 1/link; ln -s dir 1/back
ln -s real 2/dir; echo mid > 2/file/f
echo high > 3/dir/b; echo file > 3/back
make_layout layout 1 2 3
