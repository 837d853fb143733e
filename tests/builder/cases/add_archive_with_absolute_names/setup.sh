printf f > f
tar --owner=0 --group=0 -cPf a.tar --transform 's,^,/etc/,' f
