chmod 0700 src/deep; chmod 0600 src/a.txt; chmod 0755 src/b.md
