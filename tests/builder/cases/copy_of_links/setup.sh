mkdir real nested
printf f > real/f
ln -s real dir-link
ln -s dir-link/f file-link
ln -s /real/f rooted-link
ln -s ../real/f nested/to-file
ln -s ../real nested/to-dir
ln -s /no/where nested/dangling
