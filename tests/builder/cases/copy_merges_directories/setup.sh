chmod 0700 one/sub
chmod 0755 two/sub
