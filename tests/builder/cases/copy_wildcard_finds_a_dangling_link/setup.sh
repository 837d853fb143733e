printf f > file
ln -s no/where fallen
