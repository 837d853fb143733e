chown 1000:1000 top.txt
