mkdir -p there/real
printf old > there/real/g
ln -s real there/dir-link
ln -s real/g there/file-link
ln -s real/made there/dangling
ln -s /real there/rooted-link
