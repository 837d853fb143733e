printf text > text.tar
printf one | gzip -n > one.gz
tar --owner=0 --group=0 -cf archive.tar -C dir f
mv archive.tar archive.txt
printf '\037\213\010\000' > broken.tar.gz
