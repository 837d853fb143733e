ln -s no/where link
