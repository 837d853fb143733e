mkdir tree
ln -s other tree/name
