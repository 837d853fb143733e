chmod 0755 src/run
