chmod 4755 m/setuid
chmod 0444 m/read-only
chmod 1777 m/sticky
chmod 2750 m/setgid
chmod 0750 m
