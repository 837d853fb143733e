truncate -s 2M f
tar --owner=0 --group=0 -czf a.tar.gz f
