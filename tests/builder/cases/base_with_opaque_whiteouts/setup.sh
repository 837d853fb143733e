. "$(dirname "$0")/../../layout.sh"
mkdir -p 1/d/sub 1/e/sub 1/f 2/d/sub 2/e 2/f 3/e
echo low > 1/d/a; echo low > 1/d/sub/b; echo low > 1/e/a; echo low > 1/e/sub/b; echo low > 1/f/a; echo low > 1/g
: > 2/d/.wh..wh..opq; echo mid > 2/d/sub/c
: > 2/e/.wh.a; : > 2/.wh.g; echo mid > 2/f/b
: > 3/.wh.f; : > 3/e/.wh..wh..opq; echo high > 3/e/c
make_layout layout 1 2 3
