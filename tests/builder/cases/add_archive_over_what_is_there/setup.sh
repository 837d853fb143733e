mkdir -p there/real there/dir tree/dir tree/link tree/was-dir
printf old > there/real/f
printf old > there/file
ln -s real there/link
ln -s real there/other-link
mkdir there/is-dir
printf old > there/is-dir/g
printf new > tree/dir/f
printf new > tree/link/f
printf new > tree/is-dir
mkdir tree/other-link
printf new > tree/other-link/g
printf new > tree/file
chmod 0711 tree/dir
tar --owner=3 --group=4 -cf a.tar -C tree dir link is-dir file was-dir other-link/g
