mkdir -p there/real
ln -s real there/name
