mkdir there
printf old > there/real
ln -s real there/name
