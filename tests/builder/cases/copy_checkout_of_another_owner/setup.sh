chmod 0775 sub
chmod 0664 f sub/g
chown -R 4321:1234 . 2>/dev/null || true
