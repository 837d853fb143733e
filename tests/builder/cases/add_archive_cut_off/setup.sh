head -c 3000 /dev/zero > f
tar --owner=0 --group=0 -cf whole.tar f
head -c 2000 whole.tar > a.tar
