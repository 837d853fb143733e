mkdir -p h/d
printf x > h/a
ln h/a h/b
ln h/a h/d/c
