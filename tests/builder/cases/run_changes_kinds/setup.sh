ln -s file link
