mkdir x
for n in 1 2 3 4 5 6; do : > x/$n; done
tar --owner=0 --group=0 -cf a.tar x
